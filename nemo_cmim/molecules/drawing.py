"""Structures as SVG."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .parsing import parse, quiet_rdkit

__all__ = ["drawing", "drawing_grid"]

# Colours of atoms, readable on a white and on a nearly black background; all other atoms have the colour of the text.
_ATOM_COLOURS = {
    7: (0.23, 0.49, 0.87),
    8: (0.85, 0.28, 0.25),
    9: (0.22, 0.56, 0.24),
    15: (0.76, 0.42, 0.05),
    16: (0.62, 0.50, 0.00),
    17: (0.22, 0.56, 0.24),
    35: (0.66, 0.40, 0.25),
    53: (0.60, 0.38, 0.80),
}
# Attributes that RDKit writes although they are defaults of SVG, and comments.
_SVG_REDUNDANT = re.compile(
    r" class='[^']*'|fill-rule:evenodd;|;stroke-linecap:butt;stroke-linejoin:miter;stroke-opacity:1|<!--.*?-->\n"
)


def drawing(smiles: str, width: int = 220, height: int = 150) -> str:
    """The structure as an `<svg>` element for a web page, in the colour of its text, so that it is readable on light and dark pages.

    Args:
        smiles: The molecule.
        width: Width of the box that the structure fills, in pixels.
        height: Height of the box, in pixels.

    Raises:
        InvalidSmilesError: See `parse`.
    """
    from rdkit.Chem.Draw import rdMolDraw2D

    canvas = rdMolDraw2D.MolDraw2DSVG(width, height)
    options = canvas.drawOptions()
    options.clearBackground = False  # type: ignore[assignment]  # wrong type in RDKit's stubs
    options.useBWAtomPalette()
    options.updateAtomPalette(_ATOM_COLOURS)
    with quiet_rdkit():
        rdMolDraw2D.PrepareAndDrawMolecule(canvas, parse(smiles))
    canvas.FinishDrawing()
    shapes = canvas.GetDrawingText().split("<!-- END OF HEADER -->\n", 1)[1]
    return f'<svg viewBox="0 0 {width} {height}">\n' + _SVG_REDUNDANT.sub("", shapes).replace("#000000", "currentColor")


def drawing_grid(labels: Mapping[str, str], columns: int = 4, width: int = 220, height: int = 190, *, png: bool = False) -> bytes:
    """A picture of structures with a label below each, on a white background; SVG, or PNG.

    Args:
        labels: The label of each SMILES, in order.
        columns: Structures of a row.
        width: Width of a cell, in pixels.
        height: Height of a cell, in pixels.
        png: Return PNG instead of SVG.

    Raises:
        InvalidSmilesError: See `parse`.
    """
    from rdkit.Chem.Draw import rdMolDraw2D

    size = (min(columns, len(labels)) * width, -(-len(labels) // columns) * height, width, height)
    canvas = rdMolDraw2D.MolDraw2DCairo(*size) if png else rdMolDraw2D.MolDraw2DSVG(*size)
    with quiet_rdkit():
        canvas.DrawMolecules([parse(smiles) for smiles in labels], legends=list(labels.values()))
    canvas.FinishDrawing()
    picture = canvas.GetDrawingText()
    return picture if isinstance(picture, bytes) else picture.encode()
