"""Randomized SMILES and masked spans: valid, exact on average, and a function of (seed, epoch, molecule) alone."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from nemo_cmim.config import AugmentationConfig, DataConfig
from nemo_cmim.loader.augment import Augmentation, mask_spans
from nemo_cmim.loader.dataset import make_loader, make_validation_loader
from nemo_cmim.molecules import canonical_smiles, quiet_rdkit, randomized_smiles
from nemo_cmim.tokenizers import SmilesTokenizer, Vocabulary, shipped_vocabulary
from nemo_cmim.types import TokenBatch

ENUMERATE = AugmentationConfig(strings="different_random")
TOKENIZER = SmilesTokenizer()


def augmentation(config: AugmentationConfig = ENUMERATE, max_tokens: int = 200, seed: int = 0) -> Augmentation:
    return Augmentation(config, shipped_vocabulary(), max_tokens=max_tokens, seed=seed)


def ids(smiles: str) -> np.ndarray:
    return np.array(TOKENIZER.encode(smiles), dtype=np.uint16)


def batches(folder: Path, config: AugmentationConfig, steps: int = 6, start: int = 0, **settings: int) -> list[TokenBatch]:
    data = DataConfig(folder=str(folder), **{"batch_size": 16, "buckets": 1, "workers": 0, "seed": 0, **settings})  # type: ignore[arg-type]
    return [batch.buckets[0] for batch in make_loader(data, steps=steps, start_step=start, augmentation=config, max_tokens=64)]


def decoder_smiles(batch: TokenBatch) -> list[str]:
    return [TOKENIZER.decode(row.numpy()) for row in batch.target_BT]


def encoder_smiles(batch: TokenBatch) -> list[str]:
    return [TOKENIZER.decode(row[mask].numpy()) for row, mask in zip(batch.encoder_BS, batch.is_token_BS)]


def test_randomized_smiles_are_of_the_same_molecule_and_differ() -> None:
    smiles = r"C[C@@H](N)C(=O)N/C=C\c1ccc2[nH]c(Cl)nc2c1"
    encoder, decoder = augmentation()(ids(smiles), 0, 7)
    texts = [TOKENIZER.decode(tokens) for tokens in (encoder, decoder)]
    assert {canonical_smiles(text) for text in texts} == {canonical_smiles(smiles)}
    assert len({*texts, smiles}) == 3


def test_randomized_smiles_keep_stereo_of_real_molecules(real_smiles: tuple[str, ...]) -> None:
    with quiet_rdkit():
        for number, smiles in enumerate(real_smiles[::3], 1):
            canonical = canonical_smiles(smiles)
            for randomized in randomized_smiles(canonical, 2, number):
                assert canonical_smiles(randomized) == canonical


def test_augmentation_is_a_function_of_seed_epoch_and_molecule() -> None:
    smiles = ids("CC(C)Cc1ccc(cc1)C(C)C(=O)OCCN")
    config = AugmentationConfig(strings="different_random", mask_fraction=0.2)
    first = augmentation(config)(smiles, 3, 5)
    assert augmentation(config)(smiles, 3, 5) == first
    others = [augmentation(config, seed=seed)(smiles, epoch, index) for seed, epoch, index in ((1, 3, 5), (0, 4, 5), (0, 3, 6))]
    assert all(other != first for other in others)


def test_stored_smiles_replaces_unusable_randomized_smiles() -> None:
    smiles = "Cc1ccccc1"
    assert augmentation(max_tokens=len(ids(smiles)) - 1)(ids(smiles), 0, 0) == (ids(smiles).tolist(), ids(smiles).tolist())
    poor = Vocabulary((*shipped_vocabulary().tokens[:6], "C", "c", "1", "O"))  # randomized SMILES also need brackets and digits
    tokenizer = SmilesTokenizer(poor)
    stored = tokenizer.encode("Cc1cccc(O)c1".replace("(O)", "") + "C")
    encoder, decoder = Augmentation(ENUMERATE, poor, max_tokens=99, seed=0)(np.array(stored), 0, 0)
    for tokens in (encoder, decoder):
        assert poor.unk_id not in tokens


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_masks_replace_the_requested_fraction(fraction: float) -> None:
    rng = np.random.default_rng(0)
    tokens = list(range(100, 123))
    hidden = []
    for _ in range(2000):
        masked = mask_spans(tokens, rng, fraction, 3.0, mask_id=4)
        visible = [t for t in masked if t != 4]
        assert visible == sorted(set(visible)), "visible tokens keep their order"
        assert all((a, b) != (4, 4) for a, b in pairwise(masked)), "spans do not touch"
        hidden.append(len(tokens) - len(visible))
    assert np.mean(hidden) == pytest.approx(fraction * len(tokens), rel=0.02)
    assert max(hidden) - min(hidden) <= 1


def test_span_lengths_follow_poisson_without_zero() -> None:
    rng = np.random.default_rng(0)
    tokens = list(range(100, 1100))
    lengths = []
    for _ in range(50):
        masked = mask_spans(tokens, rng, 0.1, 3.0, mask_id=4)
        places = [-1, *masked, 10**6]
        for i, token in enumerate(places):
            if token == 4:
                before = places[i - 1] if places[i - 1] >= 100 else 99
                after = places[i + 1] if places[i + 1] < 10**6 else 1100
                lengths.append(after - before - 1)
    assert min(lengths) == 1
    assert np.mean(lengths) == pytest.approx(3 + np.exp(-3), rel=0.06)  # zeros count as ones


@pytest.mark.parametrize("tokens", [[7], [7, 8]])
def test_short_molecules_can_be_masked(tokens: list[int]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        masked = mask_spans(tokens, rng, 0.9, 3.0, mask_id=4)
        assert masked and set(masked) <= {4, *tokens}


def test_batches_hold_two_randomized_smiles_of_the_same_molecules(prepared: Path) -> None:
    plain = batches(prepared, AugmentationConfig())
    for batch, before in zip(batches(prepared, ENUMERATE), plain):
        molecules = [canonical_smiles(s) for s in decoder_smiles(batch)]
        assert sorted(molecules) == sorted(canonical_smiles(s) for s in encoder_smiles(before))
        assert [canonical_smiles(s) for s in encoder_smiles(batch)] == molecules
        assert sum(a != b for a, b in zip(encoder_smiles(batch), decoder_smiles(batch))) > len(molecules) / 2
        ids_BS, is_token_BS = batch.decoder_view
        assert [TOKENIZER.decode(r[m].numpy()) for r, m in zip(ids_BS, is_token_BS)] == decoder_smiles(batch)


def test_only_the_encoder_is_masked(prepared: Path) -> None:
    (batch,) = batches(prepared, AugmentationConfig(mask_fraction=0.3), steps=1)
    (plain,) = batches(prepared, AugmentationConfig(), steps=1)
    assert torch.equal(batch.target_BT, plain.target_BT)
    mask_id = shipped_vocabulary().mask_id
    assert (batch.encoder_BS == mask_id).any(1).all() and not (batch.decoder_BT == mask_id).any()


def test_strings_do_not_depend_on_workers_interruptions_or_ranks(prepared: Path) -> None:
    config = AugmentationConfig(strings="different_random", mask_fraction=0.1)
    complete = batches(prepared, config)
    for other in (batches(prepared, config, workers=2), complete[:2] + batches(prepared, config, start=2)):
        for a, b in zip(complete, other, strict=True):
            assert all(torch.equal(x, y) for x, y in zip(a, b))
    data = DataConfig(folder=str(prepared), batch_size=8, buckets=1, workers=0)
    halves = [list(make_loader(data, steps=6, rank=r, ranks=2, augmentation=config, max_tokens=64)) for r in (0, 1)]
    for step, batch in enumerate(complete):
        both = [s for half in halves for s in zip(encoder_smiles(half[step].buckets[0]), decoder_smiles(half[step].buckets[0]))]
        assert sorted(both) == sorted(zip(encoder_smiles(batch), decoder_smiles(batch)))


def test_encoder_and_decoder_can_have_the_same_randomized_smiles(prepared: Path) -> None:
    plain = batches(prepared, AugmentationConfig())
    for batch, before in zip(batches(prepared, AugmentationConfig(strings="same_random")), plain):
        assert encoder_smiles(batch) == decoder_smiles(batch)
        assert sorted(map(canonical_smiles, decoder_smiles(batch))) == sorted(decoder_smiles(before))
        assert len(set(decoder_smiles(batch)) & set(decoder_smiles(before))) < batch.encoder_BS.shape[0] / 2


def test_each_epoch_has_new_randomized_smiles_but_validation_has_not(prepared: Path) -> None:
    data = DataConfig(folder=str(prepared), batch_size=16, buckets=1, workers=0, limit=16)
    first, second = (decoder_smiles(b.buckets[0]) for b in make_loader(data, steps=2, augmentation=ENUMERATE, max_tokens=64))
    assert sorted(map(canonical_smiles, first)) == sorted(map(canonical_smiles, second))
    assert len(set(first) & set(second)) < 8
    valid = DataConfig(folder=str(prepared), split="valid", batch_size=16, buckets=1, workers=0)
    once, again = ([decoder_smiles(b.buckets[0]) for b in make_validation_loader(valid, augmentation=ENUMERATE)] for _ in range(2))
    assert once == again
