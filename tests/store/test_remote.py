"""Prepared folders at URLs: over HTTP with range requests, and in fsspec's memory."""

from __future__ import annotations

import builtins
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from benchmarks.range_server import RangeServer
from nemo_cmim.config import DataConfig
from nemo_cmim.errors import ConfigError, DataError
from nemo_cmim.loader.dataset import make_loader, make_validation_loader
from nemo_cmim.store import folder as folder_module
from nemo_cmim.store.folder import ByteRange, RemoteFolder
from nemo_cmim.store.shards import BlockShards, ShardMap
from nemo_cmim.store.token_store import TokenStore
from nemo_cmim.types import MicroBatch
from tests.store.sharded import write_sharded


@pytest.fixture
def local(tmp_path: Path) -> tuple[Path, list[list[int]]]:
    return tmp_path / "out", write_sharded(tmp_path / "out")


@pytest.fixture
def server(local: tuple[Path, list[list[int]]], monkeypatch: pytest.MonkeyPatch) -> Iterator[RangeServer]:
    monkeypatch.setattr(folder_module, "_DELAYS", (0.01, 0.02, 0.03))
    with RangeServer(local[0]) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def in_memory(local: tuple[Path, list[list[int]]]) -> Iterator[str]:
    files = fsspec.filesystem("memory")
    for path in local[0].iterdir():
        files.pipe_file(f"/bucket/data/{path.name}", path.read_bytes())
    yield "memory://bucket/data"
    files.rm("/bucket", recursive=True)


def config(folder: Path | str, **settings: Any) -> DataConfig:
    return DataConfig(**{"folder": str(folder), "batch_size": 16, "workers": 0, "shuffle_block": 32, **settings})


def equal(left: list[MicroBatch], right: list[MicroBatch]) -> bool:
    one, other = ([bucket for batch in batches for bucket in batch.buckets] for batches in (left, right))
    return len(one) == len(other) and all(x.equal(y) for a, b in zip(one, other) for x, y in zip(a, b))


@pytest.mark.parametrize("block", [1, 3, 64, 1000])
def test_lookups_are_those_of_the_local_folder(block: int, local: tuple[Path, list[list[int]]], in_memory: str) -> None:
    """Including blocks that start in one shard and end in another."""
    truth, store = local[1], TokenStore.open(in_memory, "train", block=block)
    assert len(store) == len(truth)
    for indices in (np.random.default_rng(0).permutation(len(truth)), np.array([203, 5, 203, 299]), np.array([], np.int64)):
        assert [row.tolist() for row in store.gather(indices)] == [truth[i] for i in indices]
        assert store.lengths[indices].tolist() == [len(truth[i]) for i in indices]
    with pytest.raises(IndexError, match="molecule 300 of 300"):
        store.tokens(300)
    store.verify()


def test_training_is_that_of_the_local_folder(local: tuple[Path, list[list[int]]], in_memory: str) -> None:
    """Three epochs, a limit, and validation."""
    for settings in ({}, {"limit": 100}):
        ours, theirs = (list(make_loader(config(f, **settings), steps=40)) for f in (in_memory, local[0]))
        assert equal(ours, theirs)
    assert equal(*(list(make_validation_loader(config(f))) for f in (in_memory, local[0])))


def test_over_http_with_workers_that_fork(local: tuple[Path, list[list[int]]], server: RangeServer) -> None:
    """Opening the store uses a connection before the fork; the workers open their own."""
    expected = list(make_loader(config(local[0]), steps=40))
    for workers in (0, 2):
        loader = make_loader(config(server.url, workers=workers), steps=40)
        assert equal(list(loader), expected)


def test_a_block_is_requested_once(local: tuple[Path, list[list[int]]], server: RangeServer) -> None:
    store = TokenStore.open(server.url, "train", block=100)
    server.requests.clear()
    for i in range(7):
        store.tokens(i)
    # header, lengths and start in each of the shards that hold molecules 0 to 99, then their tokens
    assert server.requests == {f"train-{n:05}.{kind}": k for n in (3, 4, 17) for kind, k in (("idx", 3), ("bin", 1))}


@pytest.mark.parametrize("max_bytes", [0, 3000, 10**9])
def test_the_cache_is_bounded(max_bytes: int, local: tuple[Path, list[list[int]]], in_memory: str) -> None:
    truth = local[1]
    shards = BlockShards(
        RemoteFolder(in_memory), ShardMap(TokenStore.open(in_memory, "train").manifest.splits["train"]["shards"]), 16, max_bytes
    )
    for seed in range(3):
        indices = np.random.default_rng(seed).permutation(len(truth))
        assert [row.tolist() for row in shards.gather(indices)] == [truth[i] for i in indices]
        assert shards.lengths(indices).tolist() == [len(truth[i]) for i in indices]
        cached = sum(block.bytes for block in shards._blocks.values())
        assert cached == shards._bytes <= max_bytes
    assert len(shards._blocks) == {0: 0, 10**9: 19}.get(max_bytes, len(shards._blocks))


