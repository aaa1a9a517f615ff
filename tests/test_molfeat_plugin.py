"""The calculator of molfeat. Most tests need molfeat and this package installed, in an environment of its own: see docs/molecules.md."""

from __future__ import annotations

import ast
import pickle
import runpy
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

import nemo_cmim
from nemo_cmim.errors import CheckpointError

ROOT = Path(__file__).resolve().parents[1]
SMILES = ["CCO", "c1ccccc1", "CC(=O)O"]


def test_the_entry_point_names_an_existing_class() -> None:
    with patch("setuptools.setup") as setup:
        runpy.run_path(str(ROOT / "setup.py"))
    (entry,) = setup.call_args.kwargs["entry_points"]["molfeat.calc"]
    name, _, place = entry.partition(" = ")
    module, _, attribute = place.partition(":")
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
    assert name == attribute and name in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}


@pytest.fixture(scope="module")
def molfeat() -> Any:
    molfeat = pytest.importorskip("molfeat", reason="molfeat is not a dependency; it brings about 150 packages")
    from molfeat.plugins import load_registered_plugins

    load_registered_plugins(groups=["molfeat.calc"], verbose=False)
    return molfeat


def test_molfeat_finds_the_calculator_by_its_entry_point(molfeat: Any) -> None:
    from molfeat.calc import CMIMCalculator
    from molfeat.trans import MoleculeTransformer

    expected = nemo_cmim.embed(SMILES)
    for transformer in (MoleculeTransformer(CMIMCalculator()), MoleculeTransformer("cmimcalculator")):
        np.testing.assert_array_equal(transformer(SMILES), expected)
        assert len(transformer) == expected.shape[1] and transformer.columns[:1] == ["informative0"]
    np.testing.assert_array_equal(CMIMCalculator(kind="mean")(SMILES[0]), nemo_cmim.embed(SMILES[:1], kind="mean")[0])


def test_in_a_pipeline(molfeat: Any) -> None:
    from molfeat.calc import CMIMCalculator
    from molfeat.trans import MoleculeTransformer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline

    assert make_pipeline(MoleculeTransformer(CMIMCalculator()), Ridge()).fit(SMILES, [0, 1, 2]).predict(SMILES).shape == (3,)


def test_invalid_molecules_are_reported(molfeat: Any) -> None:
    from molfeat.calc import CMIMCalculator
    from molfeat.trans import MoleculeTransformer

    transformer = MoleculeTransformer(CMIMCalculator())
    with pytest.warns(UserWarning, match=r"SMILES at index 1 \('C1C'\) could not be parsed: unclosed ring"):
        vectors, used = transformer(["C", "C1C", "CC"], ignore_errors=True)
    assert len(vectors) == 2 and list(used) == [0, 2]
    with pytest.warns(UserWarning, match="C1C"), pytest.raises(ValueError, match="molecule at index 1"):
        transformer(["C", "C1C", "CC"])


def test_states_hold_settings_and_fingerprint(molfeat: Any) -> None:
    from molfeat.calc import CMIMCalculator
    from molfeat.trans import MoleculeTransformer

    calculator = CMIMCalculator(kind="mean", standardise=True)
    transformer = MoleculeTransformer(calculator)
    expected = transformer(["CC[NH3+].[Cl-]"])
    np.testing.assert_array_equal(expected, nemo_cmim.embed(["CCN"], kind="mean"))
    again = MoleculeTransformer.from_state_json(transformer.to_state_json())
    for each in (again, pickle.loads(pickle.dumps(transformer))):
        np.testing.assert_array_equal(each(["CC[NH3+].[Cl-]"]), expected)
    state = calculator.to_state_dict()
    state["args"]["fingerprint"] = "0" * 64
    with pytest.raises(CheckpointError, match="has changed since"):
        CMIMCalculator.from_state_dict(state)("C")
