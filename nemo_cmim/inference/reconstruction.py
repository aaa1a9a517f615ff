"""Exact reconstruction: the one definition, for validation in training and for evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from ..molecules import canonical_or_none, canonical_smiles

__all__ = ["reconstruction_scores"]


def reconstruction_scores(decoded: Sequence[str], smiles: Sequence[str]) -> dict[str, float]:
    """Compares decoded SMILES with those of the encoded molecules.

    Args:
        decoded: N decoded strings.
        smiles: N SMILES of the molecules that were encoded.

    Returns:
        `reconstruction`: fraction of exact reconstructions. A reconstruction is exact if it is the same molecule, with the same stereo,
            whichever of its SMILES is written: the two canonical SMILES are equal.
        `validity`: fraction of decoded strings that RDKit can parse.
    """
    found = [canonical_or_none(text) for text in decoded]
    wanted = [canonical_smiles(text) for text in smiles]
    return {
        "reconstruction": sum(a == b for a, b in zip(found, wanted)) / len(wanted),
        "validity": sum(text is not None for text in found) / len(wanted),
    }
