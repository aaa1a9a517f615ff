"""Parses SMILES and RDKit molecules, says in RDKit's words why one cannot be used, and writes canonical and randomized SMILES."""

from __future__ import annotations

import math
import re
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from rdkit import Chem, rdBase

from ..errors import InvalidSmilesError

__all__ = [
    "CANONICALISATION",
    "Mol",
    "canonical_or_none",
    "canonical_smiles",
    "check_is_molecule",
    "forbidden_character",
    "is_valid",
    "one_line",
    "parse",
    "problem",
    "quiet_rdkit",
    "randomized_smiles",
    "shorten",
    "smiles_of",
    "to_canonical_smiles",
    "what_follows",
    "without_stereo",
]

Mol = Chem.Mol

CANONICALISATION = "rdkit-fixed-point-1"
"""Name of the definition of `canonical_smiles`. Embeddings of molecules that were canonicalised differently are not comparable."""

_quiet = threading.RLock()
_POSITION = re.compile(r"check for mistakes around position (\d+)")
_CXSMILES = re.compile(r"\|[^|]*\|")


@contextmanager
def quiet_rdkit() -> Iterator[None]:
    """Keeps RDKit from printing; errors of this package describe what is wrong."""
    with _quiet, rdBase.BlockLogs():
        yield


def parse(smiles: str, *, name: str = "the SMILES", quiet: bool = True) -> Mol:
    """Parses a SMILES with RDKit's sanitisation.

    Args:
        smiles: The SMILES.
        name: Name in error messages, for example the position in the caller's list.
        quiet: Keep RDKit from printing. For a loop, it is faster to wrap the loop in `quiet_rdkit` and to pass False.

    Raises:
        InvalidSmilesError: If the SMILES is not text, is empty, contains white space or a character that is not printable ASCII, or cannot
            be parsed. The message has RDKit's reason.
    """
    mol = _parse_or_none(smiles, quiet)
    if mol is None:
        raise InvalidSmilesError(_why_not(smiles, name))
    return mol


def _parse_or_none(smiles: Any, quiet: bool = True) -> Mol | None:
    if not isinstance(smiles, str) or not smiles or forbidden_character(smiles):
        return None
    if quiet:
        with quiet_rdkit():
            mol = Chem.MolFromSmiles(smiles)
    else:
        mol = Chem.MolFromSmiles(smiles)
    if mol is None or not mol.GetNumAtoms():
        return None
    if ":0" in smiles:  # 0 is no number of an atom map, but RDKit would write it
        for atom in mol.GetAtoms():
            if atom.HasProp("molAtomMapNumber") and not atom.GetAtomMapNum():
                atom.ClearProp("molAtomMapNumber")
    return mol


def _why_not(smiles: Any, name: str) -> str:
    """Why `parse` rejects this value, as a sentence without a full stop."""
    if not isinstance(smiles, str):
        wrong = f"{name} must be text, found {shorten(smiles)} ({type(smiles).__name__})"
        if isinstance(smiles, bytes):
            return f"{wrong}. Convert bytes to text, for example with .decode()"
        return f"{wrong}. It is a missing value" if _is_missing(smiles) else wrong
    if not smiles:
        return f"{name} is empty"
    quoted = f"{name} ({shorten(smiles, 200)})"
    if found := forbidden_character(smiles):
        if smiles.split() == [smiles]:
            return f"{quoted} contains {found}. A SMILES consists of printable ASCII characters only"
        follows = what_follows(smiles, 'standardise="extras" removes it')
        return f"{quoted} contains white space, which is not allowed in a SMILES: {found}{follows}"
    return f"{quoted} could not be parsed: {_rdkits_reason(smiles)}"


def _is_missing(value: Any) -> bool:
    """None, NaN, and pandas' NA and NaT, which are known by name because pandas is not imported here."""
    is_nan = isinstance(value, (float, np.floating)) and math.isnan(value)
    return value is None or is_nan or type(value).__name__ in ("NAType", "NaTType")


