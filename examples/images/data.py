"""Reads image sets from idx and npz files: one channel, 28 x 28, and parts for training, validation and test.

N images, S side in pixels.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nemo_cmim.errors import DataError

from .sets import SETS, ImageSet

__all__ = ["Images", "Part", "load", "load_all", "pixels", "read_idx"]

DEFAULT_FOLDER = Path("images")
SIDE = 28
VALIDATION = 0.05  # fraction of train, where a set has no validation images (Sec. D.1)
TEST = 0.2  # fraction of all images, where a set has no split
_GREY = np.array([0.299, 0.587, 0.114])  # luminance of red, green and blue (ITU-R BT.601)


@dataclass(frozen=True)
class Part:
    """Images of one part of a set.

    Attributes:
        images_NP: uint8, 784 pixels each, 0 to 255, row by row.
        labels_N: int64, from 0.
    """

    images_NP: Tensor
    labels_N: Tensor

    def __len__(self) -> int:
        return len(self.labels_N)

    def take(self, index: Tensor | slice) -> Part:
        """The images of these rows."""
        return Part(self.images_NP[index], self.labels_N[index])

    def first(self, limit: int) -> Part:
        """The first `limit` images, or all if there are fewer or `limit` is 0."""
        return self.take(slice(limit or None))


@dataclass(frozen=True)
class Images:
    """A set with its parts, each in a fixed random order. `note` says where it differs from the official set."""

    name: str
    train: Part
    valid: Part
    test: Part
    note: str

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of all pixels and labels: results of different files have different ones."""
        digest = hashlib.sha256()
        for part in (self.train, self.valid, self.test):
            digest.update(f"{len(part)} ".encode())
            for tensor in (part.images_NP, part.labels_N):
                digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()


def pixels(images_NP: Tensor) -> Tensor:
    """uint8 pixels as float32 in [0, 1]."""
    return images_NP.float() / 255.0


def load(name: str, folder: Path = DEFAULT_FOLDER) -> Images:
    """Loads a set.

    Official parts are kept. Without official validation images, 5 % of train become them; without a test part, 20 % of all images do
    first. Both are drawn with a fixed seed, so that all runs have the same parts.

    Args:
        name: Name in `SETS`.
        folder: Folder of the folders of all sets.

    Raises:
        DataError: If the set is unknown, a file of it is missing or damaged, images and labels do not match, or a label is not one of the
            set's classes.
    """
    if name not in SETS:
        raise DataError(f"Unknown image set {name!r}. Known: {', '.join(SETS)}.")
    of = SETS[name]
    parts, notes = _read_parts(of, folder / of.place)
    shuffled = {part: _shuffled(images) for part, images in parts.items()}
    if "all" in shuffled:
        shuffled["test"], shuffled["train"] = _divided(shuffled.pop("all"), TEST)
        notes.append(f"no official split here: {TEST:.0%} drawn for test")
    if "valid" not in shuffled:
        shuffled["valid"], shuffled["train"] = _divided(shuffled["train"], VALIDATION)
        notes.append(f"{VALIDATION:.0%} of train drawn for validation")
    notes += _checksum_notes(of, folder / of.place)
    return Images(name, shuffled["train"], shuffled["valid"], shuffled["test"], "; ".join(notes))


def load_all(names: Iterable[str], folder: Path, say: Callable[[str], None]) -> Iterator[Images]:
    """Loads sets one after another. Sets that cannot be read are skipped: `say` gets a line with the reason."""
    for name in names:
        try:
            yield load(name, folder)
        except DataError as error:
            say(f"skipped {name}: {error}")


def _divided(part: Part, fraction: float) -> tuple[Part, Part]:
    count = math.ceil(fraction * len(part))
    return part.take(slice(count)), part.take(slice(count, None))


def _shuffled(part: Part) -> Part:
    return part.take(torch.randperm(len(part), generator=torch.Generator().manual_seed(0)))


