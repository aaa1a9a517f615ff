"""Collections of molecules that callers pass: what is read, and what is an error because rows would be lost or in no order."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from rdkit import Chem

from nemo_cmim.errors import InvalidSmilesError
from nemo_cmim.inference import CMIMModel

SMILES = ["CCO", "c1ccccc1O", "CCO", "CN"]
COLLECTIONS: list[Callable[[list[str]], Any]] = [
    pa.array,
    lambda x: pa.chunked_array([x[:1], x[1:]]),
    lambda x: pa.array(x, pa.large_string()),
    lambda x: pa.array(x).dictionary_encode(),
    lambda x: pa.table({"s": x}),
    lambda x: pa.record_batch({"s": x}),
    pl.Series,
    lambda x: pl.DataFrame({"s": x}),
    lambda x: pl.LazyFrame({"s": x}),
    lambda x: pd.DataFrame({"s": x}),
    lambda x: pd.DataFrame({"s": x}, index=range(7, 11)),
    lambda x: pd.Series(x, dtype="category"),
    lambda x: pd.Series(x, dtype="string"),
    pd.Index,
    lambda x: np.array(x)[:, None],
    lambda x: np.array(x, dtype=object),
    lambda x: [np.str_(one) for one in x],
    lambda x: (one for one in x),
    lambda x: dict(enumerate(x)).values(),
    lambda x: pd.DataFrame({"mol": [Chem.MolFromSmiles(one) for one in x]}),
]


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_collections_of_one_column_with_an_order(model: CMIMModel, collection: Callable[[list[str]], Any]) -> None:
    expected = model.embed(SMILES, "mean")
    np.testing.assert_array_equal(model.embed(collection(SMILES), "mean"), expected)
    np.testing.assert_array_equal(model.encode(collection(SMILES)).mean_BKD[:, 0], expected)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"CCO", "CN"}, "in an order, found a set: .* Pass a list, for example sorted(molecules)"),
        (frozenset(["CCO"]), "in an order, found a frozenset"),
        ({"a": "CCO"}, "in an order, found a dict: .* Pass a list, for example list(molecules.values())"),
        ({"a": "CCO"}.items(), "in an order, found a dict_items"),
        (
            pd.DataFrame({"id": [1], "Smiles": ["C"]}),
            "a table of 2 columns: id, Smiles. Pass one of them, for example table['Smiles']",
        ),
        (pl.DataFrame({"a": ["C"], "b": ["C"]}), "a table of 2 columns: a, b. Pass one of them, for example table['a']"),
        (pl.LazyFrame({"a": ["C"], "b": ["C"]}), "a table of 2 columns: a, b."),
        (pa.table({"a": ["C"], "b": ["C"]}), "a table of 2 columns: a, b."),
        (pd.DataFrame({"s": ["C"]})[[]], "a table of 0 columns"),
        (pd.DataFrame(np.zeros((1, 300))), "a table of 300 columns: 0, 1,"),
        (np.array([["C", "CC"]]), "an array of shape (1, 2)"),
        (np.array("CCO"), "an array of shape ()"),
        (np.array([b"CCO"]), "an array of bytes. Pass array.astype(str)"),
        (b"CCO", "the single value b'CCO'"),
        (np.str_("CCO"), "the single value np.str_('CCO')"),
        (Path("molecules.smi"), "found PosixPath('molecules.smi')"),
        (pa.array([], pa.string()), "There are no molecules"),
        (pd.DataFrame({"s": []}), "There are no molecules"),
        (iter(()), "There are no molecules"),
    ],
)
def test_other_collections_are_errors(model: CMIMModel, value: Any, message: str) -> None:
    pattern = re.escape(message).replace(r"\.\*", ".*")
    with pytest.raises(InvalidSmilesError, match=pattern):
        model.embed(value)
    with pytest.raises(InvalidSmilesError, match=pattern):  # nothing of it is a single row that could be NaN
        model.encode(value, on_invalid="nan")


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(["CCO", None, "CN"]),
        pd.Series(["CCO", pd.NA, "CN"], dtype="string"),
        pd.Series(["CCO", pd.NaT, "CN"], dtype=object),
        pd.Series(["CCO", float("nan"), "CN"]),
        pl.Series(["CCO", None, "CN"]),
        pa.array(["CCO", None, "CN"]),
        pa.table({"s": ["CCO", None, "CN"]}),
        np.array(["CCO", np.nan, "CN"], dtype=object),
        ["CCO", b"CN", "CN"],
    ],
)
def test_missing_values_are_invalid_rows(model: CMIMModel, column: Any) -> None:
    with pytest.raises(InvalidSmilesError, match=r"SMILES at index 1 must be text, found .*(missing value|bytes)"):
        model.embed(column)
    with pytest.warns(UserWarning, match="1 of 3 molecules are invalid; their rows are NaN. The first: SMILES at index 1"):
        vectors = model.embed(column, "mean", on_invalid="nan")
    with pytest.warns(UserWarning, match="1 of 3"):
        posterior = model.encode(column, on_invalid="nan")
    assert np.isnan(vectors[1]).all() and posterior.mean_BKD[1].isnan().all() and posterior.variance_BKD[1].isnan().all()
    np.testing.assert_array_equal(vectors[[0, 2]], model.embed(["CCO", "CN"], "mean"))
    np.testing.assert_array_equal(posterior.mean_BKD[[0, 2], 0], vectors[[0, 2]])


def test_reading_the_callers_tables_imports_no_library_for_tables() -> None:
    code = (
        "import sys, nemo_cmim.inference.inputs as i, numpy as np; i.molecule_rows(['C']); i.molecule_rows(np.array([['C']]));"
        "print(*{'pandas', 'polars', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("raw", "steps", "standard"),
    [
        ("C[C@H](O)F |&1:1|", "extras", "C[C@H](O)F"),
        ("CCO ethanol", ("extras",), "CCO"),
        ("[CH3:1][OH:2]", ["atom-maps"], "CO"),
        ("[Na+].CC(=O)[O-]", ("neutralise", "desalt"), "CC(=O)O"),
    ],
)
def test_standardised_molecules_have_the_vectors_of_their_standard_form(
    model: CMIMModel, raw: str, steps: Any, standard: str
) -> None:
    expected = model.embed([standard])
    np.testing.assert_array_equal(model.embed([raw], standardise=steps), expected)
    assert model.encode([raw], standardise=steps).mean_BKD.equal(model.encode([standard]).mean_BKD)
    assert model.invalid_reason(raw, standardise=steps) is None


def test_without_its_step_the_error_names_it(model: CMIMModel) -> None:
    for raw, step in (("CCO |a:1|", "extras"), ("CCO ethanol", "extras"), ("[CH3:1][OH:2]", "atom-maps")):
        with pytest.raises(InvalidSmilesError, match=f'standardise="{step}" removes .* Pass on_invalid="nan" to keep a NaN row'):
            model.embed(["C", raw])
        assert f'standardise="{step}"' in (model.invalid_reason(raw) or "")


def test_extras_are_removed_from_smiles_that_are_embedded_as_they_stand(model: CMIMModel) -> None:
    found = model.embed(["OCC ethanol"], canonical=False, standardise="extras")
    np.testing.assert_array_equal(found, model.embed(["OCC"], canonical=False))


def test_queries_are_refused(model: CMIMModel) -> None:
    with pytest.raises(
        InvalidSmilesError, match=r"SMILES at index 1 is a query.*\[C,N\], \[!#6\].*Chem\.MolFromSmiles reads a molecule"
    ):
        model.embed(["C", Chem.MolFromSmarts("[C,N]-[!#6]")])
    assert np.isfinite(model.embed(["*CC", Chem.MolFromSmiles("*CC")])).all()


def test_canonical_molecules_are_not_parsed_again(model: CMIMModel, monkeypatch: pytest.MonkeyPatch) -> None:
    smiles = ["CCO", "c1ccccc1", "CCO"]
    expected, long = model.embed(smiles), model.invalid_reason("C" * 500)

    def parsed(*_: Any, **__: Any) -> str:
        raise AssertionError("the molecule was parsed")

    monkeypatch.setattr("nemo_cmim.inference.inputs.standard_smiles", parsed)
    np.testing.assert_array_equal(model.embed_canonical(smiles), expected)
    assert model.invalid_reason("CCO", is_canonical=True) is None
    assert long is not None and model.invalid_reason("C" * 500, is_canonical=True) == long
    with pytest.raises(InvalidSmilesError, match="500 tokens"):
        model.embed_canonical(["C" * 500])
