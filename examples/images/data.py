"""Reads image sets from idx and npz files: one channel, 28 x 28, and parts for training, validation and test.

N images, S side in pixels.
"""

from __future__ import annotations

import gzip
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nemo_cmim.errors import DataError

from .sets import SETS, ImageSet

__all__ = ["Images", "Part", "load", "pixels", "read_idx"]

DEFAULT_FOLDER = Path("../shared/data/images")
SIDE = 28
VALIDATION = 0.05  # share of train, where a set has no validation images (Sec. D.1)
TEST = 0.2  # share of all images, where a set has no split
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


@dataclass(frozen=True)
class Images:
    """A set with its parts. `note` tells where it differs from the official set."""

    name: str
    train: Part
    valid: Part
    test: Part
    note: str


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
        DataError: If the set is unknown, a file of it is missing or damaged, or images and labels do not match.
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
    return Images(name, shuffled["train"], shuffled["valid"], shuffled["test"], "; ".join(notes))


def _divided(part: Part, share: float) -> tuple[Part, Part]:
    count = math.ceil(share * len(part))
    return part.take(slice(count)), part.take(slice(count, None))


def _shuffled(part: Part) -> Part:
    return part.take(torch.randperm(len(part), generator=torch.Generator().manual_seed(0)))


def _read_parts(of: ImageSet, folder: Path) -> tuple[dict[str, Part], list[str]]:
    """The parts that the files have, in the order of the files, and notes."""
    notes = [] if of.note.startswith(("unpack", "train20k")) or not of.note else [of.note]
    found = {}
    lowest = None
    for part, candidates in of.images.items():
        if of.archive:
            images, labels = _read_npz(of, folder / of.archive, part, candidates[0])
        else:
            place = _first_existing(of, folder, candidates)
            images, labels = (_read_idx_pair(place, what, number) for what, number in (("images", 3), ("labels", 1)))
            if "train20k" in place:
                notes.append(of.note.removeprefix("train20k: "))
        if len(images) != len(labels) or not len(images):
            raise DataError(f"{of.name}: {part} has {len(images)} images and {len(labels)} labels in {folder}.")
        if of.is_transposed:
            images = images.swapaxes(1, 2)
        lowest = int(labels.min()) if lowest is None else lowest  # labels of EMNIST letters start at 1
        found[part] = Part(_to_pixels(images), torch.from_numpy(labels.astype(np.int64).reshape(-1)) - lowest)
    return found, notes


def _first_existing(of: ImageSet, folder: Path, candidates: tuple[str, ...]) -> str:
    """The pattern of the first pair of idx files that exists."""
    for pattern in candidates:
        images = folder / pattern.replace("*", "images").replace("#", "3")
        for path in (images, images.with_name(images.name + ".gz")):
            if path.exists():
                return str(folder / pattern) + ("" if path == images else ".gz")
    raise DataError(
        f"{of.name}: {folder} has none of {', '.join(c.replace('*', 'images').replace('#', '3') for c in candidates)}[.gz]."
    )


def _read_idx_pair(place: str, what: str, number: int) -> NDArray[np.uint8]:
    return read_idx(Path(place.replace("*", what).replace("#", str(number))))


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Reads an idx file of bytes, optionally compressed with gzip (the format of MNIST).

    Raises:
        DataError: If the file is missing, damaged, or of another type.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing.") from error
    except (OSError, EOFError) as error:
        raise DataError(f"{path} is damaged or not a gzip file: {error}.") from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise DataError(f"{path} is not an idx file of bytes: it starts with {content[:4].hex() or 'nothing'}, not 000008.")
    axes = content[3]
    shape = tuple(int(n) for n in np.frombuffer(content[4 : 4 + 4 * axes], dtype=">u4"))
    values = np.frombuffer(content, dtype=np.uint8, offset=min(len(content), 4 + 4 * axes))
    if len(values) != math.prod(shape):
        raise DataError(f"{path} has {len(values)} values, but its header says {' x '.join(map(str, shape))}.")
    return values.reshape(shape)


def _read_npz(of: ImageSet, path: Path, part: str, images: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    if not path.exists():
        raise DataError(f"{of.name}: {path} is missing.")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[images], arrays[of.labels.get(part, images.replace("images", "labels"))]
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{of.name}: {path} is damaged or lacks {images} or its labels: {error}.") from error


def _to_pixels(images: NDArray[np.uint8]) -> Tensor:
    """uint8 [N, 784] of grey [N, S, S] or colour images [N, S, S, 3]."""
    if images.ndim == 4:
        images = np.rint(images @ _GREY).astype(np.uint8)
    if images.ndim != 3 or images.dtype != np.uint8:
        raise DataError(f"Images must be bytes [N, S, S] or [N, S, S, 3], found {images.dtype} {images.shape}.")
    found = torch.from_numpy(np.array(images, order="C"))
    if found.shape[1:] != (SIDE, SIDE):
        resized = F.interpolate(found.unsqueeze(1).float(), (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
        found = resized.round().clamp(0, 255).to(torch.uint8).squeeze(1)
    return found.flatten(1)
