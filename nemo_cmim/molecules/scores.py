"""Scores of molecules that searches optimise, and similarity. All take SMILES and return NaN for one that cannot be parsed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .descriptors import logp
from .parsing import Mol, canonical_or_none, parse, quiet_rdkit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["penalised_logp", "qed", "similarity_to"]

_LARGEST_RING = 6  # atoms of a ring without penalty


def qed(smiles: Sequence[str]) -> NDArray[np.float64]:
    """Quantitative estimate of drug-likeness (Bickerton et al. 2012), 0 to 1, float64 [N]; larger is better."""
    from rdkit.Chem import QED

    return _of_each(smiles, QED.qed)


def penalised_logp(smiles: Sequence[str]) -> NDArray[np.float64]:
    """Penalised logP, float64 [N]; larger is better.

    Crippen's logP minus the synthetic accessibility score (Ertl and Schuffenhauer 2009, 1 easy to 10 hard) minus the number of atoms
    by which the largest ring exceeds 6. The three terms are not normalised.
    """
    return _of_each(smiles, _penalised_logp)


def similarity_to(molecule: str, smiles: Sequence[str]) -> NDArray[np.float64]:
    """Tanimoto similarity of Morgan fingerprints (radius 2, 2,048 bits) to a molecule, float64 [N], 0 to 1."""
    from rdkit import DataStructs

    generator = _morgan()
    reference = generator.GetFingerprint(parse(molecule))
    return _of_each(smiles, lambda mol: DataStructs.TanimotoSimilarity(reference, generator.GetFingerprint(mol)))


def _penalised_logp(mol: Mol) -> float:
    rings = [len(ring) for ring in mol.GetRingInfo().AtomRings()]
    return logp(mol) - _synthetic_accessibility()(mol) - max(0, max(rings, default=0) - _LARGEST_RING)


@functools.cache
def _synthetic_accessibility() -> Callable[[Mol], float]:
    from rdkit.Contrib.SA_Score import sascorer

    score: Callable[[Mol], float] = sascorer.calculateScore
    return score


@functools.cache
def _morgan() -> Any:
    from rdkit.Chem import rdFingerprintGenerator

    return rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)


def _of_each(smiles: Sequence[str], function: Callable[[Mol], float]) -> NDArray[np.float64]:
    values = np.full(len(smiles), np.nan)
    for i, text in enumerate(smiles):
        if canonical_or_none(text):
            with quiet_rdkit():
                values[i] = function(parse(text))
    return values
