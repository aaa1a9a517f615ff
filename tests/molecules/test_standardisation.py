"""Steps of standardisation: what each removes, and what is an error without it."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from rdkit import Chem

from nemo_cmim.errors import ConfigError, InvalidSmilesError
from nemo_cmim.molecules import canonical_smiles, parse, standard_smiles, standardise, without_extras
from nemo_cmim.steps import STEPS, check_steps

RACEMATE = "C[C@H](O)F |&1:1|"
POLYMER = "CCO |Sg:n:0,1,2::ht|"


@pytest.mark.parametrize(
    ("molecule", "step", "expected", "error"),
    [
        (RACEMATE, "extras", "C[C@H](O)F", "CXSMILES extension ('|&1:1|')"),
        ("OCC ethanol 95 %", "extras", "CCO", "a name ('ethanol 95 %')"),
        ("OCC\t7", "extras", "CCO", "a name ('7')"),
        (" OCC ", "extras", "CCO", "white space"),
        ("[CH3:1][OH:2]", "atom-maps", "CO", "atom maps, for example '[CH3:1]'; standardise=\"atom-maps\" removes them"),
        ("[CH3:1][C@H:2]([OH:3])[F:4]", "atom-maps", "C[C@H](O)F", "atom maps"),
        ("[13CH3:7]C", "atom-maps", "C[13CH3]", "'[13CH3:7]'"),
        (Chem.MolFromSmiles("[CH3:1]O"), "atom-maps", "CO", "atom maps"),
        (Chem.MolFromSmiles(RACEMATE), "extras", "C[C@H](O)F", "has stereo groups"),
        (Chem.MolFromSmiles("C[C@H](O)F |o1:1|"), "extras", "C[C@H](O)F", "has stereo groups"),
        (Chem.MolFromSmiles(POLYMER), "extras", "CCO", "repeating units of a polymer"),
    ],
)
def test_a_step_removes_what_is_an_error_without_it(molecule: Any, step: str, expected: str, error: str) -> None:
    with pytest.raises(InvalidSmilesError, match=re.escape(error)) as caught:
        standard_smiles(molecule, name="row 2")
    assert str(caught.value).startswith("row 2 ")
    assert standard_smiles(molecule, (step,)) == standard_smiles(molecule, STEPS) == expected


@pytest.mark.parametrize(
    ("smiles", "steps", "expected"),
    [
        ("CCO.[Na+].[Cl-]", ("desalt",), "CCO"),
        ("[Na+].CC(=O)[O-]", ("desalt",), "CC(=O)[O-]"),
        ("[Na+].CC(=O)[O-]", ("neutralise",), "CC(=O)[O-].[Na+]"),
        ("[Na+].CC(=O)[O-]", ("desalt", "neutralise"), "CC(=O)O"),
        ("[NH3+:1]CC(=O)[O-:2] glycine", STEPS, "NCC(=O)O"),
        ("OCC", (), "CCO"),
        ("C[C@H](O)F |a:1|", ("extras",), "C[C@H](O)F"),
    ],
)
def test_results(smiles: str, steps: tuple[str, ...], expected: str) -> None:
    assert standard_smiles(smiles, steps) == expected


def test_a_molecule_without_extras_is_its_canonical_smiles_with_each_set_of_steps(real_smiles: tuple[str, ...]) -> None:
    for smiles in real_smiles[::40]:
        for steps in ((), ("extras",), ("atom-maps",), ("extras", "atom-maps")):
            assert standard_smiles(smiles, steps) == canonical_smiles(smiles)
        assert standard_smiles(f"{smiles} name", ("extras",)) == canonical_smiles(smiles)


def test_absolute_stereo_groups_say_nothing_new() -> None:
    assert standard_smiles(Chem.MolFromSmiles("C[C@H](O)F |a:1|")) == "C[C@H](O)F"


@pytest.mark.parametrize("smiles", ["C~C", "*~*"])
def test_bonds_of_any_type_are_queries(smiles: str) -> None:
    with pytest.raises(InvalidSmilesError, match=re.escape(f"({smiles!r}) is a query")):
        standard_smiles(smiles)


def test_extras_do_not_hide_lines() -> None:
    """A second line is another molecule, not a name."""
    with pytest.raises(InvalidSmilesError, match="white space"):
        standard_smiles("CCO\nCCN", STEPS)
    assert without_extras("CCO\nCCN x") == "CCO\nCCN"


def test_steps_are_checked_and_ordered() -> None:
    for order in itertools.permutations(STEPS):
        assert check_steps(order) == STEPS
    assert check_steps(()) == ()
    assert check_steps("extras") == ("extras",)
    assert check_steps("neutralise, extras") == ("extras", "neutralise")
    assert check_steps(iter(["desalt", "desalt"])) == ("desalt",)


@pytest.mark.parametrize("steps", ["salts", ("extras", "salts"), "", None, 3, [["extras"]]])
def test_unknown_steps_are_reported_with_the_choices(steps: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"standardise=.*: this step is unknown. Known steps: extras, atom-maps, desalt, neutralise"
    ):
        check_steps(steps)


def test_standardise_does_not_change_its_argument() -> None:
    mol = parse("[CH3:1][OH:2]")
    assert Chem.MolToSmiles(standardise(mol, desalt=False, neutralise=False, atom_maps=True)) == "CO"
    assert Chem.MolToSmiles(mol) == "[CH3:1][OH:2]"


def test_a_molecule_that_cannot_be_standardised_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from rdkit.Chem.MolStandardize import rdMolStandardize

    def fail() -> None:
        raise RuntimeError("no fragment")

    monkeypatch.setattr(rdMolStandardize, "LargestFragmentChooser", fail)
    with pytest.raises(InvalidSmilesError, match=r"row 2 \('CCO'\): RDKit cannot standardise 'CCO': no fragment"):
        standard_smiles("CCO", ("desalt",), name="row 2")


@pytest.mark.parametrize("cxsmiles", ["CCO |LN:1:1.3|", "CCO |Sg:any:0::ht|"])
def test_molecules_that_stand_for_several_are_refused(cxsmiles: str) -> None:
    mol = Chem.MolFromSmiles(cxsmiles)
    with pytest.raises(InvalidSmilesError, match='which a SMILES cannot hold; standardise="extras" ignores them'):
        standard_smiles(mol)
    assert standard_smiles(mol, ("extras",)) == Chem.CanonSmiles(cxsmiles.split()[0])


def test_atom_map_0_is_none() -> None:
    assert standard_smiles("[CH3:0]O") == standard_smiles(Chem.MolFromSmiles("[CH3:0]O")) == "CO"
    assert canonical_smiles("[CH3:0]O") == "CO" and canonical_smiles("[CH3:10]O") != "CO"


def test_a_bond_with_several_possible_ends_is_refused() -> None:
    mol = Chem.MolFromSmiles("*CO.C1CC1 |m:0:3.4.5|")
    with pytest.raises(InvalidSmilesError, match=r"a bond with several possible ends, which a SMILES cannot hold"):
        standard_smiles(mol)
    with pytest.raises(InvalidSmilesError, match="is a query"):
        standard_smiles(mol, ("extras",))
