"""Molecules with made-up targets that fingerprints can predict."""

from __future__ import annotations

import numpy as np

TAILS = ("", "O", "N", "F", "Cl", "c1ccccc1", "C1CC1", "C1CCNCC1", "c1ccncc1", "C(=O)O")
SMILES = ["C" * n + tail for n in range(1, 7) for tail in TAILS]
VALUES = np.array([0.5 * s.count("C") + 2.0 * s.count("O") - s.count("N") for s in SMILES])
LABELS = np.where(VALUES > 2, "high", "low")
