"""`prepare --properties`: what is stored beside the tokens is what RDKit computes, on one process or several, interrupted or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nemo_cmim.config import DataConfig
from nemo_cmim.errors import ConfigError, DataError
from nemo_cmim.loader.dataset import make_loader, make_validation_loader
from nemo_cmim.molecules import observed_properties
from nemo_cmim.prepare import prepare as module
from nemo_cmim.prepare.prepare import prepare
from nemo_cmim.store.token_store import SPLITS, TokenStore
from nemo_cmim.tokenizers import SmilesTokenizer

NAMES = "MolWt,SlogP_VSA2,NumHDonors"
SIZES = {"piece_lines": 90, "shard_molecules": 150, "valid_molecules": 20, "test_molecules": 20}
SETTINGS: dict[str, Any] = {"properties": NAMES, "fingerprint_bits": 64, **SIZES}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, real_smiles: tuple[str, ...]) -> Path:
    path = tmp_path_factory.mktemp("source") / "molecules.smi"
    path.write_text("\n".join([*real_smiles[:400], *real_smiles[:50]]) + "\n")
    return path


@pytest.fixture(scope="module")
def folder(source: Path) -> Path:
    output = source.with_name("out")
    prepare([source], output, processes=1, progress=False, **SETTINGS)
    return output


def smiles_of(store: TokenStore) -> list[str]:
    tokenizer = SmilesTokenizer(store.vocabulary)
    return [tokenizer.decode(tokens) for tokens in store.gather(range(len(store)))]


@pytest.mark.parametrize("split", SPLITS)
def test_stored_properties_are_those_of_the_molecules(folder: Path, split: str) -> None:
    store = TokenStore.open(folder, split)
    assert store.properties is not None and store.properties.values == tuple(NAMES.split(","))
    order = np.random.default_rng(0).permutation(len(store))
    scores, bits = store.gather_properties(order)
    smiles = smiles_of(store)
    values, expected_bits = observed_properties([smiles[i] for i in order], store.properties.values, 64)
    np.testing.assert_array_equal(bits, expected_bits)
    np.testing.assert_array_equal(scores, store.properties.scores(store.properties.encode(values)))
    store.verify()


def test_scores_of_all_molecules_are_normal(folder: Path) -> None:
    store = TokenStore.open(folder, "train")
    weight = store.gather_properties(range(len(store)))[0][:, 0]
    assert np.quantile(weight, [0.16, 0.5, 0.84]) == pytest.approx([-1.0, 0.0, 1.0], abs=0.05)


def test_the_folder_does_not_depend_on_interruptions(source: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compute, count = module.compute_piece, 0

    def interrupted(*args: object, **kwargs: object) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise OSError("disk full")
        compute(*args, **kwargs)  # type: ignore[arg-type]

    output = source.with_name("again")
    monkeypatch.setattr(module, "compute_piece", interrupted)
    with pytest.raises(DataError, match="disk full"):
        prepare([source], output, processes=1, progress=False, **SETTINGS)
    monkeypatch.setattr(module, "compute_piece", compute)
    prepare([source], output, processes=1, progress=False, **SETTINGS)
    for path in folder.iterdir():
        assert (output / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_blocks_of_a_url_give_the_same_properties(folder: Path, block: int) -> None:
    import fsspec

    files = fsspec.filesystem("memory")
    files.put(str(folder), f"/properties-{block}", recursive=True)
    local, remote = TokenStore.open(folder, "train"), TokenStore.open(f"memory://properties-{block}", "train", block=block)
    for indices in ([0, len(local) - 1, 5, 5], np.random.default_rng(1).permutation(len(local))):
        for one, other in zip(local.gather_properties(indices), remote.gather_properties(indices)):
            np.testing.assert_array_equal(one, other)
    with pytest.raises(IndexError):
        remote.gather_properties([len(local)])
    files.rm(f"/properties-{block}", recursive=True)


def test_loaders_give_properties_in_the_order_of_the_buckets(folder: Path) -> None:
    store, tokenizer = TokenStore.open(folder, "train"), SmilesTokenizer()
    index = {smiles: i for i, smiles in enumerate(smiles_of(store))}
    train = make_loader(DataConfig(folder=str(folder), batch_size=16, workers=0), steps=3, with_properties=True)
    valid = make_validation_loader(DataConfig(folder=str(folder), batch_size=16, workers=0), with_properties=True)
    for batch in [*train, next(iter(valid))]:
        assert batch.observed is not None
        rows = [
            tokenizer.decode(ids[:-1]) for c in batch.buckets for ids in (r[m].numpy() for r, m in zip(c.target_BT, c.is_target_BT))
        ]
        expected = store.gather_properties([index[smiles] for smiles in rows])
        for tensor, array in zip(batch.observed, expected):
            np.testing.assert_array_equal(tensor.numpy(), array)


def test_a_damaged_file_of_properties(folder: Path, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(folder, tmp_path / "copy")
    path = next(copy.glob("train-*.prop"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=rf"{path.name} has \d+ bytes"):
        TokenStore.open(copy, "train")


def test_a_folder_without_properties(prepared: Path) -> None:
    store = TokenStore.open(prepared, "train")
    assert store.properties is None
    with pytest.raises(DataError, match=r"has no observed properties\. Prepare the folder with .*--properties"):
        store.gather_properties([0])


def test_invalid_settings(source: Path, tmp_path: Path) -> None:
    for settings, message in (
        ({"properties": "MolWt,logP"}, "RDKit has no descriptor 'logP'"),
        ({"fingerprint_bits": 12}, "fingerprint_bits must be a multiple of 8, found 12"),
    ):
        with pytest.raises(ConfigError, match=message):
            prepare([source], tmp_path / "out", **settings)
