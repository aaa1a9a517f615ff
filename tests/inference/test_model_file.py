"""Model files: exact round trip, and files that are damaged, malicious or of another project."""

from __future__ import annotations

import dataclasses
import io
import os
import pickle
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from nemo_cmim.config import DataConfig, HeadsConfig
from nemo_cmim.errors import CheckpointError
from nemo_cmim.inference.model_file import CONFIG, VOCABULARY, WEIGHTS, ModelFile, read_model_file, write_model_file
from nemo_cmim.observed import PROPERTIES, PropertyTable
from tests.inference.archives import MANIFEST, manifest, members, pack, pack_as_is, unpack
from tests.inference.conftest import random_model


class Bomb:
    """Creates a file when unpickled, which shows that code ran."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


def test_round_trip_is_exact_and_bytes_are_reproducible(tmp_path: Path) -> None:
    checkpoint = dataclasses.replace(random_model(), card="# A card")
    write_model_file(tmp_path / "a.nemo", checkpoint)
    read = read_model_file(tmp_path / "a.nemo")
    assert read.config == checkpoint.config and read.vocabulary == checkpoint.vocabulary and read.card == "# A card"
    assert all(torch.equal(read.weights[name], weight) for name, weight in checkpoint.weights.items())
    write_model_file(tmp_path / "b.nemo", read)
    assert (tmp_path / "a.nemo").read_bytes() == (tmp_path / "b.nemo").read_bytes()
    assert {p.name for p in tmp_path.iterdir()} == {"a.nemo", "b.nemo"}


def with_properties() -> ModelFile:
    names = ("MolWt", "TPSA")
    table = PropertyTable.fit(names, 8, np.random.default_rng(0).normal(size=(300, 2)))
    return dataclasses.replace(random_model(heads=HeadsConfig(sources="hz", values=names, bits=8)), properties=table)


def test_the_table_of_observed_properties_is_stored(tmp_path: Path) -> None:
    content = with_properties()
    write_model_file(tmp_path / "a.nemo", content)
    read = read_model_file(tmp_path / "a.nemo")
    assert read.properties == content.properties and read.config == content.config
    assert all(torch.equal(read.weights[name], weight) for name, weight in content.weights.items())


def test_a_table_of_other_properties_raises(tmp_path: Path) -> None:
    content = with_properties()
    assert content.properties is not None
    for change in ({"values": ("MolWt", "qed")}, {"bits": 16}):
        other = dataclasses.replace(content, properties=dataclasses.replace(content.properties, **change))  # type: ignore[arg-type]
        with pytest.raises(
            CheckpointError, match=r"predict 2 properties and 8 bits, but their table properties\.json is that of 2"
        ):
            write_model_file(tmp_path / "a.nemo", other)
    write_model_file(tmp_path / "a.nemo", content)
    files = members(tmp_path / "a.nemo")
    with pytest.raises(CheckpointError, match=r"their table properties\.json is missing"):
        read_model_file(pack(tmp_path / "b.nemo", {name: data for name, data in files.items() if name != PROPERTIES}))
    bits = files[PROPERTIES].replace(b'"bits": 8', b'"bits": Infinity')
    for damaged in (b"[]", b"{", b"\xff", bits, b"[" * 100_000, pickle.dumps(3)):
        with pytest.raises(CheckpointError, match=r"properties\.json is damaged"):
            read_model_file(pack(tmp_path / "b.nemo", files | {PROPERTIES: damaged}))


def test_half_precision_storage_halves_the_file(tmp_path: Path) -> None:
    write_model_file(tmp_path / "a.nemo", random_model())
    write_model_file(tmp_path / "b.nemo", random_model(), dtype=torch.float16)
    weights = [len(members(tmp_path / name)[WEIGHTS]) for name in ("a.nemo", "b.nemo")]
    assert weights[1] < 0.6 * weights[0]


def test_paths_of_this_machine_are_not_written(tmp_path: Path) -> None:
    checkpoint = random_model()
    config = dataclasses.replace(checkpoint.config, train_ds=DataConfig(folder="/home/me/data"))
    write_model_file(tmp_path / "a.nemo", dataclasses.replace(checkpoint, config=config))
    assert b"/home/me" not in (tmp_path / "a.nemo").read_bytes()


def test_folders_and_compressed_archives_can_be_read(model_file: Path, tmp_path: Path) -> None:
    content = members(model_file)
    content = {MANIFEST: manifest(content)} | content
    own = tarfile.TarInfo("./")
    own.type = tarfile.DIRTYPE
    dotted = {f"./{name}": data for name, data in content.items()}
    packed = [pack_as_is(tmp_path / f"{kind}.nemo", dotted, own, mode=f"w:{kind}") for kind in ("gz", "xz", "bz2")]
    last = pack_as_is(tmp_path / "last.nemo", dict(reversed(content.items())))
    for path in (unpack(tmp_path / "folder", content), *packed, last):
        assert read_model_file(path).config == read_model_file(model_file).config


def test_a_failed_write_keeps_the_old_file(model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.nemo").write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "addfile", full)
    with pytest.raises(OSError, match="No space"):
        write_model_file(tmp_path / "a.nemo", random_model())
    assert [p.name for p in tmp_path.iterdir()] == ["a.nemo"]
    assert (tmp_path / "a.nemo").read_bytes() == b"old"


def test_missing_empty_truncated_and_other_files_raise(model_file: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no model at"):
        read_model_file(tmp_path / "none.nemo")
    with pytest.raises(CheckpointError, match=r"does not contain model_config\.yaml"):
        read_model_file(tmp_path)
    complete = model_file.read_bytes()
    for i, content in enumerate(
        (b"", b"not a tar archive" * 100, complete[:700], complete[: len(complete) // 2], complete[:-20_000])
    ):
        path = tmp_path / f"{i}.nemo"
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=re.escape(str(path))):
            read_model_file(path)


def test_pickled_weights_of_nemo_are_not_opened(tmp_path: Path) -> None:
    mark = tmp_path / "code_ran"
    buffer = io.BytesIO()
    torch.save(Bomb(mark), buffer)
    path = pack(tmp_path / "molmim.nemo", {CONFIG: b"micro_batch_size: 4\n", "model_weights.ckpt": buffer.getvalue()})
    with pytest.raises(CheckpointError, match=r"pickled and are not opened.*contain model_weights.safetensors"):
        read_model_file(path)
    assert not mark.exists()


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, VOCABULARY])
def test_a_pickle_in_place_of_a_member_is_not_run(model_file: Path, tmp_path: Path, name: str) -> None:
    mark = tmp_path / "code_ran"
    path = pack(tmp_path / "a.nemo", members(model_file) | {name: pickle.dumps(Bomb(mark))})
    with pytest.raises(CheckpointError, match=name):
        read_model_file(path)
    assert not mark.exists()


def test_yaml_cannot_create_objects(model_file: Path, tmp_path: Path) -> None:
    mark = tmp_path / "code_ran"
    hostile = f"network: !!python/object/apply:os.system ['touch {mark}']\n".encode()
    with pytest.raises(CheckpointError, match="not plain YAML"):
        read_model_file(pack(tmp_path / "a.nemo", members(model_file) | {CONFIG: hostile}))
    assert not mark.exists()


@pytest.mark.parametrize("name", ["../outside.txt", "/tmp/outside_of_nemo_cmim.txt", f"../{CONFIG}"])
def test_members_with_unusual_paths_are_not_extracted(model_file: Path, tmp_path: Path, name: str) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    entry = tarfile.TarInfo(name)
    entry.size = 4
    with pytest.raises(CheckpointError, match=re.escape(f"contains {name!r}, which is not in its manifest.json")):
        read_model_file(pack(inner / "a.nemo", members(model_file), entry))
    with pytest.warns(UserWarning, match="no checksums"):
        read_model_file(pack_as_is(inner / "a.nemo", members(model_file), entry))
    assert [p.name for p in tmp_path.rglob("*")] == ["inner", "a.nemo"]
    assert not Path("/tmp/outside_of_nemo_cmim.txt").exists()


def test_links_are_not_followed(model_file: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    link = tarfile.TarInfo(VOCABULARY)
    link.type, link.linkname = tarfile.SYMTYPE, str(secret)
    content = {name: data for name, data in members(model_file).items() if name != VOCABULARY}
    with pytest.raises(CheckpointError, match=f"{VOCABULARY} is a link"):
        read_model_file(pack(tmp_path / "a.nemo", content, link))


def test_a_too_large_member_raises(model_file: Path, tmp_path: Path) -> None:
    entry = tarfile.TarInfo(CONFIG)
    entry.size = 2**20 + 1
    with pytest.raises(CheckpointError, match="has 1,048,577 bytes, more than the maximum of 65,536"):
        read_model_file(pack(tmp_path / "a.nemo", {}, entry))


def test_a_small_file_with_a_large_content_raises(model_file: Path, tmp_path: Path) -> None:
    entry = tarfile.TarInfo("notes.txt")
    entry.size = 2**24
    for extra in ([entry], [tarfile.TarInfo(f"{i}.txt") for i in range(1001)]):
        with pytest.raises(CheckpointError, match="implausible size or number of members"):
            read_model_file(pack(tmp_path / "a.nemo", members(model_file), *extra, mode="w:gz"))


def test_a_sparse_member_raises(tmp_path: Path) -> None:
    """A header of 512 bytes that stands for a gigabyte of zeros."""
    entry = tarfile.TarInfo(WEIGHTS)
    entry.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(entry.tobuf(format=tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (2**30, 0)  # the only block of data: empty, at the end
    header[483:495] = b"%011o\0" % 2**30
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.nemo").write_bytes(bytes(header) + bytes(10_240))
    with tarfile.open(tmp_path / "a.nemo") as archive:
        assert archive.getmember(WEIGHTS).size == 2**30
    with pytest.raises(CheckpointError, match="implausible size or number of members"):
        read_model_file(tmp_path / "a.nemo")


def test_a_repeated_member_raises(model_file: Path, tmp_path: Path) -> None:
    entry = tarfile.TarInfo(CONFIG)
    entry.size = 3
    with pytest.raises(CheckpointError, match="twice"):
        read_model_file(pack(tmp_path / "a.nemo", members(model_file), entry))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (b"[1, 2]", "must be a mapping, found list"),
        (b"network: {hiden_size: 3}", "Unknown config key model.network.hiden_size. Did you mean"),
        (b"network: 3", "model.network must be a mapping"),
        (b"\xff\xfe\x00", "not plain YAML"),
        (b"network: {vocabulary_size: 524}", "the network has 524 tokens, but the vocabulary has 523"),
        (b"network: {hidden_size: 64}", "do not match the config"),
        (b"network: {encoder_layers: 1000000000}", "1000000006 layers need more than"),
        (b"a: &a [x]\nb: [*a, *a]", "contains YAML aliases"),
    ],
)
def test_a_config_that_does_not_match_raises(model_file: Path, tmp_path: Path, config: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=re.escape(message)):
        read_model_file(pack(tmp_path / "a.nemo", members(model_file) | {CONFIG: config}))


def test_weights_of_another_type_raise(model_file: Path, tmp_path: Path) -> None:
    weights = {name: weight.long() for name, weight in random_model().weights.items()}
    with pytest.raises(CheckpointError, match=r"has the type torch.int64; weights must be float32, float16 or bfloat16"):
        read_model_file(pack(tmp_path / "a.nemo", members(model_file) | {WEIGHTS: safetensors.torch.save(weights)}))


def test_missing_additional_and_reshaped_weights_raise(model_file: Path, tmp_path: Path) -> None:
    weights = dict(random_model().weights)
    missing = {k: v for k, v in weights.items() if k != "output_bias"}
    for changed in (missing, weights | {"output_bias": torch.zeros(3)}, weights | {"more": torch.zeros(3)}):
        data = safetensors.torch.save(changed)
        with pytest.raises(CheckpointError, match=r"the weights do not match the config: (output_bias|more) must have the shape"):
            read_model_file(pack(tmp_path / "a.nemo", members(model_file) | {WEIGHTS: data}))


def test_another_vocabulary_of_the_same_size_raises(model_file: Path, tmp_path: Path) -> None:
    own = random_model().vocabulary
    tokens = [*own.tokens[:6], *own.tokens[:5:-1]]
    other = dataclasses.replace(own, tokens=tuple(tokens)).dumps().encode()
    with pytest.raises(CheckpointError, match=f"trained with the vocabulary {own.fingerprint[:12]}"):
        read_model_file(pack(tmp_path / "a.nemo", members(model_file) | {VOCABULARY: other}))


@pytest.mark.parametrize(
    "size", ["hidden_size: 8000000000000000", "latents: 8000000000000000000000", "max_positions: 99999999999999999999"]
)
def test_impossible_sizes_raise(model_file: Path, tmp_path: Path, size: str) -> None:
    with pytest.raises(CheckpointError, match=r"sizes|match the config"):
        read_model_file(pack(tmp_path / "a.nemo", members(model_file) | {CONFIG: f"{{network: {{{size}}}}}".encode()}))


def test_others_may_read_a_model_file_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_model_file(tmp_path / "a.nemo", random_model())
    finally:
        os.umask(before)
    assert (tmp_path / "a.nemo").stat().st_mode & 0o777 == 0o644
