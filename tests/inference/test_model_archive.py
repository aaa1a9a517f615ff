"""The manifest of a model file: damage anywhere is noticed; older and newer formats."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nemo_cmim.cli import main
from nemo_cmim.errors import CheckpointError
from nemo_cmim.inference.model_file import CARD, CONFIG, VOCABULARY, WEIGHTS, ModelFile, read_model_file, write_model_file
from tests.inference.archives import MANIFEST, manifest, members, pack, pack_as_is, unpack
from tests.inference.conftest import random_model

BLOCK = 512  # of a tar file


@pytest.fixture(scope="module")
def content() -> ModelFile:
    return dataclasses.replace(random_model(), card="# A card\n")


@pytest.fixture(scope="module")
def file(content: ModelFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "a.nemo"
    write_model_file(path, content)
    return path


def is_equal(a: ModelFile, b: ModelFile) -> bool:
    return (
        (a.config, a.vocabulary, a.card, a.weights.keys()) == (b.config, b.vocabulary, b.card, b.weights.keys())
        and all(a.weights[name].dtype == weight.dtype for name, weight in b.weights.items())
        and all(torch.equal(a.weights[name], weight) for name, weight in b.weights.items())
    )  # fmt: skip


def mutations(data: bytes, places: list[int], seed: int) -> list[bytes]:
    """Damaged copies of a file: each has one change, half of them near one of the `places`."""
    draw = random.Random(seed)
    near = min(draw.choice(places) + draw.randrange(BLOCK), len(data) - 1)
    at = draw.choice((near, draw.randrange(len(data))))
    flipped = bytearray(data)
    flipped[at] ^= 1 << draw.randrange(8)
    overwritten = bytearray(data)
    overwritten[at : at + 8] = draw.randbytes(len(overwritten[at : at + 8]))
    start, length = at - at % BLOCK, draw.choice((1, BLOCK, 20 * BLOCK, draw.randrange(1, 4 * BLOCK)))
    other = draw.randrange(len(data) // BLOCK + 1) * BLOCK
    a, b = sorted((start, other))
    neighbours = bytearray(data)  # the checksum of a tar header is the sum of its bytes, so it does not notice an exchange
    neighbours[at : at + 2] = neighbours[at : at + 2][::-1]
    return [
        bytes(flipped),
        bytes(overwritten),
        bytes(neighbours),
        data[:at],
        data[:at] + data[at + length :],
        data[:start] + data[start + length - length % BLOCK :],
        data[:at] + draw.randbytes(length) + data[at:],
        data[:start] + data[start : start + BLOCK] + data[start:],
        data[:a] + data[b : b + BLOCK] + data[a + BLOCK : b] + data[a : a + BLOCK] + data[b + BLOCK :],
        draw.randbytes(length) + data,
        data + draw.randbytes(length),
    ]


def check_refused_or_equal(path: Path, content: ModelFile) -> bool:
    """Whether the model was refused. An error must name the file."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*has no checksums")  # damage to the name of the manifest, and to nothing else
        try:
            read = read_model_file(path)
        except CheckpointError as error:
            assert str(path) in str(error)
            return True
    assert is_equal(read, content)
    return False


def test_a_damaged_archive_is_refused_or_has_equal_content(file: Path, content: ModelFile, tmp_path: Path) -> None:
    with tarfile.open(file) as archive:
        places = [place for entry in archive for place in (entry.offset, entry.offset_data + entry.size)]
    path, refused, copies = tmp_path / "damaged.nemo", 0, 0
    for seed in range(15):
        for damaged in mutations(file.read_bytes(), places, seed):
            path.write_bytes(damaged)
            refused += check_refused_or_equal(path, content)
            copies += 1
    assert copies == 165 and refused > copies / 2


