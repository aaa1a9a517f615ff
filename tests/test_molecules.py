"""Molecules: canonical SMILES, properties, scaffolds, fingerprints, and invalid input."""

from __future__ import annotations

import numpy as np
import pytest
from rdkit import Chem

from nemo_cmim.errors import InvalidSmilesError
from nemo_cmim.molecules import canonical_smiles, descriptors, is_valid, morgan_fingerprints, murcko_scaffold, parse, properties


def test_all_smiles_of_a_molecule_have_one_canonical_smiles() -> None:
    assert canonical_smiles("OCC") == canonical_smiles("C(O)C") == canonical_smiles(Chem.MolFromSmiles("CCO")) == "CCO"


def test_stereo_is_kept() -> None:
    assert canonical_smiles("F/C=C\\F") != canonical_smiles("F/C=C/F")
    assert canonical_smiles("C[C@H](O)N") != canonical_smiles("C[C@@H](O)N")


@pytest.mark.parametrize("value", ["", "C1CC", "CC O", "CC\n", "C(C)(C)(C)(C)C", None, 3, float("nan"), b"CC"])
def test_invalid_molecules_are_errors(value: object) -> None:
    with pytest.raises(InvalidSmilesError):
        parse(value)  # type: ignore[arg-type]
    assert not is_valid(value)  # type: ignore[arg-type]


def test_an_empty_molecule_is_an_error() -> None:
    with pytest.raises(InvalidSmilesError, match="without atoms"):
        canonical_smiles(Chem.Mol())


def test_rdkit_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    assert not is_valid("C1CC")
    assert capfd.readouterr() == ("", "")


def test_properties_of_aspirin() -> None:
    weight, logp = properties(parse("CC(=O)Oc1ccccc1C(=O)O"))
    assert weight == pytest.approx(180.16, abs=0.01)
    assert logp == pytest.approx(1.31, abs=0.01)


def test_scaffolds() -> None:
    assert murcko_scaffold("CCc1ccccc1") == "c1ccccc1"
    assert murcko_scaffold("CCO") == ""


def test_fingerprints_and_descriptors() -> None:
    bits = morgan_fingerprints(["CCO", "c1ccccc1"], bits=512)
    assert bits.shape == (2, 512) and bits.dtype == np.float32
    assert set(np.unique(bits)) == {0.0, 1.0}
    values = descriptors(["CCO", "[Na+].[Cl-]"])
    assert values.shape[0] == 2 and values.shape[1] > 200
    assert np.isfinite(values[0]).all()
    assert morgan_fingerprints([]).shape == (0, 2048)


def test_real_smiles_that_rdkit_rejects(rejected_smiles: tuple[str, ...]) -> None:
    assert len(rejected_smiles) == 7
    assert not any(map(is_valid, rejected_smiles))
