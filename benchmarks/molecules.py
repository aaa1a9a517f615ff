"""Real SMILES for measurements, from the PyPI package molsets (installed by `make bench` and `make demo`)."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import io
import itertools
from pathlib import Path

from nemo_cmim.tokenizers import SmilesTokenizer
from nemo_cmim.tokenizers.collate import collate
from nemo_cmim.types import TokenBatch

__all__ = ["sample_smiles", "tokenized_batch"]


def sample_smiles(count: int) -> list[str]:
    """The first `count` molecules of MOSES' training set.

    Raises:
        SystemExit: If molsets is not installed.
    """
    package = importlib.util.find_spec("moses")
    if package is None or not package.submodule_search_locations:
        raise SystemExit(
            "Benchmarks read molecules from the package molsets, which is not installed: `pip install --no-deps molsets==0.3.1`."
        )
    path = Path(package.submodule_search_locations[0]) / "dataset" / "data" / "train.csv.gz"
    with gzip.open(path, "rb") as file:
        rows = csv.DictReader(io.TextIOWrapper(file, encoding="utf-8"))
        return list(itertools.islice((row["SMILES"] for row in rows), count))


def tokenized_batch(smiles: list[str]) -> TokenBatch:
    """All molecules as one batch, with the shipped vocabulary."""
    tokenizer = SmilesTokenizer()
    return collate([tokenizer.encode(one, on_unknown="unk") for one in smiles], tokenizer.vocabulary)
