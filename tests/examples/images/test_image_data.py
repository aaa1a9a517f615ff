"""Reading of image sets: files made by the test, and those of the shared folder if it exists."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from examples.images.data import Part, load, load_all, pixels, read_idx
from examples.images.sets import PAPER, SETS, RemoteFile
from nemo_cmim.errors import DataError
from tests.examples.images.small_sets import write_small_set


def write_idx(path: Path, values: np.ndarray) -> None:
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    content = header + values.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_set(folder: Path, pattern: str, count: int, first_label: int = 0) -> np.ndarray:
    images = np.random.default_rng(count).integers(0, 256, (count, 28, 28))
    write_idx(folder / pattern.format("images", 3), images)
    write_idx(folder / pattern.format("labels", 1), np.arange(count) % 4 + first_label)
    return images


def test_idx_files_give_official_parts_and_five_percent_for_validation(tmp_path: Path) -> None:
    folder = tmp_path / "sets#1*"  # the characters of the patterns of file names
    train = write_set(folder / "mnist", "train-{}-idx{}-ubyte.gz", 100)
    test = write_set(folder / "mnist", "t10k-{}-idx{}-ubyte", 20)
    found = load("mnist", folder)
    assert (len(found.train), len(found.valid), len(found.test)) == (95, 5, 20)
    assert "5% of train drawn for validation" in found.note
    both = torch.cat([found.train.images_NP, found.valid.images_NP])
    assert sorted(map(tuple, both.tolist())) == sorted(map(tuple, train.reshape(100, -1).tolist()))
    row = next(i for i, image in enumerate(test) if (image.reshape(-1) == found.test.images_NP[0].numpy()).all())
    assert found.test.labels_N[0] == row % 4  # labels stay with their images
    assert torch.equal(load("mnist", folder).valid.images_NP, found.valid.images_NP)
    values = pixels(found.test.images_NP)
    assert values.dtype == torch.float32 and values.min() >= 0 and values.max() == 1


def test_emnist_is_turned_upright_and_labels_start_at_zero(tmp_path: Path) -> None:
    for split in ("train", "test"):
        images = write_set(tmp_path / "emnist", f"gzip/emnist-letters-{split}-{{}}-idx{{}}-ubyte.gz", 40, first_label=1)
    found = load("emnist-letters", tmp_path)
    assert found.test.labels_N.min() == 0 and found.test.labels_N.max() == 3
    upright = {tuple(image.T.reshape(-1)) for image in images}
    assert {tuple(row) for row in found.test.images_NP.tolist()} == upright


def test_npz_files_keep_their_validation_part_and_colours_become_grey(tmp_path: Path) -> None:
    arrays = {}
    for part, count in (("train", 8), ("val", 3), ("test", 4)):
        arrays[f"{part}_images"] = np.full((count, 28, 28, 3), (100, 150, 200), np.uint8)
        arrays[f"{part}_labels"] = np.arange(count, dtype=np.uint8)[:, None] % 2
    (tmp_path / "retinamnist").mkdir()
    np.savez(tmp_path / "retinamnist" / "retinamnist.npz", **arrays)
    found = load("retinamnist", tmp_path)
    assert (len(found.train), len(found.valid), len(found.test)) == (8, 3, 4)
    assert set(found.train.images_NP.unique().tolist()) == {round(0.299 * 100 + 0.587 * 150 + 0.114 * 200)}


def test_a_set_without_a_split_is_divided_and_a_small_one_is_resized(tmp_path: Path) -> None:
    (tmp_path / "dig-mnist").mkdir()
    images = np.zeros((100, 14, 14), np.uint8)
    images[:, :7] = 255
    np.savez(tmp_path / "dig-mnist" / "dig_mnist.npz", images=images, labels=np.zeros((100, 1), np.uint8))
    found = load("dig-mnist", tmp_path)
    assert (len(found.train), len(found.valid), len(found.test)) == (76, 4, 20)
    assert "20% drawn for test" in found.note
    rows = found.train.images_NP[0].view(28, 28)
    assert (rows[:13] == 255).all() and (rows[15:] == 0).all()


def test_notes_say_which_files_are_not_the_official_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path / "fashion-mnist", "train20k-{}-idx{}-ubyte.gz", 40)
    write_set(tmp_path / "fashion-mnist", "t10k-{}-idx{}-ubyte", 20)
    assert load("fashion-mnist", tmp_path).note.startswith("the first 20,000 training images only; 5% of train")
    write_small_set(tmp_path, "breastmnist")
    assert load("breastmnist", tmp_path).note == "1 image is in both train and test; MD5 not as published: 1 of 1 files"
    md5 = hashlib.md5((tmp_path / "breastmnist" / "breastmnist.npz").read_bytes()).hexdigest()
    published = dataclasses.replace(SETS["breastmnist"], files=(RemoteFile("", md5, "breastmnist.npz"),))
    monkeypatch.setitem(SETS, "breastmnist", published)
    assert load("breastmnist", tmp_path).note == "1 image is in both train and test; MD5 as published"


def test_sets_of_different_images_or_labels_have_different_checksums(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_small_set(tmp_path / str(seed), "breastmnist", seed)
    first, again, other = (load("breastmnist", tmp_path / seed) for seed in ("0", "0", "1"))
    assert first.sha256 == again.sha256 != other.sha256
    labels = Part(first.test.images_NP, 1 - first.test.labels_N)
    assert dataclasses.replace(first, test=labels).sha256 != first.sha256


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an idx file"),
        (b"<html>", "not an idx file"),
        (struct.pack(">BBBBI", 0, 0, 8, 1, 5) + b"123", "3 values"),
        (b"\0\0\x08\x03", "ends within its header"),
        (b"\0\0\x08\x03\0\0", "ends within its header"),
    ],
)
def test_damaged_idx_files_are_errors(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_idx(path)


def test_damaged_gzip_files_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    write_idx(path, np.zeros((2, 28, 28)))
    content = path.read_bytes()
    for damaged in (
        content[:10] + bytes([content[10] | 6]) + content[11:],  # the first block has a type that does not exist
        content[:-5] + bytes([content[-5] ^ 1]) + content[-4:],  # another checksum
        content[:-9],
        b"no gzip",
    ):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="is damaged or not a gzip file"):
            read_idx(path)


@pytest.mark.parametrize("content", [b"", b"no", b"PK\x03\x04"])
def test_damaged_npz_files_are_errors(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "octmnist").mkdir()
    (tmp_path / "octmnist" / "octmnist.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"octmnist: .* is damaged"):
        load("octmnist", tmp_path)


def test_labels_that_are_not_classes_are_errors(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_set(tmp_path / "emnist", f"emnist-letters-{split}-{{}}-idx{{}}-ubyte", 40)
    with pytest.raises(DataError, match=r"emnist-letters: labels of train are from 0 to 3 in .*, not within 1 to 26"):
        load("emnist-letters", tmp_path)


def test_images_that_are_not_bytes_are_errors(tmp_path: Path) -> None:
    (tmp_path / "octmnist").mkdir()
    arrays = {
        f"{part}_{what}": np.zeros((4, 28, 28) if what == "images" else 4)
        for part in ("train", "val", "test")
        for what in ("images", "labels")
    }
    np.savez(tmp_path / "octmnist" / "octmnist.npz", **arrays)
    with pytest.raises(DataError, match=r"octmnist: images of train in .*octmnist must be bytes .* found float64 \(4, 28, 28\)"):
        load("octmnist", tmp_path)


def test_images_without_two_axes_are_errors(tmp_path: Path) -> None:
    for what in ("images-idx3", "labels-idx1"):
        write_idx(tmp_path / "emnist" / "gzip" / f"emnist-letters-train-{what}-ubyte.gz", np.ones(40))
    with pytest.raises(DataError, match=r"emnist-letters: images of train in .* found uint8 \(40,\)"):
        load("emnist-letters", tmp_path)


def test_missing_sets_are_skipped_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mnist: .* has none of train-images-idx3-ubyte, with or without .gz"):
        load("mnist", tmp_path)
    with pytest.raises(DataError, match="Unknown image set 'mnits'"):
        load("mnits", tmp_path)
    write_small_set(tmp_path, "breastmnist")
    said: list[str] = []
    assert [images.name for images in load_all(("octmnist", "breastmnist"), tmp_path, said.append)] == ["breastmnist"]
    assert len(said) == 1 and said[0].startswith("skipped octmnist: octmnist: ") and "octmnist.npz is missing" in said[0]


def test_table_3_has_15_sets_with_addresses_and_checksums() -> None:
    assert len(PAPER) == 15 and all(one.files and one.paper for one in PAPER)
    assert all(len(file.md5) == 32 and file.url.startswith("http") for one in PAPER for file in one.files)


def test_sets_of_the_shared_folder_have_their_documented_counts(shared_data: Path) -> None:
    folder = shared_data / "images"
    present = [name for name in SETS if (folder / SETS[name].place).is_dir() and name != "mnist"]
    assert len(present) >= 8
    notes = {}
    for name in present:
        found, of = load(name, folder), SETS[name]
        counts = [len(found.train), len(found.valid), len(found.test)]
        expected = sum(of.documented) - (40000 if name == "fashion-mnist" else 0)
        assert sum(counts) == expected, name
        assert found.train.labels_N.unique().tolist() == list(range(of.classes)) == found.test.labels_N.unique().tolist(), name
        notes[name] = found.note
    assert (
        notes["breastmnist"] == "1 image is in both train and test; MD5 as published" and notes["retinamnist"] == "MD5 as published"
    )
    assert notes["pneumoniamnist"] == "8 images are in both train and validation; MD5 not as published: 1 of 1 files"
