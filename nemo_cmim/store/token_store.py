"""Tokens of a split in a prepared folder: shards in Megatron's indexed format (`.bin`, `.idx`), without special tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from ..tokenizers import Vocabulary
from .folder import LocalFolder, folder_at
from .manifest import StoreManifest
from .shards import BlockShards, LocalShards, ShardTable

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["SPLITS", "VOCABULARY", "Lengths", "TokenStore"]

SPLITS = ("train", "valid", "test")
VOCABULARY = "vocabulary.txt"


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

    def __init__(self, folder: str | Path, split: str, vocabulary: Vocabulary, manifest: StoreManifest, block: int) -> None:
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
        manifest = StoreManifest.load(folder)
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


def _files_of(manifest: StoreManifest, split: str) -> list[str]:
    names = [shard["name"] for shard in manifest.splits[split]["shards"]]
    return [*(f"{name}.{kind}" for name in names for kind in ("bin", "idx")), VOCABULARY]