def what_follows(smiles: str, hint: str) -> str:
    """Names the CXSMILES extension or the name that follows a SMILES in one cell, with a hint; empty if there is none."""
    rest = smiles.strip(" \t").split(maxsplit=1)[1:]
    if not rest or "\n" in smiles or "\r" in smiles:
        return ""
    what = "a CXSMILES extension" if _CXSMILES.match(rest[0]) else "a name"
    return f". The SMILES is followed by {what} ({shorten(rest[0])}); {hint}"


def _rdkits_reason(smiles: str) -> str:
    """Why RDKit cannot parse a SMILES, in its words. Only called after an error: it parses the SMILES a second time."""
    with quiet_rdkit(), rdBase.CaptureErrorLog() as log:
        mol = Chem.MolFromSmiles(smiles, sanitize=False)
    if mol is not None:
        return problem(mol) or "RDKit gives no reason"
    # The log may also have lines of other threads that use RDKit; those of this SMILES contain it.
    cause = re.search(rf"SMILES Parse Error: (.+?)(?: while parsing: | for input: '){re.escape(smiles)}", log.messages)
    if cause is None:
        return "RDKit gives no reason"
    position = _POSITION.search(log.messages, cause.end())
    if position is None or not 0 < int(position[1]) <= len(smiles):
        return cause[1]
    return f"{cause[1]}, check for mistakes around position {position[1]} ({smiles[int(position[1]) - 1]!r}), counted from 1"


def problem(mol: Mol) -> str | None:
    """What RDKit's sanitisation says about a molecule that was parsed without it; None if it finds nothing."""
    with quiet_rdkit():
        try:
            Chem.SanitizeMol(Mol(mol))
        except (RuntimeError, ValueError) as error:  # the types of RDKit's errors
            return one_line(str(error))
    return None


def one_line(message: str) -> str:
    """A message of RDKit without the trace of its C++ source."""
    lines = [line.strip() for line in message.partition("Violation occurred on line")[0].splitlines()]
    return ": ".join(" ".join(line.split()) for line in lines if line.strip("*"))


