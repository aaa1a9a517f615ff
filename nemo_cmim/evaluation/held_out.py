"""Molecules that models were not trained on, to be decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..config import DataConfig
from ..errors import DataError
from ..loader.dataset import open_store
from ..report.overlap import find_overlap
from ..tokenizers import SmilesTokenizer

__all__ = ["held_out_molecules"]


def held_out_molecules(folder: str | Path, count: int, max_tokens: int, trained_on: Path | None = None) -> list[str]:
    """SMILES at equal distances in the test split of a prepared folder.

    Args:
        folder: A folder written by `prepare`.
        count: Maximum number of molecules.
        max_tokens: Maximum number of tokens of a SMILES that the models accept.
        trained_on: Another prepared folder. Molecules of its training split are left out.

    Raises:
        DataError: If the folder cannot be used, or if all molecules are in the training split of `trained_on`.
        ConfigError: If the split has a longer molecule than `max_tokens`.
    """
    store = open_store(DataConfig(folder=str(folder), split="test"), max_tokens=max_tokens)
    tokenizer = SmilesTokenizer(store.vocabulary)
    places = np.linspace(0, len(store) - 1, min(count, len(store))).astype(int)
    smiles = [tokenizer.decode(tokens) for tokens in store.gather(places)]
    if trained_on is None:
        return smiles
    was_seen = find_overlap(trained_on, smiles, stereo=False).same.get("train", np.zeros(len(smiles), bool))
    if was_seen.all():
        raise DataError(
            f"All {len(smiles):,} molecules of the test split of {folder} are in the training split of {trained_on}. Use other "
            "held-out data."
        )
    return [text for text, is_seen in zip(smiles, was_seen) if not is_seen]
