"""Tokens of a split on disk, in Megatron's indexed format (`.bin`, `.idx`): one document per molecule, without special tokens.

Megatron writes the files, and is imported only then, as that takes seconds. They are read with numpy alone: Megatron's own
`IndexedDataset` unmaps its index when it is deleted, under the arrays that it gave out, and the next use of one crashes Python.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError, DataError
from ..tokenizers import Vocabulary
from .manifest import Manifest

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray

__all__ = ["SPLITS", "VOCABULARY", "StoreWriter", "TokenStore"]

SPLITS = ("train", "valid", "test")
VOCABULARY = "vocabulary.txt"

_HEADER = struct.Struct("<9sQBQQ")  # of .idx: magic, version, code of the dtype, number of sequences, of documents + 1
_DTYPES = {4: "<i4", 8: "<u2"}


def _indexed_dataset() -> ModuleType:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that Apex and Transformer Engine are missing does not matter to files
            from megatron.core.datasets import indexed_dataset
    except ImportError as error:
        raise ConfigError(
            f"The training data are in Megatron's format, which needs megatron-core ({error}): pip install 'nemo_cmim[train]'"
        ) from error
    return indexed_dataset


class StoreWriter:
    """Writes `train`, `valid` and `test` files into a folder, molecule by molecule."""

    def __init__(self, folder: Path, vocabulary_size: int) -> None:
        megatron = _indexed_dataset()
        dtype = megatron.DType.optimal_dtype(vocabulary_size)
        self._index_files = {split: megatron.get_idx_path(str(folder / split)) for split in SPLITS}
        self._builders = {s: megatron.IndexedDatasetBuilder(megatron.get_bin_path(str(folder / s)), dtype=dtype) for s in SPLITS}

    def add(self, split: str, tokens: Sequence[int]) -> None:
        """Appends one molecule to a split."""
        self._builders[split].add_document(tokens, [len(tokens)])

    def finish(self) -> None:
        """Closes the token files and writes their indices."""
        for split, builder in self._builders.items():
            builder.finalize(self._index_files[split])


class TokenStore:
    """The molecules of one split, memory-mapped. Open it with `TokenStore.open`.

    Attributes:
        folder: where it lies.
        split: `train`, `valid` or `test`.
        vocabulary: that of the tokens.
        manifest: what `prepare` wrote about the folder.
    """

    def __init__(self, folder: Path, split: str, vocabulary: Vocabulary, manifest: Manifest) -> None:
        self.folder = folder
        self.split = split
        self.vocabulary = vocabulary
        self.manifest = manifest
        self._lengths, self._starts, self._tokens = _map_files(folder, split)

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenStore.open, (self.folder, self.split)  # another process maps the files anew

    @classmethod
    def open(cls, folder: str | Path, split: str, *, vocabulary: Vocabulary | None = None) -> TokenStore:
        """Opens a split of a folder that `prepare` wrote, and checks that its files are complete.

        Args:
            folder: The folder.
            split: `train`, `valid` or `test`.
            vocabulary: The vocabulary that the tokens must be of, such as a checkpoint's.

        Raises:
            DataError: The folder or a file is missing, of the wrong size, or made with another vocabulary; the split is empty.
        """
        folder = Path(folder)
        if split not in SPLITS:
            raise DataError(f"There is no split {split!r}; the splits are {', '.join(SPLITS)}.")
        manifest = Manifest.load(folder)
        manifest.check_files(folder, _files_of(split), contents=False)
        own = Vocabulary.load(folder / VOCABULARY)
        if own.fingerprint != manifest.vocabulary["fingerprint"]:
            raise DataError(f"{folder / VOCABULARY} is not the vocabulary of these molecules: prepare the folder again.")
        if vocabulary is not None and vocabulary.fingerprint != own.fingerprint:
            raise DataError(
                f"{folder} was prepared with a vocabulary of {len(own)} tokens (fingerprint {own.fingerprint[:12]}), but the model "
                f"has one of {len(vocabulary)} (fingerprint {vocabulary.fingerprint[:12]}). Prepare the folder with the model's "
                "vocabulary: nemo-cmim prepare --vocabulary FILE."
            )
        if not manifest.splits[split]["molecules"]:
            raise DataError(f"Split {split!r} of {folder} holds no molecules: prepare more, or give the split a larger fraction.")
        return cls(folder, split, own, manifest)

    def __len__(self) -> int:
        return len(self._lengths)

    @property
    def lengths(self) -> NDArray[np.int32]:
        """int32 [N], the number of tokens of each molecule; memory-mapped and read-only."""
        return self._lengths

    def tokens(self, index: int) -> NDArray[np.integer]:
        """The tokens of one molecule, memory-mapped and read-only.

        Raises:
            IndexError: There is no such molecule.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"molecule {index} of {len(self)} in {self.folder / self.split}")
        start = self._starts[index] // self._tokens.itemsize
        return self._tokens[start : start + self._lengths[index]]

    def gather(self, indices: Sequence[int] | NDArray[np.int64]) -> list[NDArray[np.integer]]:
        """The tokens of several molecules, in the order of `indices`."""
        return [self.tokens(int(index)) for index in indices]

    def verify(self) -> None:
        """Reads the files of the split and compares their checksums with the manifest.

        Raises:
            DataError: A file was changed.
        """
        self.manifest.check_files(self.folder, _files_of(self.split), contents=True)


def _files_of(split: str) -> list[str]:
    return [f"{split}.bin", f"{split}.idx", VOCABULARY]


def _map_files(folder: Path, split: str) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.integer]]:
    """The number of tokens of each molecule, the byte where they start, and the tokens of all molecules."""
    path = folder / f"{split}.idx"
    with path.open("rb") as stream:
        header = stream.read(_HEADER.size)
    magic, version, dtype_code, count, _ = _HEADER.unpack(header) if len(header) == _HEADER.size else (b"", 0, 0, 0, 0)
    if (magic, version) != (b"MMIDIDX\0\0", 1) or dtype_code not in _DTYPES:
        raise DataError(f"{path} is not an index of Megatron's, version 1, with {' or '.join(_DTYPES.values())}: prepare it again.")
    lengths = np.memmap(path, "<i4", "r", offset=_HEADER.size, shape=(count,))
    starts = np.memmap(path, "<i8", "r", offset=_HEADER.size + lengths.nbytes, shape=(count,))
    tokens = np.memmap(folder / f"{split}.bin", _DTYPES[dtype_code], "r")
    return np.asarray(lengths), np.asarray(starts), np.asarray(tokens)
