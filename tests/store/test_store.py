from __future__ import annotations

import gc
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from megatron.core.datasets.indexed_dataset import DType, IndexedDataset, IndexedDatasetBuilder

from nemo_cmim.errors import DataError
from nemo_cmim.store.shards import LocalShards, ShardMap, write_shard
from nemo_cmim.store.token_store import TokenStore
from nemo_cmim.tokenizers import Vocabulary, shipped_vocabulary


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    """A copy of the prepared folder, which the test damages."""
    return Path(shutil.copytree(prepared, tmp_path / "store"))


def test_tokens_lengths_and_gather_agree(prepared: Path) -> None:
    store = TokenStore.open(prepared, "valid")
    assert len(store) == len(store.lengths) == store.manifest.splits["valid"]["molecules"]
    assert [len(store.tokens(i)) for i in range(len(store))] == np.asarray(store.lengths).tolist()
    chosen = [5, 0, 5, len(store) - 1]
    for index, tokens in zip(chosen, store.gather(chosen)):
        np.testing.assert_array_equal(tokens, store.tokens(index))
    assert store.tokens(0).dtype == np.uint16


def test_tokens_contain_no_special_ids(prepared: Path) -> None:
    store = TokenStore.open(prepared, "train")
    assert store.vocabulary.is_chemical[np.concatenate(store.gather(range(len(store))))].all()


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_megatron_reads_the_same_with_one_document_per_molecule(split: str, prepared: Path) -> None:
    dataset, store = IndexedDataset(str(prepared / f"{split}-00000")), TokenStore.open(prepared, split)
    assert len(dataset) == len(store)
    np.testing.assert_array_equal(dataset.document_indices, np.arange(len(dataset) + 1))
    for theirs, ours in zip(dataset, store.gather(range(len(store)))):
        np.testing.assert_array_equal(theirs, ours)
        assert theirs.dtype == ours.dtype


def test_a_vocabulary_beyond_16_bits(tmp_path: Path) -> None:
    """`prepare` cannot write such a store, but Megatron's other dtype is read too."""
    write_shard(tmp_path / "train-00000", np.array([7, 99_999, 70_000]), np.array([2, 1]), vocabulary_size=100_000)
    shards = LocalShards(tmp_path, ShardMap([{"name": "train-00000", "molecules": 2}]))
    assert [tokens.tolist() for tokens in shards.gather(np.array([0, 1]))] == [[7, 99_999], [70_000]]


def test_arrays_outlive_their_store(prepared: Path) -> None:
    lengths, tokens = np.asarray(TokenStore.open(prepared, "train").lengths), TokenStore.open(prepared, "train").tokens(0)
    gc.collect()
    assert lengths.sum() == TokenStore.open(prepared, "train").manifest.splits["train"]["tokens"]
    assert len(tokens) == lengths[0]


def test_a_pickled_store_reads_the_same(prepared: Path) -> None:
    store = TokenStore.open(prepared, "test")
    again = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(again.tokens(3), store.tokens(3))


@pytest.mark.parametrize("index", [-1, 10_000])
def test_an_index_out_of_range(index: int, prepared: Path) -> None:
    with pytest.raises(IndexError, match=f"molecule {index} of"):
        TokenStore.open(prepared, "test").tokens(index)


def test_missing_folders_splits_and_files(folder: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere contains no manifest\.json.*nemo-cmim prepare INPUT"):
        TokenStore.open(folder / "nowhere", "train")
    with pytest.raises(DataError, match="no split 'validation'; the splits are train, valid, test"):
        TokenStore.open(folder, "validation")
    (folder / "train-00000.idx").unlink()
    with pytest.raises(DataError, match=r"train-00000\.idx is missing, but manifest\.json says \d+ bytes"):
        TokenStore.open(folder, "train")
    assert len(TokenStore.open(folder, "valid")) > 0  # the other splits are complete


def test_a_truncated_file(folder: Path) -> None:
    tokens = folder / "train-00000.bin"
    tokens.write_bytes(tokens.read_bytes()[:-2])
    with pytest.raises(DataError, match=r"train-00000\.bin has \d+ bytes, but manifest\.json says \d+ bytes"):
        TokenStore.open(folder, "train")


def test_verify_finds_a_changed_byte(folder: Path) -> None:
    TokenStore.open(folder, "train").verify()
    content = bytearray((folder / "train-00000.bin").read_bytes())
    content[100] ^= 1
    (folder / "train-00000.bin").write_bytes(content)
    store = TokenStore.open(folder, "train")
    with pytest.raises(DataError, match=r"train-00000\.bin was changed"):
        store.verify()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"format": "nemo_cmim token store 3"}', b"\xff"])
def test_a_damaged_manifest(content: bytes, folder: Path) -> None:
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(DataError, match=r"manifest\.json is damaged.*Prepare the folder again"):
        TokenStore.open(folder, "train")


def test_a_different_vocabulary_is_an_error(folder: Path) -> None:
    ours = shipped_vocabulary()
    assert len(TokenStore.open(folder, "train", vocabulary=ours)) > 0
    other = Vocabulary((*ours.tokens, "[Og]"))
    with pytest.raises(DataError) as caught:
        TokenStore.open(folder, "train", vocabulary=other)
    for expected in ("523 tokens", ours.fingerprint[:12], "one of 524", other.fingerprint[:12], "--vocabulary FILE"):
        assert expected in str(caught.value)


def test_a_replaced_vocabulary_file(folder: Path) -> None:
    swapped = list(shipped_vocabulary().tokens)
    swapped[-2:] = swapped[:-3:-1]
    Vocabulary(tuple(swapped)).save(folder / "vocabulary.txt")
    with pytest.raises(DataError, match=r"vocabulary\.txt is not the vocabulary of the molecules in"):
        TokenStore.open(folder, "train")


def test_an_empty_split(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["splits"]["test"] |= {"molecules": 0, "shards": []}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"Split 'test' .* is empty"):
        TokenStore.open(folder, "test")


def test_an_index_of_another_format(folder: Path) -> None:
    content = bytearray((folder / "train-00000.idx").read_bytes())
    (folder / "train-00000.idx").write_bytes(b"TNTIDX\0\0" + content[8:])
    with pytest.raises(DataError, match=r"train-00000\.idx is not a Megatron index of version 1"):
        TokenStore.open(folder, "train").tokens(0)


@pytest.mark.parametrize("vocabulary_size", [523, 65_499, 65_500, 100_000])
def test_shards_equal_those_of_megatron(vocabulary_size: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 60, 200)
    tokens = rng.integers(0, vocabulary_size, lengths.sum())
    ours = write_shard(tmp_path / "ours.of.many", tokens, lengths, vocabulary_size)
    theirs = [tmp_path / "theirs.bin", tmp_path / "theirs.idx"]
    builder = IndexedDatasetBuilder(str(theirs[0]), dtype=DType.optimal_dtype(vocabulary_size))
    for row in np.split(tokens, np.cumsum(lengths)[:-1]):
        builder.add_document(row, [len(row)])
    builder.finalize(str(theirs[1]))
    assert [path.read_bytes() for path in ours] == [path.read_bytes() for path in theirs]
    assert [path.name for path in ours] == ["ours.of.many.bin", "ours.of.many.idx"]
