"""The HTML templates, and drawings of molecules for them."""

from __future__ import annotations

import functools
from pathlib import Path

import jinja2

from .. import molecules
from .charts import compact, percent, thousands

__all__ = ["LONGEST_DRAWN", "cut", "drawn", "templates"]

LONGEST_DRAWN = 300  # characters of a SMILES; RDKit draws longer ones slowly, and they are illegible
_LONGEST_TEXT = 400  # characters of a text of a file


@functools.cache
def templates() -> jinja2.Environment:
    """The HTML templates in this folder. They escape all text, except the drawings of molecules."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"compact": compact, "percent": percent, "thousands": thousands}
    return environment


def cut(text: str) -> str:
    """The text, or the beginning of a long one with the number of its characters."""
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}… ({len(text):,} characters)"


def drawn(smiles: str) -> str:
    """The SVG of a valid SMILES; empty if it is empty, or longer than `LONGEST_DRAWN`."""
    return molecules.drawing(smiles) if 0 < len(smiles) <= LONGEST_DRAWN else ""