def test_ranks_read_few_blocks_of_other_ranks(
    local: tuple[Path, list[list[int]]], in_memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an epoch, blocks that two ranks need are read twice, all others once."""
    fetched: list[ByteRange] = []
    original = RemoteFolder.read_ranges
    monkeypatch.setattr(RemoteFolder, "read_ranges", lambda self, ranges: [fetched.extend(ranges), original(self, ranges)][1])
    for rank in range(2):
        list(make_loader(config(in_memory, batch_size=5, shuffle_block=10), steps=30, rank=rank, ranks=2))
    tokens = [span for span in fetched if span.name.endswith(".bin")]
    assert {name for name, _, _ in tokens} == {f"train-{n:05}.bin" for n in (3, 4, 17, 18, 900, 99_999)}
    assert len(tokens) <= len(set(tokens)) + 2


@pytest.mark.parametrize("name", ["train-00017.bin", "train-00017.idx", "manifest.json", "vocabulary.txt"])
def test_a_temporary_failure(name: str, local: tuple[Path, list[list[int]]], server: RangeServer) -> None:
    server.failures[name] = 1
    store = TokenStore.open(server.url, "train")
    server.failures[name] = 1
    assert [row.tolist() for row in store.gather(range(300))] == local[1]
    assert server.failures[name] == (0 if name.startswith("train") else 1)


@pytest.mark.parametrize("kind", ["bin", "idx"])
def test_a_permanent_failure(kind: str, server: RangeServer) -> None:
    store = TokenStore.open(server.url, "train")
    server.failures[f"train-00017.{kind}"] = 1000
    with pytest.raises(DataError, match=rf"{server.url}/train-00017\.{kind} could not be read in 4 attempts .*500"):
        store.tokens(20)


def test_a_failure_in_a_worker_ends_the_run(server: RangeServer) -> None:
    loader = make_loader(config(server.url, workers=2), steps=10)
    server.failures["train-00017.bin"] = 1000
    with pytest.raises(DataError, match=r"train-00017\.bin could not be read in 4 attempts"):
        list(loader)


def test_a_server_without_ranges(server: RangeServer) -> None:
    store = TokenStore.open(server.url, "train")
    server.ranges = False
    with pytest.raises(
        DataError, match=r"train-\d+\.idx: requested \d+ bytes, but received \d+\. The server does not support range"
    ):
        store.tokens(0)


@pytest.mark.parametrize("where", ["http", "memory"])
def test_errors_name_the_damaged_file(where: str, local: tuple[Path, list[list[int]]], server: RangeServer, in_memory: str) -> None:
    files = fsspec.filesystem("memory")
    url = server.url if where == "http" else in_memory
    store = TokenStore.open(url, "train")
    (local[0] / "train-00018.bin").write_bytes(b"short")
    files.pipe_file("/bucket/data/train-00018.bin", b"short")
    with pytest.raises(DataError, match=rf"{url}/train-00018\.bin has 5 bytes, but manifest\.json says"):
        TokenStore.open(url, "train")
    (local[0] / "train-00018.bin").unlink()
    files.rm("/bucket/data/train-00018.bin")
    with pytest.raises(DataError, match=r"train-00018\.bin (is missing|could not be read)"):
        TokenStore.open(url, "train")
    with pytest.raises(DataError, match=rf"{url}/train-00018\.bin is missing"):
        store.tokens(150)
    with pytest.raises(DataError, match=r"nowhere contains no manifest\.json"):
        TokenStore.open(f"{url}/nowhere", "train")


def test_a_remote_store_can_be_pickled(local: tuple[Path, list[list[int]]], server: RangeServer) -> None:
    store = TokenStore.open(server.url, "train")
    store.tokens(0)
    assert pickle.loads(pickle.dumps(store)).tokens(299).tolist() == local[1][299]


def test_a_url_requires_blocks() -> None:
    with pytest.raises(ConfigError, match=r"shuffle_block=1 .*folder=s3://bucket/data\. Set shuffle_block=4096.*local disk"):
        DataConfig(folder="s3://bucket/data")
    with pytest.raises(ConfigError, match="shuffle_block must be at least 1, found 0"):
        DataConfig(shuffle_block=0)


def test_packages_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__
    with pytest.raises(ConfigError, match=r"nothing://x cannot be read here .*nothing"):
        RemoteFolder("nothing://x")

    def without(*missing: str) -> Any:
        def importer(name: str, *args: Any, **kwargs: Any) -> Any:
            if name.split(".")[0] in missing:
                raise ImportError(f"No module named {name!r}")
            return original(name, *args, **kwargs)

        return importer

    for url, package in (("s3://bucket/data", "s3fs"), ("memory://x", "fsspec"), ("memory://x", "tenacity")):
        monkeypatch.setattr(builtins, "__import__", without(package))
        with pytest.raises(ConfigError, match=rf"{url} cannot be read here \(.*{package}.*nemo_cmim\[train\]"):
            RemoteFolder(url)
