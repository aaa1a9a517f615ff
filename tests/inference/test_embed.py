"""Embeddings: definition, independence of the batch, and errors for invalid input."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rdkit import Chem
from safetensors.torch import load_file, save_file

import nemo_cmim
from nemo_cmim.errors import CheckpointError, ConfigError, InvalidShapeError, InvalidSmilesError, UnknownTokenError
from nemo_cmim.inference import CMIMModel, load
from nemo_cmim.inference.inputs import InputOptions, tokenize
from nemo_cmim.molecules import randomized_smiles
from nemo_cmim.tokenizers import SmilesTokenizer, Vocabulary
from tests.inference.archives import MANIFEST, manifest, members, unpack
from tests.inference.conftest import random_model
from tests.shipped_names import DEFAULT

SMILES = ["CCO", "c1ccccc1O", "CC(=O)Oc1ccccc1C(=O)O", "C", "F/C=C\\F", "CN1CCC[C@H]1c1cccnc1", "[Na+].[Cl-]"]


@pytest.mark.parametrize("kind", ["informative", "mean"])
def test_one_molecule_by_hand(model: CMIMModel, kind: str) -> None:
    """Eq. 10 written out: encode, teacher forcing with z = mean, average over the positions that predict tokens and <EOS>."""
    ids = torch.tensor([model.tokenizer.encode("CCO")])
    posterior = model.network.encode(ids, torch.ones_like(ids, dtype=torch.bool))
    expected = posterior.mean_BKD[0].flatten()
    if kind == "informative":
        decoder = torch.cat([torch.tensor([[2]]), ids], 1)
        expected = model.network.hidden_states(decoder, posterior.mean_BKD)[0].mean(0)
    np.testing.assert_allclose(model.embed(["CCO"], kind)[0], expected, rtol=1e-5, atol=1e-5)


def states_by_hand(model: CMIMModel, smiles: str) -> list[torch.Tensor]:
    """States [T, D] after each decoder layer, the last ones after the final norm; layers are called one by one."""
    ids = torch.tensor([model.tokenizer.encode(smiles)])
    z = model.network.encode(ids, torch.ones_like(ids, dtype=torch.bool)).mean_BKD
    x = model.network.embedding(torch.cat([torch.tensor([[2]]), ids], 1))
    states = []
    for layer, memory in zip(model.network.decoder, model.network.remember(z)):
        x = layer(x, memory)
        states.append(x[0])
    return [*states[:-1], model.network.decoder_norm(x)[0]]


@pytest.mark.parametrize(("pooling", "pool"), [("mean", lambda h: h.mean(0)), ("last", lambda h: h[-1])])
def test_states_of_selected_layers_are_concatenated(
    model: CMIMModel, pooling: str, pool: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    for layers in [(1,), (2,), (2, 1), None]:
        expected = [
            torch.cat([pool(states_by_hand(model, text)[layer - 1]) for layer in layers or (2,)]) for text in ("CCO", "Oc1ccccc1")
        ]
        found = model.embed(["CCO", "Oc1ccccc1"], layers=layers, pooling=pooling)
        assert found.shape[1] == model.width(layers=layers, pooling=pooling)
        np.testing.assert_allclose(found, torch.stack(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["informative", "mean"])
def test_vectors_do_not_depend_on_batch_or_order(model: CMIMModel, model_of_three_latents: CMIMModel, kind: str) -> None:
    for each in (model, model_of_three_latents):
        together = each.embed(SMILES, kind)
        assert together.dtype == np.float32
        alone = np.concatenate([each.embed([s], kind) for s in SMILES])
        pairs = each.embed(SMILES[::-1], kind, batch_size=2)[::-1]
        np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(pairs, together, rtol=1e-4, atol=1e-5)


def test_widths(model: CMIMModel, model_of_three_latents: CMIMModel) -> None:
    assert model.embed(SMILES).shape == model.embed(SMILES, "mean").shape == (7, 32)
    assert model_of_three_latents.embed(SMILES).shape == (7, 32)
    assert model_of_three_latents.embed(SMILES, "mean").shape == (7, 96)


def test_all_smiles_of_a_molecule_give_one_vector_unless_canonical_is_false(model: CMIMModel) -> None:
    a, b = model.embed(["CCO", "OCC"])
    assert np.array_equal(a, b)
    symmetric = "O=C(c1ccccc1C(=O)N1C(=O)c2ccccc2C1=O)N1C(=O)c2ccccc2C1=O"  # rdkit#8721: RDKit writes two canonical SMILES
    vectors = model.embed(randomized_smiles(symmetric, 10, 7))
    assert all(np.array_equal(vectors[0], vector) for vector in vectors)
    a, b = model.embed(["CCO", "OCC"], canonical=False)
    for wrong in ("C~C", "((("):
        with pytest.raises(InvalidSmilesError):
            model.embed([wrong], canonical=False)
    assert not np.allclose(a, b)


def test_duplicates_are_embedded_once(model: CMIMModel, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    encode = model.network.encode
    monkeypatch.setattr(model.network, "encode", lambda ids, mask: seen.append(len(ids)) or encode(ids, mask))
    out = model.embed(["CCO", "C", "OCC", "CCO"], "mean")
    assert sum(seen) == 2
    assert np.array_equal(out[0], out[2]) and np.array_equal(out[0], out[3])


@pytest.mark.parametrize(
    "container",
    [
        list,
        tuple,
        np.array,
        pd.Series,
        lambda x: pd.Series(x, index=range(50, 57)),
        lambda x: [Chem.MolFromSmiles(s) for s in x],
        iter,
    ],
)
def test_containers(model: CMIMModel, container: Any) -> None:
    np.testing.assert_allclose(model.embed(container(SMILES)), model.embed(SMILES), rtol=1e-5, atol=1e-6)


def test_sampling_follows_the_posterior(model: CMIMModel) -> None:
    a, b = (model.embed(["CCO"], "mean", sample=True, seed=s) for s in (0, 1))
    assert np.array_equal(a, model.embed(["CCO"], "mean", sample=True, seed=0))
    posterior = model.encode(["CCO"])
    draws = np.stack([model.embed(["CCO"], "mean", sample=True, seed=s)[0] for s in range(200)])
    np.testing.assert_allclose(draws.std(0), posterior.variance_BKD[0, 0].sqrt(), rtol=0.35)
    assert not np.array_equal(a, b)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (
            ["CC", "C1CC"],
            InvalidSmilesError,
            "SMILES at index 1 ('C1CC') could not be parsed: unclosed ring. Pass on_invalid=\"nan\" to keep a NaN row.",
        ),
        ([None], InvalidSmilesError, "SMILES at index 0 must be text, found None (NoneType)."),
        ([1.5], InvalidSmilesError, "SMILES at index 0 must be text, found 1.5 (float)."),
        (["C", ""], InvalidSmilesError, "SMILES at index 1 is empty."),
        (["C" * 64], InvalidSmilesError, "has 64 tokens, but this model accepts at most 63."),
        (
            ["C", "[U+6]"],
            UnknownTokenError,
            "SMILES at index 1 ('[U+6]') contains the token '[U+6]', which is not in the vocabulary of this model.",
        ),
        ([Chem.Mol()], InvalidSmilesError, "SMILES at index 0 is a molecule without atoms."),
        ([], InvalidSmilesError, "There are no molecules"),
        ("CCO", InvalidSmilesError, "found the single value 'CCO'. Pass [value]."),
        (7, InvalidSmilesError, "a sequence of SMILES, found 7 (int)"),
        (np.array([["C", "CC"]]), InvalidSmilesError, "an array of shape (1, 2)"),
    ],
)
def test_invalid_molecules_are_reported_with_index_and_value(
    model: CMIMModel, value: Any, error: type[ValueError], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        model.embed(value)


def test_invalid_rows_can_be_nan(model: CMIMModel) -> None:
    rows = ["CCO", "C1CC", None, "C" * 64, "[U+6]", "", "C"]
    with pytest.warns(UserWarning, match="5 of 7 molecules are invalid.*index 1"):
        out = model.embed(rows, on_invalid="nan")
    assert np.isnan(out[1:6]).all()
    np.testing.assert_allclose(out[[0, 6]], model.embed(["CCO", "C"]), rtol=1e-5, atol=1e-6)
    with pytest.warns(UserWarning, match="2 of 2"):
        assert np.isnan(model.embed(["(", "["], on_invalid="nan")).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "means"}, "kind must be 'informative' or 'mean', found 'means'"),
        ({"on_invalid": "skip"}, 'on_invalid must be "raise" or "nan", found \'skip\''),
        ({"batch_size": 0}, "batch_size must be at least 1, found 0"),
        ({"layers": (0,)}, "layers must be distinct numbers from 1 to 2, the last layer of this model, found (0,)"),
        ({"layers": (1, 1)}, "found (1, 1)"),
        ({"layers": ()}, "found ()"),
        ({"layers": 2}, "layers must be distinct numbers from 1 to 2, the last layer of this model, found 2"),
        ({"layers": [[1]]}, "found [[1]]"),
        ({"layers": (True, 2)}, "found (True, 2)"),
        ({"layers": (1.0,)}, "found (1.0,)"),
        ({"layers": "12"}, "found '12'"),
        ({"layers": {1, 2}}, "found {1, 2}"),
        ({"batch_size": True}, "batch_size must be an integer, found True (bool)"),
        ({"batch_size": 2.5}, "batch_size must be an integer, found 2.5 (float)"),
        ({"sample": True, "seed": -1}, "seed must be at least 0, found -1"),
        ({"sample": True, "seed": False}, "seed must be an integer, found False"),
        ({"first_index": -1}, "first_index must be at least 0"),
        ({"first_index": True}, "first_index must be an integer"),
        ({"standardise": "salts"}, "standardise='salts': this step is unknown"),
        ({"standardise": ("extras", "desalt"), "canonical": False}, "standardise='desalt' writes a new SMILES"),
        ({"pooling": "max"}, "pooling must be 'mean' or 'last', found 'max'"),
        ({"kind": "mean", "pooling": "last"}, "pooling has no effect on kind='mean'"),
    ],
)
def test_invalid_options_are_reported(model: CMIMModel, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        model.embed(["C"], **options)


def test_layers_may_be_an_iterator(model: CMIMModel) -> None:
    np.testing.assert_array_equal(model.embed(SMILES, layers=iter((2, 1))), model.embed(SMILES, layers=(2, 1)))
    assert model.width(layers=iter((2, 1))) == 64


@pytest.mark.filterwarnings("ignore:.*had not ended")
def test_a_network_in_bfloat16_embeds_and_decodes(model_file: Path, model: CMIMModel) -> None:
    half = load(model_file, "cpu")
    half.network.to(torch.bfloat16)
    for options in ({}, {"pooling": "last"}, {"layers": (1, 2)}, {"kind": "mean"}, {"sample": True, "seed": 0}):
        found, expected = half.embed(SMILES, **options), model.embed(SMILES, **options)
        assert found.dtype == np.float32 and not np.array_equal(found, expected)
        difference = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
        assert difference.max() < 0.05, options
    assert len(half.reconstruct(SMILES, max_tokens=8)) == len(SMILES)


@pytest.mark.filterwarnings("ignore:.*had not ended")
def test_decoding_writes_chemical_tokens_only_and_accepts_arrays(model: CMIMModel) -> None:
    z = model.encode(SMILES).mean_BKD
    decoded = model.decode(z, max_tokens=20)
    assert decoded == model.decode(z.flatten(1).numpy(), max_tokens=20) == model.reconstruct(SMILES, max_tokens=20)
    vocabulary = model.tokenizer.vocabulary
    known = {t for t, chemical in zip(vocabulary.tokens, vocabulary.is_chemical) if chemical}
    assert all(token in known for text in decoded for token in model.tokenizer.tokenize(text))
    assert any(decoded)
    assert model.decode(torch.empty(0, 1, 32)) == []


@pytest.mark.parametrize("shape", [(32,), (2, 31), (2, 2, 32), (1, 2, 3, 4)])
def test_latents_of_a_wrong_shape_raise(model: CMIMModel, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidShapeError, match=re.escape(f"found {list(shape)}")):
        model.decode(torch.zeros(shape))


def test_embed_function_has_the_options_of_the_method() -> None:
    """Same names, order, defaults and types, except for the model and how it is loaded."""
    method, function = (dict(inspect.signature(f).parameters) for f in (CMIMModel.embed, nemo_cmim.embed))
    del method["self"], function["model"], function["device"], function["precision"], function["engine"], function["n_jobs"]
    assert list(function.items()) == list(method.items())


def test_embed_function_passes_all_options_on(model: CMIMModel) -> None:
    options: dict[str, Any] = {"layers": (1,), "pooling": "last", "canonical": False, "sample": True, "seed": 3, "batch_size": 2}
    np.testing.assert_array_equal(nemo_cmim.embed(["OCC", "C"], model, **options), model.embed(["OCC", "C"], **options))
    with pytest.raises(InvalidSmilesError, match="index 7"):
        nemo_cmim.embed(["("], model, first_index=7)
    calls: list[tuple[int, int]] = []
    with pytest.warns(UserWarning, match="1 of 2"):
        nemo_cmim.embed(["(", "C"], model, on_invalid="nan", progress=lambda *call: calls.append(call))
    assert calls[-1] == (1, 1)


def test_embed_function_caches_the_model(model_file: Path, model: CMIMModel, monkeypatch: pytest.MonkeyPatch) -> None:
    first = nemo_cmim.embed(SMILES, model=model_file)
    monkeypatch.setattr("nemo_cmim.inference.model_file.read_model_file", None)  # reading it a second time would fail
    np.testing.assert_array_equal(nemo_cmim.embed(SMILES, model=str(model_file)), first)
    np.testing.assert_allclose(nemo_cmim.embed(SMILES, model=model), first, rtol=1e-5, atol=1e-6)


def test_embed_function_reloads_a_changed_folder(model_file: Path, tmp_path: Path) -> None:
    content = members(model_file)
    folder = unpack(tmp_path / "model", {MANIFEST: manifest(content), **content})
    first = nemo_cmim.embed(SMILES, model=folder)
    (weights,) = folder.glob("*.safetensors")
    tensors = load_file(weights)
    save_file({name: -tensor for name, tensor in tensors.items()}, weights)
    with pytest.raises(CheckpointError, match="is damaged"):
        nemo_cmim.embed(SMILES, model=folder)
    (folder / MANIFEST).write_bytes(manifest(content | {weights.name: weights.read_bytes()}))
    os.utime(weights, ns=(1, 1))
    assert not np.allclose(nemo_cmim.embed(SMILES, model=folder), first)


def test_a_missing_model_is_reported() -> None:
    with pytest.raises(CheckpointError, match="no model 'cmim_huge'"):
        nemo_cmim.load("cmim_huge")


def test_progress_counts_distinct_molecules(model: CMIMModel) -> None:
    calls: list[tuple[int, int]] = []
    model.embed([*SMILES, "OCC"], progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (7, 7)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_explicit_hydrogens_do_not_matter(model: CMIMModel) -> None:
    explicit = Chem.AddHs(Chem.MolFromSmiles("CCO"))
    np.testing.assert_array_equal(model.embed([explicit]), model.embed(["CCO"]))


def test_truncated_smiles_are_counted(model: CMIMModel) -> None:
    with pytest.warns(UserWarning, match="2 of 2 SMILES had not ended after 1 tokens"):
        model.decode(torch.randn(2, 1, 32, generator=torch.Generator().manual_seed(0)) * 5, max_tokens=1)
    with pytest.raises(ConfigError, match="max_tokens must be at least 1, found 0"):
        model.decode(torch.zeros(1, 1, 32), max_tokens=0)


def test_the_repr_describes_the_model(model: CMIMModel, model_file: Path) -> None:
    assert repr(model) == (
        f"CMIMModel({str(model_file)!r}, objective=cmim, 81,120 parameters, 1 x 32 latents, at most 63 tokens, device={model.device})"
    )
    assert repr(CMIMModel(random_model(3), "cpu")).startswith("CMIMModel(objective=cmim, ")
    assert "3 x 32 latents" in repr(CMIMModel(random_model(3), "cpu"))
    assert re.fullmatch(
        rf"CMIMModel\('{DEFAULT}', .*, \d\.\d M parameters, 1 x 256 latents, .*, device=cpu\)", repr(load(DEFAULT, "cpu"))
    )


def test_a_special_token_is_unknown_in_a_smiles() -> None:
    """In vocabularies of NeMo, special tokens are single characters."""
    vocabulary = Vocabulary(
        ("<PAD>", "?", "^", "&", "<MASK>", "<SEP>", "C"), pad_id=0, unk_id=1, bos_id=2, eos_id=3, mask_id=4, sep_id=5
    )
    with pytest.raises(UnknownTokenError, match="contains the token '&', which is not in the vocabulary"):
        tokenize(["C&C"], SmilesTokenizer(vocabulary), 63, InputOptions(is_canonical=True))