def test_a_damaged_folder_is_refused_or_has_equal_content(file: Path, content: ModelFile, tmp_path: Path) -> None:
    names = [MANIFEST, CONFIG, VOCABULARY, WEIGHTS, CARD]
    with tarfile.open(file) as archive:
        complete = {name: archive.extractfile(name).read() for name in names}  # type: ignore[union-attr]
    folder = unpack(tmp_path / "model", complete)
    assert not check_refused_or_equal(folder, content)
    for name in names:
        (folder / name).unlink()
        assert check_refused_or_equal(folder, content) == (name != MANIFEST)
        refused, copies = 0, 0
        for seed in range(3):
            for damaged in mutations(complete[name], [0, len(complete[name]) - 1], seed):
                if damaged != complete[name]:
                    (folder / name).write_bytes(damaged)
                    refused += check_refused_or_equal(folder, content)
                    copies += 1
        assert copies > 20 and (refused == copies or name == MANIFEST)
        (folder / name).write_bytes(complete[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: files.pop(VOCABULARY), f"is incomplete: {VOCABULARY} is missing"),
        (lambda files: files.pop(CARD), f"is incomplete: {CARD} is missing"),
        (lambda files: files.update({CARD: b"# A lard\n"}), f"the checksum of {CARD} does not match"),
        (lambda files: files.update({CONFIG: files[CONFIG] + b"\n"}), rf"is damaged: {CONFIG} has \d+ bytes instead of \d+"),
        (lambda files: files.update({MANIFEST: files[MANIFEST].replace(b"true", b"false")}), f"checksum of {MANIFEST} does not"),
        (lambda files: files.update({MANIFEST: b"[1]"}), f"{MANIFEST} cannot be read"),
        (lambda files: files.update({MANIFEST: b"\xff{"}), f"{MANIFEST} cannot be read"),
        (lambda files: files.update({MANIFEST: b'{"a":' * 100_000}), f"{MANIFEST} cannot be read"),
        (lambda files: files.update({MANIFEST: b'{"format": 1}'}), r"has the format 1, but .* convert a training checkpoint"),
        (
            lambda files: files.update({MANIFEST: manifest(files, format="nemo_cmim model 3")}),
            r"has the format 'nemo_cmim model 3', but nemo_cmim .* reads 'nemo_cmim model 2'. Update nemo_cmim",
        ),
        (lambda files: files.update({MANIFEST: manifest(files, members={CONFIG: 3})}), f"{MANIFEST} cannot be read"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_folder", [False, True], ids=["archive", "folder"])
def test_members_that_are_not_those_of_the_manifest_raise(
    file: Path, tmp_path: Path, change: Callable[[dict[str, bytes]], object], message: str, is_folder: bool
) -> None:
    files = members(file)
    files = {MANIFEST: manifest(files), **files}
    change(files)
    path = unpack(tmp_path / "model", files) if is_folder else pack_as_is(tmp_path / "b.nemo", files)
    with pytest.raises(CheckpointError, match=f"{re.escape(str(path))}.*{message}"):
        read_model_file(path)


def test_a_card_that_the_manifest_does_not_list_raises(model_file: Path, tmp_path: Path) -> None:
    files = members(model_file)
    files = {MANIFEST: manifest(files), **files, CARD: b"# Mine"}
    for path in (unpack(tmp_path / "model", files), pack_as_is(tmp_path / "b.nemo", files)):
        with pytest.raises(CheckpointError, match=rf"contains '{CARD}', which is not in its manifest\.json.*Remove it"):
            read_model_file(path)


def test_a_folder_may_have_other_files(file: Path, content: ModelFile, tmp_path: Path) -> None:
    files = members(file)
    folder = unpack(tmp_path / "model", {MANIFEST: manifest(files), **files, "README.md": b"Notes"})
    assert is_equal(read_model_file(folder), content)


@pytest.mark.parametrize("is_folder", [False, True], ids=["archive", "folder"])
def test_a_member_of_a_newer_version_is_ignored_if_it_is_optional(
    file: Path, content: ModelFile, tmp_path: Path, is_folder: bool
) -> None:
    files = {**members(file), "engines.json": b"{}"}

    def write(content: dict[str, bytes]) -> Path:
        name = str(len(list(tmp_path.iterdir())))
        return unpack(tmp_path / name, content) if is_folder else pack_as_is(tmp_path / name, content)

    optional = {MANIFEST: manifest(files, optional=(CARD, "engines.json")), **files}
    assert is_equal(read_model_file(write(optional)), content)
    with pytest.raises(CheckpointError, match=r"contains 'engines\.json', which this version .* cannot read\. A newer version"):
        read_model_file(write({MANIFEST: manifest(files), **files}))
    with pytest.raises(CheckpointError, match=r"the checksum of engines\.json does not match"):
        read_model_file(write(optional | {"engines.json": b"[]"}))


def test_a_manifest_does_not_reach_outside_of_a_folder(file: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"x")
    files = {**members(file), "../outside": b"x"}
    listed = manifest(files, optional=("../outside", CARD))
    folder = unpack(tmp_path / "model", {MANIFEST: listed, **members(file)})
    with pytest.raises(CheckpointError, match=r"\.\./outside is missing"):
        read_model_file(folder)


def test_the_manifest_comes_first_and_marks_only_the_card_as_optional(file: Path) -> None:
    with tarfile.open(file) as archive:
        assert archive.getnames() == [MANIFEST, CONFIG, VOCABULARY, WEIGHTS, CARD]
        found = json.load(archive.extractfile(MANIFEST))  # type: ignore[arg-type]
    assert found == json.loads(manifest(members(file)))
    assert [name for name, entry in found["members"].items() if entry["optional"]] == [CARD]


def test_a_file_without_manifest_loads_with_a_warning_and_can_be_converted(
    file: Path, content: ModelFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, folder = pack_as_is(tmp_path / "old.nemo", members(file)), unpack(tmp_path / "old", members(file))
    for path in (old, folder):
        new = tmp_path / "new.nemo"
        with pytest.warns(UserWarning, match=re.escape(f"{path} has no checksums")) as caught:
            assert is_equal(read_model_file(path), content)
        assert len(caught) == 1 and f"nemo-cmim export {path} -o NEW.nemo" in str(caught[0].message)
        with pytest.warns(UserWarning, match="has no checksums"):
            assert main(["export", str(path), "-o", str(new), "--overwrite"]) == 0
        assert capsys.readouterr().out == f"{new}: converted {path}\n"
        assert new.read_bytes() == file.read_bytes()


def test_compressed_archives_are_checked(file: Path, content: ModelFile, tmp_path: Path) -> None:
    for kind in ("gz", "xz"):
        path = pack(tmp_path / f"a.{kind}", members(file), mode=f"w:{kind}")
        assert not check_refused_or_equal(path, content)
        places = [0, path.stat().st_size - BLOCK]
        for damaged in mutations(path.read_bytes(), places, seed=0):
            path.write_bytes(damaged)
            check_refused_or_equal(path, content)
