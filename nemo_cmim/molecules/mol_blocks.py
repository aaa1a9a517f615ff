"""Reads mol blocks: the text of a `.mol` file, or of a record of a `.sdf` file."""

from __future__ import annotations

import re

from rdkit import Chem, rdBase

from ..errors import InvalidSmilesError
from .parsing import check_is_molecule, one_line, problem, quiet_rdkit
from .standardisation import standard_smiles

__all__ = ["smiles_of_mol_block"]

_TIME = re.compile(r"^\[\d\d:\d\d:\d\d\] (ERROR: )?")


def smiles_of_mol_block(text: str, *, name: str = "the mol block", steps: tuple[str, ...] = ()) -> str:
    """The canonical SMILES of a mol block, V2000 or V3000, with stereo from wedges or from 3D coordinates.

    Args:
        text: The mol block. Text after `M  END` is ignored.
        name: Name in error messages.
        steps: See `standard_smiles`.

    Raises:
        InvalidSmilesError: If RDKit cannot read it, with RDKit's reason; if it has no atoms; or if it does not say which molecule it is: it
            has query atoms (lists, `A`, `Q`, `X`), R groups, pseudoatoms, or query bonds. See also `standard_smiles`.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").encode("ascii", "replace").decode()  # RDKit cuts lines at bytes
    with quiet_rdkit():
        mol = Chem.MolFromMolBlock(text)
    if mol is None:
        raise InvalidSmilesError(f"{name} could not be parsed: {_reason(text)}")
    if not mol.GetNumAtoms():
        raise InvalidSmilesError(f"{name} is a molecule without atoms")
    for atom in mol.GetAtoms():
        if atom.HasProp("dummyLabel"):
            raise InvalidSmilesError(
                f"{name} has {atom.GetProp('dummyLabel')!r} in place of an element, an R group or a pseudoatom. Replace it by atoms"
            )
    check_is_molecule(mol, name)
    return standard_smiles(mol, steps, name=name)


def _reason(text: str) -> str:
    """Why RDKit cannot read a mol block, in its words. Only RDKit's reader of `.sdf` files writes them to the log of errors."""
    if len(text.splitlines()) < 4:
        return "it has fewer than four lines"
    supplier = Chem.SDMolSupplier()
    with quiet_rdkit(), rdBase.CaptureErrorLog() as log:
        supplier.SetData(f"{text.rstrip()}\n$$$$\n", sanitize=False, removeHs=False)
        mol = next(iter(supplier), None)
    if mol is not None:
        return problem(mol) or "RDKit gives no reason"
    message = _TIME.sub("", log.messages).partition("\n[")[0]
    return one_line(message) or "RDKit gives no reason"
