"""`nemo-cmim embed`: one row of output for each row of input, in every format; an error names the file and leaves no output."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem

from nemo_cmim.cli import main
from nemo_cmim.errors import ConfigError, DataError, InvalidSmilesError
from nemo_cmim.inference import CMIMModel, stream

ROWS = {"id": ["007", "8", ""], "smiles": ["CCO", "c1ccccc1", "OCC"], "note": ['a "quoted", text', "two\nlines", "ünï"]}


def run(*arguments: object) -> int:
    return main(["embed", *map(str, arguments)])


@pytest.mark.parametrize("name", ["in.csv", "in.tsv", "in.csv.gz", "in.parquet"])
@pytest.mark.parametrize("out", ["out.parquet", "out.csv"])
def test_columns_and_rows_are_kept(tmp_path: Path, model_file: Path, model: CMIMModel, name: str, out: str) -> None:
    table = pd.DataFrame(ROWS)
    if name.endswith("parquet"):
        table.to_parquet(tmp_path / name)
    else:
        table.to_csv(tmp_path / name, index=False, sep="\t" if "tsv" in name else ",")
    assert run(tmp_path / name, "-o", tmp_path / out, "--model", model_file) == 0
    if out.endswith("parquet"):
        result = pd.read_parquet(tmp_path / out)
        vectors = np.stack(result.pop("embedding"))
    else:
        result = pd.read_csv(tmp_path / out, dtype={"id": str}, keep_default_na=False)
        vectors = result[[f"e{i}" for i in range(32)]].to_numpy()
        result = result[list(ROWS)]
    pd.testing.assert_frame_equal(result, table, check_dtype=False)
    np.testing.assert_allclose(vectors, model.embed(ROWS["smiles"]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("header", ["", "smiles zinc_id\n"])
def test_smi_files(tmp_path: Path, model_file: Path, model: CMIMModel, header: str) -> None:
    (tmp_path / "in.smi").write_text(f"{header}CCO 007\r\nc1ccccc1 ZINC0001\r\n")
    assert run(tmp_path / "in.smi", "-o", tmp_path / "out.parquet", "--model", model_file, "--kind", "mean") == 0
    result = pd.read_parquet(tmp_path / "out.parquet")
    assert list(result["smiles"]) == ["CCO", "c1ccccc1"] and list(result["zinc_id" if header else "id"]) == ["007", "ZINC0001"]
    np.testing.assert_allclose(np.stack(result["embedding"]), model.embed(["CCO", "c1ccccc1"], "mean"), rtol=1e-4, atol=1e-5)


def test_layers_are_concatenated(tmp_path: Path, model_file: Path, model: CMIMModel, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.smi").write_text("CCO\nc1ccccc1\n")
    command = (tmp_path / "in.smi", "-o", tmp_path / "out.parquet", "--model", model_file, "--layers")
    assert run(*command, 2, 1) == 0
    expected = model.embed(["CCO", "c1ccccc1"], layers=(2, 1))
    np.testing.assert_allclose(np.stack(pd.read_parquet(tmp_path / "out.parquet")["embedding"]), expected, rtol=1e-4, atol=1e-5)
    assert run(*command, 9, "--overwrite") == 2
    assert "layers must be distinct numbers from 1 to 2" in capsys.readouterr().err


def test_many_blocks(tmp_path: Path, model_file: Path, model: CMIMModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "ROWS_AT_ONCE", 7)
    smiles = ["C" * (1 + i % 40) + "O" for i in range(100)]
    pd.DataFrame({"n": range(100), "smiles": smiles}).to_csv(tmp_path / "in.csv", index=False)
    seen: list[tuple[int, float | None]] = []
    done = stream.embed_file(model, tmp_path / "in.csv", tmp_path / "out.parquet", progress=lambda *now: seen.append(now))
    result = pd.read_parquet(tmp_path / "out.parquet")
    assert done == (100, 0, [], 0) and len(result) == 100
    assert seen == sorted(seen) and len(seen) >= 15 and seen[-1] == (100, 1.0)
    assert list(result["n"].astype(int)) == list(range(100))
    np.testing.assert_allclose(np.stack(result["embedding"]), model.embed(smiles), rtol=1e-4, atol=1e-5)


def test_invalid_rows_raise_or_give_nan(tmp_path: Path, model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pd.DataFrame({"smiles": ["C", "C1C", "CC"]}).to_csv(tmp_path / "in.csv", index=False)
    command = (tmp_path / "in.csv", "-o", tmp_path / "out.csv", "--model", model_file)
    assert run(*command) == 2
    assert "'C1C') could not be parsed" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["in.csv"]
    assert run(*command, "--on-invalid", "nan", "--rejects", tmp_path / "bad.csv") == 0
    assert "1 rows are invalid" in (printed := capsys.readouterr().err) and "in.csv, line 3: the SMILES ('C1C')" in printed
    assert list(pd.read_csv(tmp_path / "out.csv")["e0"].isna()) == [False, True, False]
    (row,) = csv.DictReader((tmp_path / "bad.csv").read_text().splitlines())
    assert (row["file"], row["row"], row["smiles"]) == (str(tmp_path / "in.csv"), "3", "C1C") and "could not be parsed" in row[
        "reason"
    ]


def test_errors_name_the_file_and_leave_no_output(tmp_path: Path, model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.csv").write_text("id,structure\n1,CCO\n")
    (tmp_path / "header.csv").write_text("smiles\n")
    (tmp_path / "taken.csv").write_text("smiles,e0\nC,1\n")
    compressed = gzip.compress(("smiles\n" + "".join(f"{'C' * (i % 60 + 1)}\n" for i in range(50_000))).encode())
    (tmp_path / "cut.csv.gz").write_bytes(compressed[: len(compressed) // 2])
    before = sorted(tmp_path.iterdir())
    for name, message in {
        "in.csv": "no column 'smiles'; its first line is 'id', 'structure'",
        "header.csv": "holds no rows",
        "cut.csv.gz": "damaged, truncated",
        "none.csv": "is missing; check the path",
    }.items():
        assert run(tmp_path / name, "-o", tmp_path / "out.parquet", "--model", model_file) == 2, name
        printed = capsys.readouterr().err
        assert message in printed and name in printed, printed
    for name, output, message in (
        ("taken.csv", "out.csv", "already has a column 'e0'"),
        ("taken.csv", "in.csv", "already exists"),
        ("in.csv", "out.xlsx", "written as .parquet, .csv, "),
        ("in.csv", "no/out.csv", "there is no folder"),
    ):
        assert run(tmp_path / name, "-o", tmp_path / output, "--model", model_file) == 2, output
        assert message in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_overwrite_replaces_the_output(tmp_path: Path, model_file: Path) -> None:
    (tmp_path / "in.csv").write_text("smiles\nCCO\n")
    (tmp_path / "out.csv").write_text("old")
    assert run(tmp_path / "in.csv", "-o", tmp_path / "out.csv", "--model", model_file, "--overwrite") == 0
    assert len(pd.read_csv(tmp_path / "out.csv")) == 1


def test_an_empty_line_is_a_row(tmp_path: Path, model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.csv").write_text("smiles\nCCO\n\nCCN\n")
    command = (tmp_path / "in.csv", "-o", tmp_path / "out.csv", "--model", model_file)
    assert run(*command) == 2
    assert "in.csv, line 3: empty line" in capsys.readouterr().err
    assert run(*command, "--on-invalid", "nan") == 0
    assert len(pd.read_csv(tmp_path / "out.csv")) == 3


def test_errors_count_rows_over_blocks(tmp_path: Path, model: CMIMModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "ROWS_AT_ONCE", 4)
    (tmp_path / "in.csv").write_text("smiles\n" + "C\n" * 9 + "C1C\n")
    with pytest.raises(InvalidSmilesError, match=r"in\.csv, line 11: the SMILES"):
        stream.embed_file(model, tmp_path / "in.csv", tmp_path / "out.csv")


def test_an_unknown_device_is_an_error(tmp_path: Path, model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.csv").write_text("smiles\nC\n")
    assert run(tmp_path / "in.csv", "-o", tmp_path / "out.csv", "--model", model_file, "--device", "warp") == 2
    assert "The device 'warp' does not exist" in capsys.readouterr().err


def test_an_output_that_is_an_input_is_not_overwritten(tmp_path: Path, model: CMIMModel) -> None:
    (tmp_path / "in.csv").write_text("smiles\nCCO\n")
    (tmp_path / "link.csv").symlink_to("in.csv")
    for target, rejects in (("in.csv", None), ("link.csv", None), ("out.csv", "in.csv")):
        with pytest.raises(DataError, match="is also an input"):
            stream.embed_file(model, tmp_path / "in.csv", tmp_path / target, overwrite=True, rejects=rejects and tmp_path / rejects)
    assert (tmp_path / "in.csv").read_text() == "smiles\nCCO\n" and not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("other", ["out.csv", "folder/../out.csv", "link/out.csv"])
def test_rejects_and_output_are_different_files(tmp_path: Path, model: CMIMModel, other: str) -> None:
    (tmp_path / "in.smi").write_text("CCO\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(DataError, match=r"out\.csv is also another output\. Name a different file"):
        stream.embed_file(model, tmp_path / "in.smi", tmp_path / "out.csv", rejects=tmp_path / other)
    with pytest.raises(DataError, match="'-' stands for standard output"):
        stream.embed_file(model, tmp_path / "in.smi", tmp_path / "out.csv", rejects="-")


@pytest.mark.parametrize("out", ["out.npz", "out.csv", "out.parquet"])
def test_inputs_of_different_types_are_an_early_error(tmp_path: Path, model: CMIMModel, out: str) -> None:
    pd.DataFrame({"smiles": ["C"], "y": [1]}).to_parquet(tmp_path / "a.parquet")
    pd.DataFrame({"smiles": ["C"], "y": ["x"]}).to_parquet(tmp_path / "b.parquet")
    pd.DataFrame({"smiles": ["C"], "y": [2]}).to_csv(tmp_path / "c.csv", index=False)
    for second in ("b.parquet", "c.csv"):
        with pytest.raises(DataError, match=rf"{second} holds (large_)?string in the column 'y', but .*a\.parquet holds int64"):
            stream.embed_file(model, [tmp_path / "a.parquet", tmp_path / second], tmp_path / out)
        assert not (tmp_path / out).exists()


def test_npz_refuses_what_numpy_cuts_off(tmp_path: Path, model: CMIMModel) -> None:
    pd.DataFrame({"smiles": ["C"], "x": ["a\0"]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"The column 'x' has a cell that ends with U\+0000"):
        stream.embed_file(model, tmp_path / "a.parquet", tmp_path / "out.npz")
    assert not (tmp_path / "out.npz").exists()


def test_rejects_name_options_of_the_command(tmp_path: Path, model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.csv").write_text("smiles\nCCO ethanol\n[CH3:1]O\nC~C\n")
    command = (tmp_path / "in.csv", "-o", tmp_path / "out.npy", "--model", model_file, "--on-invalid", "nan")
    assert run(*command, "--rejects", tmp_path / "bad.csv") == 0
    for text in (capsys.readouterr().err, (tmp_path / "bad.csv").read_text()):
        assert "--standardise extras removes it" in text and "--standardise atom-maps removes them" in text
        assert "is a query" in text and "standardise=" not in text


def test_an_output_may_be_called_like_its_suffix(tmp_path: Path, model: CMIMModel) -> None:
    (tmp_path / "in.smi").write_text("CCO\n")
    for name in (".csv", ".npy", ".npz", ".parquet", ".csv.gz"):
        stream.embed_file(model, tmp_path / "in.smi", tmp_path / name)
        assert (tmp_path / name).stat().st_size


def test_title_and_data_of_sdf_files_are_kept(
    tmp_path: Path, model_file: Path, model: CMIMModel, capsys: pytest.CaptureFixture[str]
) -> None:
    with Chem.SDWriter(str(tmp_path / "in.sdf")) as writer:
        for name, smiles, value in (("aspirin", "CC(=O)Oc1ccccc1C(=O)O", "1.2"), ("salt", "CC[NH3+].[Cl-]", "two\nlines")):
            mol = Chem.MolFromSmiles(smiles)
            mol.SetProp("_Name", name)
            mol.SetProp("Batch id", value)
            writer.write(mol)
    command = (tmp_path / "in.sdf", "-o", tmp_path / "out.parquet", "--model", model_file, "--standardise")
    assert run(*command) == 0
    assert "1 molecules were changed by --standardise desalt,neutralise; --changes FILE lists" in capsys.readouterr().err
    result = pd.read_parquet(tmp_path / "out.parquet")
    assert list(result) == ["smiles", "name", "Batch id", "embedding"]
    assert result["smiles"].tolist() == ["CC(=O)Oc1ccccc1C(=O)O", "CC[NH3+].[Cl-]"]  # as in the file
    assert result["name"].tolist() == ["aspirin", "salt"] and result["Batch id"].tolist() == ["1.2", "two\nlines"]
    expected = model.embed(["CC(=O)Oc1ccccc1C(=O)O", "CCN"])
    np.testing.assert_allclose(np.stack(result["embedding"]), expected, rtol=1e-4, atol=1e-5)


def test_a_list_of_changes_needs_a_step(tmp_path: Path, model: CMIMModel) -> None:
    (tmp_path / "in.smi").write_text("CCO\n")
    with pytest.raises(ConfigError, match="no step is named"):
        stream.embed_file(model, tmp_path / "in.smi", tmp_path / "out.csv", changes=tmp_path / "changes.csv")
    with pytest.raises(DataError, match="is also another output"):
        stream.embed_file(
            model, tmp_path / "in.smi", tmp_path / "out.csv", standardise=True, rejects=tmp_path / "a", changes=tmp_path / "a"
        )
