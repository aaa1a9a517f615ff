"""Optional changes of a molecule before it is used: what each step does."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from rdkit import Chem

from ..errors import InvalidSmilesError
from .parsing import Mol, check_is_molecule, one_line, parse, quiet_rdkit, shorten, smiles_of, to_canonical_smiles

__all__ = ["Standardised", "atom_map", "standard_smiles", "standardise", "standardised", "without_extras"]

_ATOM_MAP = re.compile(r"\[[^\]]*:\d+\]")
_POLYMERS = {"SRU", "MON", "MER", "COP", "CRO", "MOD", "GRA", "ANY"}
_ENHANCED_STEREO = (Chem.StereoGroupType.STEREO_OR, Chem.StereoGroupType.STEREO_AND)


class Standardised(NamedTuple):
    """A molecule after the steps of standardisation.

    Attributes:
        smiles: Its canonical SMILES.
        is_changed: Whether a step removed something or changed the molecule. Another way of writing it is not a change.
    """

    smiles: str
    is_changed: bool


def standard_smiles(molecule: str | Mol, steps: Sequence[str] = (), *, name: str = "the SMILES") -> str:
    """The canonical SMILES of a molecule after the steps of standardisation: what a model embeds.

    * `extras` removes what follows the SMILES in a cell: a CXSMILES extension (`C[C@H](O)F |&1:1|`), a name (`CCO ethanol`), and blanks
      around it. For an RDKit molecule, it ignores the stereo groups "or" and "and", and repeating units of a polymer. This can
      change the molecule: an extension may say that a SMILES stands for a racemate, or that an atom is a query.
    * `atom-maps` removes the numbers of atoms of a reaction (`[CH3:1][OH:2]`).
    * `desalt` and `neutralise`: see `standardise`.

    Args:
        molecule: A SMILES, or an RDKit molecule.
        steps: Result of `check_steps`.
        name: Name in error messages.

    Raises:
        InvalidSmilesError: If the molecule cannot be parsed, is a query, or has one of the first two without its step.
    """
    return standardised(molecule, steps, name=name).smiles


def standardised(molecule: str | Mol, steps: Sequence[str] = (), *, name: str = "the SMILES") -> Standardised:
    """`standard_smiles`, and whether the steps changed the molecule."""
    if isinstance(molecule, Mol):
        extras = _extras(molecule)
        if extras and "extras" not in steps:
            raise InvalidSmilesError(f'{name} has {extras}, which a SMILES cannot hold; standardise="extras" ignores them')
        text, is_changed = smiles_of(molecule, name=name), bool(extras)
    else:
        text = without_extras(molecule) if "extras" in steps else molecule
        is_changed = isinstance(text, str) and text != molecule.strip(" \t")
    mol = parse(text, name=name)
    check_is_molecule(mol, f"{name} ({shorten(text)})")
    with quiet_rdkit():
        canonical = to_canonical_smiles(mol, text)
        if steps and steps != ("extras",):
            try:
                changed = standardise(
                    mol, desalt="desalt" in steps, neutralise="neutralise" in steps, atom_maps="atom-maps" in steps
                )
            except InvalidSmilesError as error:
                raise InvalidSmilesError(f"{name} ({shorten(text)}): {error}") from error
            before, canonical = canonical, to_canonical_smiles(changed)
            is_changed = is_changed or canonical != before
    if found := atom_map(canonical):
        raise InvalidSmilesError(
            f'{name} ({shorten(text)}) contains atom maps, for example {found!r}; standardise="atom-maps" removes them'
        )
    return Standardised(canonical, is_changed)


def atom_map(smiles: str) -> str:
    """The first atom of a SMILES with an atom map; empty if there is none."""
    found = _ATOM_MAP.search(smiles)
    return found[0] if found else ""


def without_extras(smiles: str) -> str:
    """The SMILES at the beginning of a cell, without blanks around it and without what follows it; other values are returned unchanged."""
    return smiles.strip(" \t").replace("\t", " ").partition(" ")[0] if isinstance(smiles, str) else smiles


def standardise(mol: Mol, *, desalt: bool, neutralise: bool, atom_maps: bool = False) -> Mol:
    """Removes parts of a molecule that depend on how the sample was prepared or drawn. RDKit may print; see `quiet_rdkit`.

    Args:
        mol: A molecule from `parse`.
        desalt: Keep only the largest fragment, without counter-ions and solvent.
        neutralise: Add and remove protons to neutralise charges where possible; nitro groups and quaternary nitrogens keep theirs.
        atom_maps: Remove atom map numbers.

    Returns:
        The result, parsed from its SMILES.

    Raises:
        InvalidSmilesError: If RDKit fails, or cannot parse its own result, as for some organometallics.
    """
    from rdkit.Chem.MolStandardize import rdMolStandardize

    try:
        if atom_maps:
            mol = Mol(mol)
            for atom in mol.GetAtoms():
                atom.SetAtomMapNum(0)
        if desalt:
            mol = rdMolStandardize.LargestFragmentChooser().choose(mol)
        if neutralise:
            mol = rdMolStandardize.Uncharger().uncharge(mol)
    except (RuntimeError, ValueError) as error:  # the types of RDKit's errors
        raise InvalidSmilesError(f"RDKit cannot standardise {Chem.MolToSmiles(mol)!r}: {one_line(str(error))}") from error
    return parse(Chem.MolToSmiles(mol), name="RDKit's standardised SMILES", quiet=False)


def _extras(mol: Mol) -> str:
    """The part of a molecule that only a CXSMILES extension can hold and that makes it another one; empty if there is none."""
    if any(group.GetGroupType() in _ENHANCED_STEREO for group in mol.GetStereoGroups()):
        return "stereo groups (a racemate, or an unknown configuration)"
    if _POLYMERS & {group.GetProp("TYPE") for group in Chem.GetMolSubstanceGroups(mol)}:
        return "repeating units of a polymer"
    if mol.HasProp("_molLinkNodes"):
        return "link nodes, which stand for several numbers of atoms"
    if any(atom.HasProp("molAttchpt") for atom in mol.GetAtoms()):
        return "points of attachment"
    if any(bond.HasProp("_MolFileBondAttach") for bond in mol.GetBonds()):
        return "a bond with several possible ends"
    return ""
