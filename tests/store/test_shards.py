"""One split over many shards on a disk: lookups, order, resuming, memory."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader

from nemo_cmim.config import AugmentationConfig, DataConfig
from nemo_cmim.errors import DataError
from nemo_cmim.loader.dataset import make_loader, make_validation_loader
from nemo_cmim.store import shards as shards_module
from nemo_cmim.store.token_store import TokenStore
from nemo_cmim.tokenizers.collate import collate
from nemo_cmim.types import MicroBatch
from tests.store.sharded import COUNTS, write_sharded

EDGES = [0, 6, 7, 8, 137, 138, 201, 202, 203, 204, 299]  # first and last molecules of the shards, and their neighbours


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[int]]]:
    folder = tmp_path_factory.mktemp("sharded") / "out"
    return folder, write_sharded(folder)


def config(folder: Path | str, **settings: Any) -> DataConfig:
    return DataConfig(**{"folder": str(folder), "batch_size": 16, "workers": 0, **settings})


def rows_of(batch: MicroBatch) -> list[tuple[int, ...]]:
    return [tuple(row[mask].tolist()) for bucket in batch.buckets for row, mask in zip(bucket.encoder_BS, bucket.is_token_BS)]


def equal(left: list[MicroBatch], right: list[MicroBatch]) -> bool:
    one, other = ([bucket for batch in batches for bucket in batch.buckets] for batches in (left, right))
    return len(one) == len(other) and all(x.equal(y) for a, b in zip(one, other) for x, y in zip(a, b))


def test_lookups_against_the_concatenation_of_the_shards(sharded: tuple[Path, list[list[int]]]) -> None:
    folder, truth = sharded
    store = TokenStore.open(folder, "train")
    assert len(store) == len(truth) == sum(COUNTS) == EDGES[-1] + 1
    everything = np.random.default_rng(0).permutation(len(truth))
    for indices in (EDGES, EDGES[::-1], [5, 299, 5, 0], everything, []):
        assert [row.tolist() for row in store.gather(indices)] == [truth[i] for i in indices]
        assert store.lengths[np.asarray(indices, np.int64)].tolist() == [len(truth[i]) for i in indices]
    assert np.asarray(store.lengths).tolist() == [len(row) for row in truth]
    assert [store.tokens(i).tolist() for i in EDGES] == [truth[i] for i in EDGES]


@pytest.mark.parametrize(("page", "span"), [(4, 1), (4, 1 << 22), (4096, 8)])
def test_lengths_are_the_same_however_they_are_read(page: int, span: int, sharded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read one by one, or several at once."""
    folder, truth = sharded
    monkeypatch.setattr(shards_module, "_PAGE", page)
    monkeypatch.setattr(shards_module, "_SPAN", span)
    indices = np.random.default_rng(1).permutation(len(truth))[:200]
    assert TokenStore.open(folder, "train").lengths[indices].tolist() == [len(truth[i]) for i in indices]


@pytest.mark.parametrize("index", [-1, sum(COUNTS), 10**11])
def test_a_molecule_beyond_the_last_shard(index: int, sharded: tuple[Path, list[list[int]]]) -> None:
    store = TokenStore.open(sharded[0], "train")
    with pytest.raises(IndexError, match=f"molecule {index} of {sum(COUNTS)}"):
        store.gather([0, index])
    with pytest.raises(IndexError, match=f"molecule {index} of {sum(COUNTS)}"):
        store.lengths[np.array([index])]


FILES_HELD = """
import json, os, resource, sys
from nemo_cmim.store.token_store import TokenStore

def held():
    links = (os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{name}"))
    return sum(link.startswith(sys.argv[1]) for link in links)

resource.setrlimit(resource.RLIMIT_NOFILE, (80, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
store = TokenStore.open(sys.argv[1], "train")
rows = [[row.tolist() for row in store.gather(range(600))] for _ in range(2)]
counts = [held()]
del store
print(json.dumps([rows, *counts, held()]))
"""


