"""The regular expressions that split a SMILES into tokens and recognise chemical tokens."""

from __future__ import annotations

import re

__all__ = ["BRACKET", "HALOGENS", "LONG_TOKEN", "is_chemical_token", "split"]

# Tokens do not contain line breaks, so that many lines can be split at once.
_BRACKET = r"\[[^\[\]\n]+\]"
HALOGENS = ("Br", "Cl")
_LONG = rf"{_BRACKET}|Br|Cl|%[0-9]{{2}}|%\([0-9]+\)"

BRACKET = re.compile(f"({_BRACKET})")
"""A bracket atom; searching only for these is four times as fast as searching for `LONG_TOKEN`."""

LONG_TOKEN = re.compile(f"({_LONG})")
"""Tokens of more than one character; every other character is a token."""

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
    """Splits a string into tokens. Lossless: the joined tokens equal the string, for every string."""
    return _TOKEN.findall(smiles)


def is_chemical_token(token: str) -> bool:
    """True if `token` can occur in a SMILES: an atom, bond, ring number, branch, dot, or half of the arrow of a dative bond."""
    return _CHEMICAL.fullmatch(token) is not None
