"""Token ids of one split of a prepared folder, without special tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from ..observed import PropertyTable
from ..tokenizers import Vocabulary
from .folder import LocalFolder, open_folder
from .manifest import MANIFEST, StoreManifest
from .records import Records
from .shards import BlockShards, LocalShards, ShardMap

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["RECORDS", "SPLITS", "VOCABULARY", "Lengths", "TokenStore"]

SPLITS = ("train", "valid", "test")
VOCABULARY = "vocabulary.txt"
RECORDS = ".prop"  # suffix of the files of observed properties, one beside each shard


class Lengths:
    """The number of tokens of each molecule, read on demand: `lengths[indices]` is int32 [P]. `numpy.asarray` reads all of them."""

    def __init__(self, shards: LocalShards | BlockShards) -> None:
        self._shards = shards

    def __len__(self) -> int:
        return self._shards.shard_map.molecules

    def __getitem__(self, indices: ArrayLike) -> NDArray[np.int32]:
        return self._shards.lengths(np.atleast_1d(np.asarray(indices, np.int64)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[np.arange(len(self))].astype(dtype or np.int32, copy=False)


class TokenStore:
    """The molecules of one split, numbered over all its shards. Open it with `TokenStore.open`.

    Attributes:
        folder: path or URL of the folder.
        split: `train`, `valid` or `test`.
        vocabulary: the vocabulary of the token ids.
        manifest: the manifest of the folder.
        properties: the observed properties of the folder; None if `prepare` did not compute any.
    """

    def __init__(self, folder: str | Path, split: str, vocabulary: Vocabulary, manifest: StoreManifest, block: int) -> None:
        self.folder = folder
        self.split = split
        self.vocabulary = vocabulary
        self.manifest = manifest
        files, shards = open_folder(folder), ShardMap(manifest.splits[split]["shards"])
        self._shards = LocalShards(files.path, shards) if isinstance(files, LocalFolder) else BlockShards(files, shards, block)
        self.properties: PropertyTable | None = None
        if manifest.properties is not None:
            self.properties = PropertyTable.from_json(manifest.properties, files.location(MANIFEST))
            block = 1 if isinstance(files, LocalFolder) else block
            self._records = Records(files, shards, RECORDS, self.properties.bytes_per_molecule, block)

    @classmethod
    def open(cls, folder: str | Path, split: str, *, vocabulary: Vocabulary | None = None, block: int = 4096) -> TokenStore:
        """Opens a split of a folder written by `prepare`, and checks the sizes of its files.

        Args:
            folder: A path, or a URL that fsspec supports (`s3://`, `gs://`, `http://`, ...).
            split: `train`, `valid` or `test`.
            vocabulary: The vocabulary that the data must have been prepared with, for example that of a checkpoint; None: any.
            block: Number of consecutive molecules that are read together from a URL.

        Raises:
            DataError: If the folder or a file is missing, a file has the wrong size, the vocabulary differs, or the split is empty.
            ConfigError: If a package that reads the URL is not installed.
        """
        if split not in SPLITS:
            raise DataError(f"There is no split {split!r}; the splits are {', '.join(SPLITS)}.")
        manifest = StoreManifest.load(folder)
        manifest.check_files(folder, _files_of(manifest, split), contents=False)
        files = open_folder(folder)
        own = Vocabulary.loads(files.read(VOCABULARY).decode("utf-8", "replace"), files.location(VOCABULARY))
        if own.fingerprint != manifest.vocabulary["fingerprint"]:
            raise DataError(
                f"{files.location(VOCABULARY)} is not the vocabulary of the molecules in {folder}. Prepare the folder again."
            )
        if vocabulary is not None and vocabulary.fingerprint != own.fingerprint:
            raise DataError(
                f"{folder} was prepared with a vocabulary of {len(own)} tokens (fingerprint {own.fingerprint[:12]}), but the model "
                f"has one of {len(vocabulary)} (fingerprint {vocabulary.fingerprint[:12]}). Prepare the folder with the model's "
                "vocabulary: nemo-cmim prepare --vocabulary FILE."
            )
        molecules, in_shards = manifest.splits[split]["molecules"], sum(s["molecules"] for s in manifest.splits[split]["shards"])
        if molecules != in_shards:
            raise DataError(
                f"The manifest of {folder} lists {molecules} molecules in split {split!r}, but {in_shards} in its shards. "
                "Prepare the folder again."
            )
        if not molecules:
            raise DataError(f"Split {split!r} of {folder} is empty. Prepare more molecules, or a larger fraction for this split.")
        return cls(folder, split, own, manifest, block)

    def __len__(self) -> int:
        return self._shards.shard_map.molecules

    @property
    def lengths(self) -> Lengths:
        """The number of tokens of each molecule."""
        return Lengths(self._shards)

    def tokens(self, index: int) -> NDArray[np.integer]:
        """The token ids of one molecule.

        Raises:
            IndexError: If `index` is not from 0 to N - 1.
            DataError: If the shard is damaged or cannot be read.
        """
        return self.gather([index])[0]

    def gather(self, indices: Sequence[int] | NDArray[np.int64]) -> list[NDArray[np.integer]]:
        """The token ids of several molecules, in the order of `indices`. See `tokens` for errors."""
        return self._shards.gather(np.asarray(indices, np.int64))

    def gather_properties(self, indices: Sequence[int] | NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The observed properties of N molecules: normal scores float32 [N, P], NaN if missing; bits float32 [N, F], 0 or 1.

        Raises:
            DataError: If the folder has no observed properties, or if a file is damaged or cannot be read.
        """
        if self.properties is None:
            raise DataError(
                f"{self.folder} has no observed properties. Prepare the folder with nemo-cmim prepare --properties standard "
                "--fingerprint-bits 512."
            )
        records, values = self._records.gather(np.asarray(indices, np.int64)), len(self.properties.values)
        return self.properties.scores(records[:, :values]), np.unpackbits(records[:, values:], axis=1).astype(np.float32)

    def verify(self) -> None:
        """Reads the files of the split and compares their checksums with the manifest. For users: the package itself does not call it.

        Raises:
            DataError: If a file was changed.
        """
        self.manifest.check_files(self.folder, _files_of(self.manifest, self.split), contents=True)


def _files_of(manifest: StoreManifest, split: str) -> list[str]:
    names = [shard["name"] for shard in manifest.splits[split]["shards"]]
    suffixes = (".bin", ".idx", *([RECORDS] if manifest.properties else []))
    return [*(f"{name}{suffix}" for name in names for suffix in suffixes), VOCABULARY]
