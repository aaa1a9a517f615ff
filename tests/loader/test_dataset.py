from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nemo_cmim.config import DataConfig
from nemo_cmim.errors import ConfigError, DataError
from nemo_cmim.loader.dataset import make_loader, make_validation_loader
from nemo_cmim.store.token_store import TokenStore
from nemo_cmim.tokenizers import SmilesTokenizer, Vocabulary, shipped_vocabulary
from nemo_cmim.types import MicroBatch, TokenBatch


def config(folder: Path, **settings: object) -> DataConfig:
    return DataConfig(**{"folder": str(folder), "batch_size": 32, "workers": 0, **settings})  # type: ignore[arg-type]


def assert_equal(left: list[MicroBatch], right: list[MicroBatch]) -> None:
    assert [len(batch.buckets) for batch in left] == [len(batch.buckets) for batch in right]
    for a, b in zip(buckets_of(left), buckets_of(right)):
        for x, y in zip(a, b):
            torch.testing.assert_close(x, y, rtol=0, atol=0)


def buckets_of(batches: list[MicroBatch]) -> list[TokenBatch]:
    return [bucket for batch in batches for bucket in batch.buckets]


def smiles_of(batches: list[MicroBatch]) -> list[str]:
    decode = SmilesTokenizer().decode
    return [decode(row[mask].numpy()) for bucket in buckets_of(batches) for row, mask in zip(bucket.encoder_BS, bucket.is_token_BS)]


def test_batches_hold_the_molecules_of_the_split(prepared: Path) -> None:
    store, tokenizer = TokenStore.open(prepared, "train"), SmilesTokenizer()
    batches = list(make_loader(config(prepared), steps=-(-len(store) // 32)))  # one epoch, and the start of the next
    assert isinstance(batches[0], MicroBatch)
    assert {batch.molecules for batch in batches} == {32}
    assert set(smiles_of(batches)) == {tokenizer.decode(tokens) for tokens in store.gather(range(len(store)))}


def test_batches_do_not_depend_on_workers(prepared: Path) -> None:
    alone = list(make_loader(config(prepared), steps=30))
    assert_equal(list(make_loader(config(prepared, workers=1), steps=30)), alone)
    assert_equal(list(make_loader(config(prepared, workers=2), steps=30)), alone)


@pytest.mark.parametrize("split", ["train", "valid"])
@pytest.mark.parametrize("buckets", [2, 4, 5, 100])
def test_buckets_hold_the_same_molecules_by_length(prepared: Path, buckets: int, split: str) -> None:
    """A micro-batch in buckets has the same molecules as in one part, from short to long, in buckets of almost equal numbers."""
    batches = []
    for number in (1, buckets):
        settings = config(prepared, buckets=number, split=split)
        batches.append(list(make_loader(settings, steps=5) if split == "train" else make_validation_loader(settings)))
    for one, divided in zip(*batches, strict=True):
        assert smiles_of([one]) == smiles_of([divided])
        assert len(one.buckets) == 1 and len(divided.buckets) == min(buckets, one.molecules)
        sizes = [len(bucket.encoder_BS) for bucket in divided.buckets]
        assert max(sizes) - min(sizes) <= 1
        lengths = np.concatenate([bucket.is_token_BS.sum(1).numpy() for bucket in divided.buckets])
        np.testing.assert_array_equal(lengths, np.sort(lengths))
        assert divided.tokens == one.tokens == (lengths + 1).sum()


def test_batches_are_random_samples(prepared: Path) -> None:
    """Every micro-batch has short and long molecules: the spread of lengths in one is that of the split."""
    lengths = np.asarray(TokenStore.open(prepared, "train").lengths)
    batches = list(make_loader(config(prepared), steps=len(lengths) // 32))
    deviations = [float(torch.cat([bucket.is_token_BS.sum(1) for bucket in batch.buckets]).double().std()) for batch in batches]
    assert np.mean(deviations) == pytest.approx(lengths.std(), rel=0.1)


def test_a_resumed_run_sees_the_rest(prepared: Path) -> None:
    complete = list(make_loader(config(prepared), steps=40))
    rest = make_loader(config(prepared, workers=1), steps=40, start_step=23)
    assert len(rest) == 40  # as Lightning counts
    assert_equal(list(rest), complete[23:])


def test_loading_does_not_change_the_random_state(prepared: Path) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    list(make_loader(config(prepared), steps=2))
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


def test_ranks_see_disjoint_micro_batches_of_one_global_batch(prepared: Path) -> None:
    together = list(make_loader(config(prepared, batch_size=32), steps=12))
    by_rank = [list(make_loader(config(prepared, batch_size=16), steps=12, rank=rank, ranks=2)) for rank in (0, 1)]
    for batch, *micro_batches in zip(together, *by_rank):
        assert sorted(smiles_of([batch])) == sorted(smiles_of(micro_batches))


def test_the_seed_changes_the_order(prepared: Path) -> None:
    first, second = (smiles_of(list(make_loader(config(prepared, seed=seed), steps=2))) for seed in (0, 1))
    assert first != second


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 7, 32, 1000])
def test_validation_sees_each_molecule_once(batch_size: int, workers: int, prepared: Path) -> None:
    store = TokenStore.open(prepared, "valid")
    loader = make_validation_loader(config(prepared, split="valid", batch_size=batch_size, workers=workers))
    batches = list(loader)
    assert len(set(smiles_of(batches))) == len(smiles_of(batches)) == len(store)
    sizes = [batch.molecules for batch in batches]
    assert max(sizes) <= batch_size and max(sizes) - min(sizes) <= 1
    assert len(loader) == len(batches)
    assert_equal(list(loader), batches)


def test_validation_stops_at_the_limit(prepared: Path) -> None:
    limited = config(prepared, split="valid", limit=20)
    molecules = smiles_of(list(make_validation_loader(limited)))
    assert len(set(molecules)) == 20
    assert smiles_of(list(make_validation_loader(limited))) == molecules


@pytest.mark.parametrize(("batch_size", "limit"), [(8, 17), (8, 16), (1, 3), (2, 5)])
def test_validation_ranks_share_all_molecules_in_equally_many_batches(batch_size: int, limit: int, prepared: Path) -> None:
    settings = config(prepared, split="valid", batch_size=batch_size, limit=limit)
    first, second = (list(make_validation_loader(settings, rank=rank, ranks=2)) for rank in (0, 1))
    assert len(first) == len(second)
    assert len(set(smiles_of(first + second))) == len(smiles_of(first + second)) == limit


def test_data_that_the_model_cannot_use(prepared: Path) -> None:
    longest = int(np.max(TokenStore.open(prepared, "train").lengths))
    make_loader(config(prepared), steps=1, max_tokens=longest, vocabulary=shipped_vocabulary())
    for make in (make_validation_loader, lambda c, **model: make_loader(c, steps=1, **model)):
        with pytest.raises(ConfigError, match=rf"molecule of {longest} tokens, .* at most {longest - 1}\. .*--max-tokens"):
            make(config(prepared), max_tokens=longest - 1)
        with pytest.raises(DataError, match="prepared with a vocabulary of 523 tokens"):
            make(config(prepared), vocabulary=Vocabulary((*shipped_vocabulary().tokens, "[Og]")))


def test_a_batch_larger_than_the_split(prepared: Path) -> None:
    with pytest.raises(ConfigError, match="A global batch has 2000 molecules"):
        make_loader(config(prepared, batch_size=1000), steps=1, ranks=2)


def test_a_config_without_a_folder() -> None:
    with pytest.raises(DataError, match=r"\?\?\? contains no manifest\.json"):
        make_loader(DataConfig(), steps=1)