def shorten(value: Any, limit: int = 80) -> str:
    """The `repr` of a value, for an error message."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def forbidden_character(smiles: str) -> str | None:
    """The first character that is white space or not printable ASCII, with its position; None if there is none.

    RDKit removes such characters at the ends of a SMILES, and all text after white space, without a message. It would read another
    molecule.
    """
    if smiles.isascii() and smiles.isprintable() and " " not in smiles:
        return None
    position, character = next((i, c) for i, c in enumerate(smiles) if not "!" <= c <= "~")
    return f"U+{ord(character):04X} ({unicodedata.name(character, 'an unnamed character')}) at index {position}, counted from 0"


def is_valid(smiles: str) -> bool:
    """True if RDKit can parse `smiles` and the molecule has at least one atom."""
    return _parse_or_none(smiles) is not None


def canonical_smiles(molecule: str | Mol, *, name: str = "the SMILES") -> str:
    """RDKit's canonical isomeric SMILES, as a fixed point: canonicalising it again gives the same text.

    For some symmetric molecules, RDKit's canonical form depends on the order of the atoms (rdkit#8721). Therefore it is canonicalised again
    until a text occurs for the second time. If several texts alternate, the smallest is taken. This costs nothing if the
    SMILES is canonical already, and parsing it once more otherwise.

    Two SMILES of one molecule can still give two texts if an atom has non-tetrahedral stereo (`@SP`, `@TB`, `@OH`), because RDKit then
    has several fixed points. No other such molecule was found: see docs/data.md. The shipped vocabulary has no token for such
    atoms.

    Args:
        molecule: A SMILES, or an RDKit molecule.
        name: Name in error messages.

    Raises:
        InvalidSmilesError: See `parse` and `smiles_of`.
    """
    text = smiles_of(molecule, name=name) if isinstance(molecule, Mol) else molecule
    mol = parse(text, name=name)
    with quiet_rdkit():
        return to_canonical_smiles(mol, text)


def smiles_of(mol: Mol, *, name: str) -> str:
    """A SMILES of an RDKit molecule. It is meant to be parsed: then explicit hydrogens of a structure file have no effect.

    Raises:
        InvalidSmilesError: If the molecule has no atoms, is a query (see `check_is_molecule`), or RDKit cannot write it.
    """
    if mol.GetNumAtoms() == 0:
        raise InvalidSmilesError(f"{name} is a molecule without atoms")
    check_is_molecule(mol, name, "Chem.MolFromSmiles reads a molecule, Chem.MolFromSmarts a query")
    try:
        with quiet_rdkit():
            return Chem.MolToSmiles(mol)
    except (RuntimeError, ValueError) as error:  # the types of RDKit's errors
        raise InvalidSmilesError(f"RDKit cannot write a SMILES of {name}: {one_line(str(error))}") from error


def check_is_molecule(mol: Mol, name: str, hint: str = "Replace each of them by one atom or bond") -> None:
    """Raises an `InvalidSmilesError` if an atom or a bond is a query, which stands for many molecules, for example `[C,N]` or `~`."""
    if not mol.HasQuery():
        return
    with quiet_rdkit():
        parts = [atom.GetSmarts() for atom in mol.GetAtoms() if atom.HasQuery()]
        parts += [bond.GetSmarts() for bond in mol.GetBonds() if bond.HasQuery()]  # type: ignore[call-arg]  # wrong in RDKit's stubs
    found = ", ".join(dict.fromkeys(part for part in parts if part)) or "a bond of any type"
    raise InvalidSmilesError(
        f"{name} is a query, which stands for many molecules, not one. Its query atoms and bonds: {found}. {hint}"
    )


def to_canonical_smiles(mol: Mol, smiles: str | None = None) -> str:
    """`canonical_smiles` of a molecule from `parse`, without parsing it again. RDKit may print; see `quiet_rdkit`.

    Args:
        mol: The molecule.
        smiles: The SMILES that it was parsed from, if it was not changed since. If it is canonical, there is no second pass.
    """
    return _canonical_form(mol, smiles)[0]


def _canonical_form(mol: Mol, smiles: str | None) -> tuple[str, bool]:
    """The text of `to_canonical_smiles`, and whether RDKit can read it."""
    forms = [] if smiles is None else [smiles]
    form = Chem.MolToSmiles(mol)
    while form not in forms:
        forms.append(form)
        mol = Chem.MolFromSmiles(form)
        if mol is None:
            return form, False
        form = Chem.MolToSmiles(mol)
    return min(forms[forms.index(form) :]), True  # one form, or those of a cycle


def without_stereo(mol: Mol) -> str:
    """Canonical SMILES of a molecule from `parse`, without stereocentres and stereo bonds; isotopes are kept."""
    copy = Mol(mol)
    Chem.RemoveStereochemistry(copy)
    return canonical_smiles(Chem.MolToSmiles(copy))  # parses it again, which removes a hydrogen that only a stereo bond needed


def canonical_or_none(smiles: str) -> str | None:
    """The canonical SMILES of text that may be invalid, for example decoded text.

    None if RDKit cannot parse it, or cannot parse its own canonical SMILES of it, as for the oxygen with three bonds in `c1ccc(=o1)C`.
    """
    mol = _parse_or_none(smiles)
    if mol is None:
        return None
    with quiet_rdkit():
        form, is_readable = _canonical_form(mol, smiles)
    return form if is_readable else None


def randomized_smiles(smiles: str, count: int, seed: int) -> list[str]:
    """Randomized SMILES of one molecule (SMILES enumeration, Sec. D.2). They are valid; some may be equal.

    They keep stereo, except that RDKit may write the other enantiomer of some symmetric rings, such as chiro-inositol.

    RDKit may print; wrap a loop in `quiet_rdkit`.

    Args:
        smiles: The molecule.
        count: Number of SMILES.
        seed: 1 to 2**32 - 1; equal seeds give equal SMILES.

    Raises:
        InvalidSmilesError: See `parse`.
    """
    return list(Chem.MolToRandomSmilesVect(parse(smiles, quiet=False), count, randomSeed=seed))
