"""log p(x|z) of molecules, compared with its definition and with what decoding reports."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from rdkit import Chem

from nemo_cmim.errors import ConfigError, InvalidLatentError, InvalidShapeError, InvalidSmilesError
from nemo_cmim.generation import DecodingSettings, decode
from nemo_cmim.inference import CMIMModel, load
from tests.shipped_names import WITHOUT_PROPERTIES

SMILES = ["CCO", "c1ccccc1C(=O)O", "CC(C)Cc1ccc(cc1)C(C)C(=O)O", "OCC"]


@pytest.fixture(scope="module")
def model() -> CMIMModel:
    return load(WITHOUT_PROPERTIES, "cpu")


def by_definition(model: CMIMModel, smiles: str, z_KD: torch.Tensor) -> list[float]:
    vocabulary = model.tokenizer.vocabulary
    tokens = model.tokenizer.encode(smiles)
    with torch.inference_mode():
        log_p = model.network(torch.tensor([[vocabulary.bos_id, *tokens]]), z_KD[None])[0].log_softmax(-1)
    return [float(log_p[i, token]) for i, token in enumerate([*tokens, vocabulary.eos_id])]


def test_of_the_molecule_itself(model: CMIMModel) -> None:
    found = model.log_likelihood(SMILES)
    means = model.encode(SMILES).mean_BKD
    expected = [
        by_definition(model, one, z) for one, z in zip(["CCO", "O=C(O)c1ccccc1", "CC(C)Cc1ccc(C(C)C(=O)O)cc1", "CCO"], means)
    ]
    np.testing.assert_allclose(found, [sum(terms) for terms in expected], rtol=1e-4)
    assert found.dtype == np.float64 and found[0] == found[3]
    for terms, wanted in zip(model.log_likelihood(SMILES, per_token=True), expected):
        np.testing.assert_allclose(terms, wanted, rtol=1e-3, atol=1e-4)
    text = model.log_likelihood(["OCC"], canonical=False)
    np.testing.assert_allclose(
        text, sum(by_definition(model, "OCC", model.encode(["OCC"], canonical=False).mean_BKD[0])), rtol=1e-4
    )


@pytest.mark.parametrize("one", [True, False])
def test_given_latents_or_molecules(model: CMIMModel, one: bool) -> None:
    seeds = ["CCN"] if one else ["CCN", "c1ccccc1", "CCCl", "CCN"]
    latents = model.encode(seeds).mean_BKD
    expected = [sum(by_definition(model, text, z)) for text, z in zip(["CCO", "O=C(O)c1ccccc1"], latents.expand(4, -1, -1))]
    for given in (seeds[0] if one else seeds, latents, latents.flatten(1).numpy()):
        np.testing.assert_allclose(model.log_likelihood(SMILES, given)[:2], expected, rtol=1e-4)


def test_given_molecules_of_any_kind(model: CMIMModel) -> None:
    seeds = ["CCN", "c1ccccc1", "CCCl", "CCN"]
    expected = model.log_likelihood(SMILES, seeds)
    mols = [Chem.MolFromSmiles(smiles) for smiles in seeds]
    series = pd.Series(seeds, index=[5, 6, 7, 8])
    for given in (
        np.array(seeds),
        np.array(seeds, object),
        series,
        tuple(seeds),
        pa.array(seeds),
        iter(seeds),
        mols,
        np.array(mols),
    ):
        np.testing.assert_array_equal(model.log_likelihood(SMILES, given), expected)
    np.testing.assert_allclose(model.log_likelihood(SMILES[:1], mols[0]), expected[:1], rtol=1e-5)
    latents = model.encode(seeds).mean_BKD.flatten(1)
    for columns in ([f"e{i}" for i in range(latents.shape[1])], None):
        np.testing.assert_allclose(
            model.log_likelihood(SMILES, pd.DataFrame(latents.numpy(), columns=columns)), expected, rtol=1e-5
        )
    with pytest.raises(InvalidSmilesError, match="'C1CC'"):
        model.log_likelihood(SMILES, np.array(["C", "C1CC", "C", "C"]))
    with pytest.raises(InvalidLatentError, match="must be an array of numbers"):
        model.log_likelihood(SMILES, object())


def test_is_what_decoding_reports(model: CMIMModel) -> None:
    z = model.encode(SMILES[:3]).mean_BKD
    found = decode(model.network, model.tokenizer.vocabulary, z, settings=DecodingSettings(beam_size=4, n_best=2, max_tokens=60))
    for n in range(2):
        texts = [model.tokenizer.decode(row) for row in found.ids_BNT[:, n].tolist()]
        scores = [sum(by_definition(model, text, one)) for text, one in zip(texts, z)]
        np.testing.assert_allclose(found.log_p_BN[:, n], scores, rtol=1e-3)


def test_progress_counts_molecules(model: CMIMModel) -> None:
    seen: list[tuple[int, int]] = []
    found = model.log_likelihood(SMILES, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)], "the last molecule is the first one again"
    seen.clear()
    np.testing.assert_array_equal(found, model.log_likelihood(SMILES))
    model.log_likelihood(SMILES, "CCN", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 4) for done in range(1, 5)]


def test_invalid_rows(model: CMIMModel) -> None:
    with pytest.raises(InvalidSmilesError):
        model.log_likelihood(["CCO", "C("])
    with pytest.warns(UserWarning, match="1 of 3 molecules are invalid"):
        found = model.log_likelihood(["CCO", "C(", "CCN"], "CCO", on_invalid="nan")
    assert np.isnan(found).tolist() == [False, True, False]
    with pytest.warns(UserWarning, match="invalid"):
        terms = model.log_likelihood(["CCO", "C("], on_invalid="nan", per_token=True)
    assert terms[1] is None and len(terms[0]) == 4


def test_given_of_another_length_is_an_error(model: CMIMModel) -> None:
    with pytest.raises(InvalidShapeError, match="given has 2 rows, but there are 4 molecules"):
        model.log_likelihood(SMILES, ["CC", "CN"])


@pytest.mark.filterwarnings("ignore:.*were truncated")
def test_decode_with_settings(model: CMIMModel) -> None:
    z = model.encode(SMILES[:3]).mean_BKD
    beam = model.decode(z, max_tokens=60, beam_size=5)
    assert all(isinstance(text, str) for text in beam)
    several = model.decode(z, beam_size=5, n_best=3, max_tokens=60)
    assert [len(texts) for texts in several] == [3, 3, 3] and [texts[0] for texts in several] == beam
    one, two = (model.decode(z, temperature=1.0, n_best=4, seed=1, max_tokens=60, batch_size=size) for size in (1, 3))
    assert one == two and model.decode(z, temperature=1.0, n_best=4, seed=2, max_tokens=60) != one
    with pytest.raises(ConfigError, match="beam_size must be at most 10"):
        model.decode(z, beam_size=11)
