"""Tokens of a split in a prepared folder: shards in Megatron's indexed format (`.bin`, `.idx`), without special tokens.

Megatron writes the files, and is imported only then, as that takes seconds. `shards` reads them without it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError, DataError
from ..tokenizers import Vocabulary
from .folder import LocalFolder, folder_at
from .manifest import Manifest
from .shards import BlockShards, LocalShards, ShardTable

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import ArrayLike, NDArray

__all__ = ["SPLITS", "VOCABULARY", "Lengths", "TokenStore", "indexed_dataset", "write_shard"]

SPLITS = ("train", "valid", "test")
VOCABULARY = "vocabulary.txt"


def indexed_dataset() -> ModuleType:
    """Megatron's module that writes shards.

    Raises:
        ConfigError: megatron-core is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that Apex and Transformer Engine are missing does not matter to files
            from megatron.core.datasets import indexed_dataset
    except ImportError as error:
        raise ConfigError(
            f"The training data are in Megatron's format, which needs megatron-core ({error}): pip install 'nemo_cmim[data]'"
        ) from error
    return indexed_dataset


def write_shard(prefix: Path, tokens: NDArray[np.integer], lengths: NDArray[np.int64], vocabulary_size: int) -> list[Path]:
    """Writes one shard, with a document for each molecule.

    Args:
        prefix: Path of its files without their suffixes.
        tokens: The ids of all molecules, one after the other.
        lengths: [N], how many ids each has.
        vocabulary_size: Decides how many bytes an id takes.

    Returns:
        The files: `.bin` and `.idx`.

    Raises:
        ConfigError: megatron-core is not installed.
    """
    megatron = indexed_dataset()
    files = [Path(megatron.get_bin_path(str(prefix))), Path(megatron.get_idx_path(str(prefix)))]
    builder = megatron.IndexedDatasetBuilder(str(files[0]), dtype=megatron.DType.optimal_dtype(vocabulary_size))
    builder.add_document(tokens, lengths.tolist())
    builder.document_indices = list(range(len(lengths) + 1))
    builder.finalize(str(files[1]))
    return files


class Lengths:
    """The number of tokens of each molecule, looked up when asked for: `lengths[indices]` is int32 [P]. `numpy.asarray` reads all."""

    def __init__(self, shards: LocalShards | BlockShards) -> None:
        self._shards = shards

    def __len__(self) -> int:
        return self._shards.table.molecules

    def __getitem__(self, indices: ArrayLike) -> NDArray[np.int32]:
        return self._shards.lengths(np.atleast_1d(np.asarray(indices, np.int64)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[np.arange(len(self))].astype(dtype or np.int32, copy=False)


class TokenStore:
    """The molecules of one split, in one order over all its shards. Open it with `TokenStore.open`.

    Attributes:
        folder: where it lies: a path or a URL.
        split: `train`, `valid` or `test`.
        vocabulary: that of the tokens.
        manifest: what `prepare` wrote about the folder.
    """

    def __init__(self, folder: str | Path, split: str, vocabulary: Vocabulary, manifest: Manifest, block: int) -> None:
        self.folder = folder
        self.split = split
        self.vocabulary = vocabulary
        self.manifest = manifest
        files, table = folder_at(folder), ShardTable(manifest.splits[split]["shards"])
        self._shards = LocalShards(files.path, table) if isinstance(files, LocalFolder) else BlockShards(files, table, block)

    @classmethod
    def open(cls, folder: str | Path, split: str, *, vocabulary: Vocabulary | None = None, block: int = 4096) -> TokenStore:
        """Opens a split of a folder that `prepare` wrote, and checks that its files are complete.

        Args:
            folder: The folder: a path, or a URL that fsspec knows (`s3://`, `gs://`, `http://`, ...).
            split: `train`, `valid` or `test`.
            vocabulary: The vocabulary that the tokens must be of, such as a checkpoint's.
            block: Consecutive molecules that are fetched together from a URL.

        Raises:
            DataError: The folder or a file is missing, of the wrong size, or made with another vocabulary; the split is empty.
            ConfigError: A package that reads the URL is not installed.
        """
        if split not in SPLITS:
            raise DataError(f"There is no split {split!r}; the splits are {', '.join(SPLITS)}.")
        manifest = Manifest.load(folder)
        manifest.check_files(folder, _files_of(manifest, split), contents=False)
        files = folder_at(folder)
        own = Vocabulary.loads(files.read(VOCABULARY).decode("utf-8", "replace"), files.place(VOCABULARY))
        if own.fingerprint != manifest.vocabulary["fingerprint"]:
            raise DataError(f"{files.place(VOCABULARY)} is not the vocabulary of these molecules: prepare the folder again.")
        if vocabulary is not None and vocabulary.fingerprint != own.fingerprint:
            raise DataError(
                f"{folder} was prepared with a vocabulary of {len(own)} tokens (fingerprint {own.fingerprint[:12]}), but the model "
                f"has one of {len(vocabulary)} (fingerprint {vocabulary.fingerprint[:12]}). Prepare the folder with the model's "
                "vocabulary: nemo-cmim prepare --vocabulary FILE."
            )
        molecules, held = manifest.splits[split]["molecules"], sum(s["molecules"] for s in manifest.splits[split]["shards"])
        if molecules != held:
            raise DataError(
                f"The manifest of {folder} tells of {molecules} molecules in split {split!r}, but {held} in its shards: prepare it again."
            )
        if not molecules:
            raise DataError(f"Split {split!r} of {folder} holds no molecules: prepare more, or give the split a larger fraction.")
        return cls(folder, split, own, manifest, block)

    def __len__(self) -> int:
        return self._shards.table.molecules

    @property
    def lengths(self) -> Lengths:
        """The number of tokens of each molecule."""
        return Lengths(self._shards)

    def tokens(self, index: int) -> NDArray[np.integer]:
        """The tokens of one molecule.

        Raises:
            IndexError: There is no such molecule.
            DataError: Its shard is damaged, or cannot be read.
        """
        return self.gather([index])[0]

    def gather(self, indices: Sequence[int] | NDArray[np.int64]) -> list[NDArray[np.integer]]:
        """The tokens of several molecules, in the order of `indices`. Raises as `tokens` does."""
        return self._shards.gather(np.asarray(indices, np.int64))

    def verify(self) -> None:
        """Reads the files of the split and compares their checksums with the manifest.

        Raises:
            DataError: A file was changed.
        """
        self.manifest.check_files(self.folder, _files_of(self.manifest, self.split), contents=True)


def _files_of(manifest: Manifest, split: str) -> list[str]:
    names = [shard["name"] for shard in manifest.splits[split]["shards"]]
    return [*(f"{name}.{kind}" for name in names for kind in ("bin", "idx")), VOCABULARY]
