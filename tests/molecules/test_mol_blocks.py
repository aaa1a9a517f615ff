"""Mol blocks: both versions, stereo, and what a SMILES cannot hold."""

from __future__ import annotations

import re

import pytest
from rdkit import Chem
from rdkit.Chem import AllChem

from nemo_cmim.errors import InvalidSmilesError
from nemo_cmim.molecules import canonical_smiles, smiles_of_mol_block


def block(atoms: str, bonds: str = "1 2 1", more: str = "") -> str:
    """A V2000 mol block, for example of the atoms `C O` and the bonds `1 2 1, 2 3 1`."""
    symbols, links = atoms.split(), [link.split() for link in bonds.split(",") if link.strip()]
    lines = ["", "  made by hand", "", f"{len(symbols):3}{len(links):3}  0  0  0  0  0  0  0  0999 V2000"]
    lines += [f"{i * 1.2:10.4f}{i % 2 * 0.7:10.4f}{0:10.4f} {symbol:<3} 0  0  0  0" for i, symbol in enumerate(symbols)]
    lines += ["".join(f"{number:>3}" for number in link) + "  0" for link in links]
    return "\n".join([*lines, *([more] if more else []), "M  END", ""])


@pytest.mark.parametrize("smiles", ["CCO", "C[C@H](O)F", "F/C=C\\Cl", "[Na+].CC(=O)[O-]", "[13CH3]c1ccccc1", "C[N+](C)(C)C"])
def test_both_versions_keep_the_molecule(smiles: str) -> None:
    mol = Chem.MolFromSmiles(smiles)
    AllChem.Compute2DCoords(mol)
    for text in (Chem.MolToV2KMolBlock(mol), Chem.MolToV3KMolBlock(mol)):
        for ending in ("\n", "\r\n", "\r"):
            assert smiles_of_mol_block(text.replace("\n", ending)) == canonical_smiles(smiles)
        assert smiles_of_mol_block(f"{text}>  <name>\nx\n\n$$$$\n") == canonical_smiles(smiles)


@pytest.mark.parametrize("smiles", ["C[C@H](O)F", "C[C@@H](O)F", "F/C=C/Cl"])
def test_stereo_is_read_from_3d_coordinates(smiles: str) -> None:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(mol, randomSeed=7) == 0
    text = Chem.MolToMolBlock(mol, includeStereo=False)
    assert smiles_of_mol_block(text) == canonical_smiles(smiles)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (block("C C C C C C", "1 2 1, 1 3 1, 1 4 1, 1 5 1, 1 6 1"), "could not be parsed: Explicit valence for atom # 0 C, 5"),
        (block("C Xx"), "could not be parsed: Post-condition Violation: Element 'Xx' not found"),
        (block("C O", "1 5 1"), "could not be parsed: Range Error"),
        (block("C O").replace("  2  1", "  x  1"), "could not be parsed: Cannot convert ' x' to unsigned int on line 4"),
        (block("C O").replace("V2000", "V9000"), "Unsupported CTAB version: 'V9000'"),
        ("CCO", "could not be parsed: it has fewer than four lines"),
        ("", "could not be parsed: it has fewer than four lines"),
        (block("", ""), "is a molecule without atoms"),
        (block("C A"), "is a query, which stands for many molecules"),
        (block("C Q"), "is a query"),
        (block("C X"), "is a query"),
        (block("C *"), "is a query"),
        (block("C L", more="M  ALS   2  2 F N   O   "), "Its query atoms and bonds: [#7,#8]"),
        (block("C O", "1 2 8"), "Its query atoms and bonds: ~"),
        (block("C O", "1 2 5"), "Its query atoms and bonds: -,="),
        (block("C R#", more="M  RGP  1   2   1"), "has 'R1' in place of an element"),
        (block("C R2"), "has 'R2' in place of an element"),
        (block("C Pol"), "has 'Pol' in place of an element"),
    ],
)
def test_blocks_that_are_no_molecule_have_a_reason(text: str, reason: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidSmilesError, match=re.escape(reason)) as caught:
        smiles_of_mol_block(text, name="record 5")
    assert str(caught.value).startswith("record 5 ") and "\n" not in str(caught.value) and "Stacktrace" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_stereo_groups_are_an_error_unless_they_are_ignored() -> None:
    text = Chem.MolToV3KMolBlock(Chem.MolFromSmiles("C[C@H](O)F |&1:1|"))
    with pytest.raises(InvalidSmilesError, match=r'record 5 has stereo groups .*standardise="extras" ignores them'):
        smiles_of_mol_block(text, name="record 5")
    assert smiles_of_mol_block(text, steps=("extras",)) == "C[C@H](O)F"


def test_the_steps_of_standardisation_apply() -> None:
    text = Chem.MolToMolBlock(Chem.MolFromSmiles("[Na+].CC(=O)[O-]"))
    assert smiles_of_mol_block(text, steps=("desalt", "neutralise")) == "CC(=O)O"


def test_letters_that_are_not_ascii() -> None:
    """RDKit divides the lines of a block at bytes, and its messages would not be text."""
    with pytest.raises(InvalidSmilesError, match="could not be parsed"):
        smiles_of_mol_block('"0\u0080","CC(=O)Oc1ccccc1C(=O)O"\n' * 5)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("M  LIN  1   2   2   1   3\n", "link nodes, which stand for several numbers of atoms"),
        ("M  APO  1   1   1\n", "points of attachment"),
    ],
)
def test_blocks_that_stand_for_several_molecules(more: str, reason: str) -> None:
    text = Chem.MolToMolBlock(Chem.MolFromSmiles("CCO")).replace("M  END", f"{more}M  END")
    with pytest.raises(InvalidSmilesError, match=rf"{reason}, which a SMILES cannot hold; standardise=.extras. ignores"):
        smiles_of_mol_block(text)
