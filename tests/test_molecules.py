"""Molecules: canonical SMILES, properties, scaffolds, fingerprints, and invalid input."""

from __future__ import annotations

import numpy as np
import pytest
from rdkit import Chem

from nemo_cmim.errors import InvalidSmilesError
from nemo_cmim.molecules import (
    canonical_smiles,
    descriptors,
    is_valid,
    morgan_fingerprints,
    murcko_scaffold,
    parse,
    properties,
    randomized_smiles,
    to_canonical_smiles,
)


def test_all_smiles_of_a_molecule_have_one_canonical_smiles() -> None:
    assert canonical_smiles("OCC") == canonical_smiles("C(O)C") == canonical_smiles(Chem.MolFromSmiles("CCO")) == "CCO"


PHTHALIMIDE = "O=C(c1ccccc1C(=O)N1C(=O)c2ccccc2C1=O)N1C(=O)c2ccccc2C1=O"  # rdkit#8721


def test_a_symmetric_molecule_has_one_canonical_smiles() -> None:
    mol = Chem.MolFromSmiles(PHTHALIMIDE)
    forms = list(Chem.MolToRandomSmilesVect(mol, 50, randomSeed=7))
    assert len({Chem.MolToSmiles(Chem.MolFromSmiles(form)) for form in forms}) > 1, "RDKit alone gives several"
    assert {canonical_smiles(form) for form in forms} == {canonical_smiles(mol)}
    assert {to_canonical_smiles(Chem.MolFromSmiles(form)) for form in forms} == {canonical_smiles(mol)}


@pytest.mark.parametrize(
    "smiles",
    [
        "[C@H]12[C@H]3[C@@H]4[C@H]5[C@@H]([C@H]1N24)N53",
        "COC(=O)CC[C@@H](C)[C@H]1CC[C@H]2[C@H]3[C@H](CC[C@@]21C)[C@@]1(C)CC[C@]2(C[C@H]1C[C@H]3OC(C)=O)OOC1(CC[C@@H](C)CC1)OO2",
        "COC(=O)[C@@]12[C@@H]3N([C@H]4[C@@]5([C@@H](N([C@H]1[C@]3(C5c1ccc(OC)cc1)C(=O)OC)C(=O)OCc1ccccc1)[C@]4([C@H]2c1ccc(OC)cc1)"
        "C(=O)OC)C(=O)OC)C(=O)OCc1ccccc1",
        "CC(C)=CCC/C(C)=C/CNCCN[C@H]1[C@@H]2C[C@H]3C[C@@H](C2)C[C@@H]1C3",
    ],
    ids=["rdkit#7759", "rdkit#4710", "rdkit#7429", "adamantane"],
)
def test_other_molecules_with_several_canonical_smiles_of_rdkit_have_one(smiles: str) -> None:
    """One of them is a fixed point (rdkit#4710, adamantane), or they alternate (rdkit#7759, rdkit#7429)."""
    forms = randomized_smiles(smiles, 40, 7)
    assert len({Chem.MolToSmiles(Chem.MolFromSmiles(form)) for form in forms}) > 1, "RDKit alone gives several"
    assert len({canonical_smiles(form) for form in forms}) == 1


def test_the_scaffold_of_a_symmetric_molecule_is_one() -> None:
    assert len({murcko_scaffold(form) for form in randomized_smiles(PHTHALIMIDE, 40, 7)}) == 1


def test_the_canonical_smiles_of_real_molecules_is_a_fixed_point(real_smiles: tuple[str, ...]) -> None:
    for number, smiles in enumerate(real_smiles[::4], 1):
        canonical = canonical_smiles(smiles)
        assert canonical_smiles(canonical) == canonical
        for randomized in randomized_smiles(smiles, 2, number):
            assert canonical_smiles(randomized) == canonical


def test_a_cycle_of_canonical_smiles_has_one_representative(monkeypatch: pytest.MonkeyPatch) -> None:
    """From wherever it is entered. No molecule of the sample has one, so RDKit's writer is replaced: C -> CC -> CCC -> CC -> ..."""
    following = {"C": "CC", "CC": "CCC", "CCC": "CC"}
    write = Chem.MolToSmiles
    monkeypatch.setattr(Chem, "MolToSmiles", lambda mol: following[write(mol)])
    assert [canonical_smiles(smiles) for smiles in following] == ["CC", "CC", "CC"]


@pytest.mark.parametrize(
    ("smiles", "found"),
    [
        ("CC(=O)\u041e", r"U\+041E \(CYRILLIC CAPITAL LETTER O\) at index 6"),
        ("\u041eC=O", r"U\+041E .* at index 0"),
        ("C\u200bC", r"U\+200B \(ZERO WIDTH SPACE\) at index 1"),
        ("CCO\x00", r"U\+0000 \(an unnamed character\) at index 3"),
        ("CC\u00d7O", r"U\+00D7 \(MULTIPLICATION SIGN\) at index 2"),
        ("\uff23C", r"U\+FF23 \(FULLWIDTH LATIN CAPITAL LETTER C\) at index 0"),
    ],
)
def test_only_printable_ascii_is_read(smiles: str, found: str) -> None:
    """RDKit removes other characters at the ends of a SMILES in silence."""
    with pytest.raises(
        InvalidSmilesError, match=rf"molecule 3 .* contains {found}, counted from 0\. A SMILES consists of printable ASCII"
    ):
        canonical_smiles(smiles, name="molecule 3")


@pytest.mark.parametrize("smiles", ["CCO |$_AV:a$|", "CCO\tethanol", "CCO\n", " CCO", "CCO\u00a0"])
def test_white_space_is_not_read(smiles: str) -> None:
    """RDKit ignores what follows it, or reads it as a name or an extension of SMILES."""
    with pytest.raises(InvalidSmilesError, match=r"contains white space, .*: U\+00[0-9A-F]{2} \(.+\) at index \d, counted from 0"):
        parse(smiles)


@pytest.mark.parametrize("text", ["\x1c", "\n", "\x1c\x1f", "\u2003", "\t"])
def test_white_space_alone_is_an_invalid_smiles(text: str) -> None:
    with pytest.raises(InvalidSmilesError, match="white space"):
        parse(text)


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