def _checksum_notes(of: ImageSet, folder: Path) -> list[str]:
    """Whether the official files, as far as they exist, have the published MD5."""
    same = [_md5(folder / file.name) == file.md5 for file in of.files if (folder / file.name).exists()]
    if not all(same):
        return [f"MD5 not as published: {same.count(False)} of {len(of.files)} files"]
    return ["MD5 as published"] if len(same) == len(of.files) > 0 else []


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read_parts(of: ImageSet, folder: Path) -> tuple[dict[str, Part], list[str]]:
    """The parts that the files have, in the order of the files, and notes."""
    notes = [of.note] if of.note else []
    found = {}
    for part, names in of.images.items():
        if of.archive:
            images, labels = _read_npz(of, folder / of.archive, part, names[0])
        else:
            pattern = _first_existing(of, folder, names)
            images, labels = read_idx(_idx_path(folder, pattern, "images")), read_idx(_idx_path(folder, pattern, "labels"))
            notes += [of.file_notes[pattern]] if pattern in of.file_notes else []
        labels_N = labels.astype(np.int64).reshape(-1) - of.first_label
        if len(images) != len(labels_N) or not len(images):
            raise DataError(f"{of.name}: {part} has {len(images)} images and {len(labels_N)} labels in {folder}.")
        if labels_N.min() < 0 or labels_N.max() >= of.classes:
            low, high = labels_N.min() + of.first_label, labels_N.max() + of.first_label
            expected = f"{of.first_label} to {of.first_label + of.classes - 1}"
            raise DataError(f"{of.name}: labels of {part} are from {low} to {high} in {folder}, not within {expected}.")
        if images.ndim not in (3, 4) or images.dtype != np.uint8:
            raise DataError(
                f"{of.name}: images of {part} in {folder} must be bytes [N, S, S] or [N, S, S, 3], found {images.dtype} {images.shape}."
            )
        if of.is_transposed:
            images = images.swapaxes(1, 2)
        found[part] = Part(_to_pixels(images), torch.from_numpy(labels_N))
    return found, notes


def _first_existing(of: ImageSet, folder: Path, patterns: tuple[str, ...]) -> str:
    """The first pattern of a pair of idx files whose images exist."""
    for pattern in patterns:
        if _idx_path(folder, pattern, "images").exists():
            return pattern
    files = ", ".join(pattern.replace("*", "images").replace("#", "3") for pattern in patterns)
    raise DataError(f"{of.name}: {folder} has none of {files}, with or without .gz.")


def _idx_path(folder: Path, pattern: str, what: str) -> Path:
    """The file of "images" or "labels"; with .gz, if the uncompressed one does not exist."""
    path = folder / pattern.replace("*", what).replace("#", "3" if what == "images" else "1")
    return path if path.exists() else path.with_name(path.name + ".gz")


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Reads an idx file of bytes, optionally compressed with gzip (the format of MNIST).

    Raises:
        DataError: If the file is missing, damaged, or of another type.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged or not a gzip file: {error}.") from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise DataError(f"{path} is not an idx file of bytes: it starts with {content[:4].hex() or 'nothing'}, not 000008.")
    start = 4 + 4 * content[3]  # of the values, after the length of each axis
    if len(content) < start:
        raise DataError(f"{path} ends within its header: it has {len(content)} bytes.")
    shape = tuple(int(n) for n in np.frombuffer(content[4:start], dtype=">u4"))
    values = np.frombuffer(content, dtype=np.uint8, offset=start)
    if len(values) != math.prod(shape):
        raise DataError(f"{path} has {len(values)} values, but its header says {' x '.join(map(str, shape))}.")
    return values.reshape(shape)


def _read_npz(of: ImageSet, path: Path, part: str, images: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    if not path.exists():
        raise DataError(f"{of.name}: {path} is missing.")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return arrays[images], arrays[of.labels.get(part, images.replace("images", "labels"))]
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{of.name}: {path} is damaged or lacks {images} or its labels: {error}.") from error


def _to_pixels(images: NDArray[np.uint8]) -> Tensor:
    """uint8 [N, 784] of grey [N, S, S] or colour images [N, S, S, 3]."""
    if images.ndim == 4:
        images = np.rint(images @ _GREY).astype(np.uint8)
    found = torch.from_numpy(np.array(images, order="C"))
    if found.shape[1:] != (SIDE, SIDE):
        resized = F.interpolate(found.unsqueeze(1).float(), (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
        found = resized.round().clamp(0, 255).to(torch.uint8).squeeze(1)
    return found.flatten(1)