def test_a_store_holds_a_quarter_of_the_files_that_a_process_may_open(tmp_path: Path) -> None:
    """With thousands of shards, the other files are opened when they are needed. All are closed with the store."""
    truth = write_sharded(tmp_path / "out", (2,) * 300, tuple(range(300)))
    command = [sys.executable, "-c", FILES_HELD, str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[truth, truth], 80 // 4, 0]


@pytest.mark.parametrize("block", [1, 2, 7, 32, 128, 299, 300, 5000])
@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (2, 2), (4, 0)])
def test_an_epoch_holds_each_molecule_once(block: int, ranks: int, workers: int, sharded: Any) -> None:
    """Over all ranks and workers. The last batch of an epoch is filled from the next epoch."""
    if workers and block not in (1, 32):
        workers = 0
    folder, truth = sharded
    batch, epochs = 8, 3
    steps = -(-epochs * len(truth) // (batch * ranks))
    settings = config(folder, batch_size=batch, shuffle_block=block, workers=workers)
    seen: dict[tuple[int, ...], int] = dict.fromkeys(map(tuple, truth), 0)
    for rank in range(ranks):
        for tokens in make_loader(settings, steps=steps, rank=rank, ranks=ranks):
            for row in rows_of(tokens):
                seen[row] += 1
    assert len(seen) == len(truth)
    assert min(seen.values()) == epochs and max(seen.values()) <= epochs + 1
    assert sum(seen.values()) - epochs * len(truth) == steps * batch * ranks - epochs * len(truth) < batch * ranks


@pytest.mark.parametrize("block", [1, 32])
@pytest.mark.parametrize("start", [1, 17, 18, 19, 40])
def test_a_resumed_run_over_shards_sees_the_rest(block: int, start: int, sharded: tuple[Path, list[list[int]]]) -> None:
    settings = config(sharded[0], shuffle_block=block)
    complete = [list(make_loader(settings, steps=42, rank=rank, ranks=2, accumulation=2)) for rank in (0, 1)]
    for rank in (0, 1):
        rest = make_loader(settings, steps=42, start_step=start, rank=rank, ranks=2, accumulation=2)
        assert equal(list(rest), complete[rank][2 * start :])


@pytest.mark.parametrize("block", [1, 32])
def test_accumulation_and_ranks_give_the_same_micro_batches(block: int, sharded: tuple[Path, list[list[int]]]) -> None:
    settings = config(sharded[0], shuffle_block=block)
    alone = list(make_loader(settings, steps=20, accumulation=2))
    together = [list(make_loader(settings, steps=20, rank=rank, ranks=2)) for rank in (0, 1)]
    assert equal(alone, [batch for pair in zip(*together) for batch in pair])


def test_validation_over_shards(sharded: tuple[Path, list[list[int]]]) -> None:
    folder, truth = sharded
    for block in (1, 32):
        batches = list(make_validation_loader(config(folder, shuffle_block=block)))
        assert sorted(row for batch in batches for row in rows_of(batch)) == sorted(map(tuple, truth))


def test_batches_are_those_of_collated_molecules(sharded: tuple[Path, list[list[int]]]) -> None:
    """Bit for bit, and with augmentation."""
    folder, truth = sharded
    store = TokenStore.open(folder, "train")
    for batch in make_loader(config(folder, buckets=1), steps=3):
        index = {tuple(row): i for i, row in enumerate(truth)}
        rows = [truth[index[row]] for row in rows_of(batch)]
        assert equal([batch], [MicroBatch((collate(rows, store.vocabulary),))])
    masked = AugmentationConfig(mask_fraction=0.3)
    first, again = (list(make_loader(config(folder, workers=w), steps=4, augmentation=masked)) for w in (0, 2))
    assert equal(first, again)
    bucket, mask_id = first[0].buckets[-1], store.vocabulary.mask_id
    assert (bucket.encoder_BS == mask_id).any() and not (bucket.decoder_BT == mask_id).any()


def test_a_store_can_be_pickled(sharded: tuple[Path, list[list[int]]]) -> None:
    folder, truth = sharded
    store = TokenStore.open(folder, "train")
    store.tokens(0)
    again = pickle.loads(pickle.dumps(store))
    assert [row.tolist() for row in again.gather(EDGES)] == [truth[i] for i in EDGES]
    loader = make_loader(config(folder), steps=4)
    spawned: DataLoader[MicroBatch] = DataLoader(
        loader.dataset, sampler=loader.sampler, batch_size=None, num_workers=1, multiprocessing_context="spawn"
    )
    assert equal(list(spawned), list(loader))


@pytest.mark.parametrize("kind", ["bin", "idx"])
def test_missing_and_truncated_shards(kind: str, tmp_path: Path) -> None:
    write_sharded(tmp_path / "out")
    path = tmp_path / "out" / f"train-00900.{kind}"
    content = path.read_bytes()
    store = TokenStore.open(tmp_path / "out", "train")
    path.unlink()
    with pytest.raises(DataError, match=rf"train-00900\.{kind} is missing, but manifest\.json says {len(content)} bytes"):
        TokenStore.open(tmp_path / "out", "train")
    with pytest.raises(DataError, match=rf"train-00900\.{kind} is missing\. Prepare or copy"):
        store.gather([203])
    path.write_bytes(content[:10])
    with pytest.raises(DataError, match=rf"train-00900\.{kind} has 10 bytes, but"):
        TokenStore.open(tmp_path / "out", "train")
    with pytest.raises(DataError, match=rf"train-00900\.{kind} (does not contain molecule 1|is not a Megatron index)"):
        store.gather([203])


def test_verify_names_the_shard(tmp_path: Path) -> None:
    write_sharded(tmp_path / "out")
    store = TokenStore.open(tmp_path / "out", "train")
    store.verify()
    path = tmp_path / "out" / "train-00018.bin"
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    with pytest.raises(DataError, match=r"train-00018\.bin was changed"):
        store.verify()


def test_an_index_with_a_different_number_of_molecules(tmp_path: Path) -> None:
    """The sizes agree, but the index lists a different number than the manifest."""
    write_sharded(tmp_path / "out")
    path = tmp_path / "out" / "train-00017.idx"
    content = bytearray(path.read_bytes())
    content[18] += 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"train-00017\.idx lists 131 molecules, but the manifest lists 130"):
        TokenStore.open(tmp_path / "out", "train").tokens(20)


def test_an_inconsistent_manifest(tmp_path: Path) -> None:
    write_sharded(tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    manifest["splits"]["train"]["shards"].pop()
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="300 molecules in split 'train', but 204 in its shards"):
        TokenStore.open(tmp_path / "out", "train")


def test_the_older_format_is_an_error(tmp_path: Path) -> None:
    write_sharded(tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    (tmp_path / "out" / "manifest.json").write_text(json.dumps({**manifest, "format": "nemo_cmim token store 1"}))
    with pytest.raises(
        DataError,
        match=r"format 'nemo_cmim token store 1', but .* reads 'nemo_cmim token store 3'.*Prepare the folder again.*--overwrite",
    ):
        TokenStore.open(tmp_path / "out", "train")
