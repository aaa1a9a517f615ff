"""How a SMILES splits into tokens, and which tokens are chemistry. The only regular expressions for SMILES."""

from __future__ import annotations

import re

__all__ = ["BRACKET", "HALOGENS", "LONG_TOKEN", "is_chemical_token", "split"]

# A token never holds a line break, so lines can be split jointly.
_BRACKET = r"\[[^\[\]\n]+\]"
HALOGENS = ("Br", "Cl")
_LONG = rf"{_BRACKET}|Br|Cl|%[0-9]{{2}}|%\([0-9]+\)"

BRACKET = re.compile(f"({_BRACKET})")
"""A bracket atom; searching for this alone is four times as fast as for `LONG_TOKEN`."""

LONG_TOKEN = re.compile(f"({_LONG})")
"""Every token of more than one character; each other character is a token of its own."""

_TOKEN = re.compile(rf"{_LONG}|[\s\S]")

_BRACKET_ATOM = (
    r"\[[0-9]*"  # isotope
    r"(?:[A-Z][a-z]?|[a-z][a-z]?|\*)"  # element, aromatic element or any atom
    r"(?:@@?|@(?:TH|AL|SP|TB|OH)[0-9]+)?"  # chirality
    r"(?:H[0-9]*)?"
    r"(?:\++[0-9]*|-+[0-9]*)?"  # charge
    r"(?::[0-9]+)?\]"  # atom map
)
_CHEMICAL = re.compile(rf"{_BRACKET_ATOM}|Br|Cl|[BCNOPSFIbcnops*]|[-=#$:/\\~.()<>]|[0-9]|%[0-9]{{2}}|%\([0-9]+\)")


def split(smiles: str) -> list[str]:
    """The tokens of `smiles`. Lossless: joined they give `smiles` back, whatever string it is."""
    return _TOKEN.findall(smiles)


def is_chemical_token(token: str) -> bool:
    """True if `token` can stand in a SMILES: an atom, bond, ring number, branch, dot, or half of a dative bond's arrow."""
    return _CHEMICAL.fullmatch(token) is not None
