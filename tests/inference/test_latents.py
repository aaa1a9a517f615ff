"""What `decode` accepts as latents, and the vectors that only look like latents."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

from nemo_cmim.config import ModelConfig, NetworkConfig, ObjectiveConfig
from nemo_cmim.errors import InvalidLatentError, InvalidShapeError
from nemo_cmim.inference import CMIMModel, list_models, load
from nemo_cmim.inference.decoding import _are_means_of_outputs, as_latents
from nemo_cmim.inference.model_file import ModelFile
from nemo_cmim.models import CMIMNetwork
from nemo_cmim.molecules import canonical_smiles
from nemo_cmim.tokenizers import SmilesTokenizer

REFUSED = r'informative embeddings .* cannot be decoded. Latents are encode\(smiles\).mean_BKD or embed\(smiles, kind="mean"\)'
SMILES = ["CCO", "c1ccccc1O", "CC(=O)Oc1ccccc1C(=O)O", "C"]
FORMS = [
    np.array,
    np.copy,
    lambda h: h.tolist(),
    torch.from_numpy,
    lambda h: torch.from_numpy(h).double()[:, None],
    lambda h: h.astype(np.float64),
    lambda h: h[::-1],
    np.asfortranarray,
    pd.DataFrame,
    lambda h: pd.DataFrame(h).astype(np.float64),
    pl.DataFrame,
]
OPTIONS: list[dict[str, Any]] = [{}, {"pooling": "last"}, {"sample": True, "seed": 3}, {"canonical": False}]


@pytest.fixture(scope="module", params=list_models())
def shipped(request: pytest.FixtureRequest) -> CMIMModel:
    return load(request.param, "cpu")


def usable(model: CMIMModel, smiles: tuple[str, ...]) -> list[str]:
    """Canonical SMILES of some of the molecules that the model can embed."""
    return [canonical_smiles(one) for one in smiles[::6] if len(one) < 60 and model.invalid_reason(one) is None]


def accepted(z: Any, model: CMIMModel) -> bool:
    try:
        as_latents(z, model.network, model.device)
    except InvalidLatentError:
        return False
    return True


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rows", [1, 4])
def test_informative_embeddings_are_refused(model: CMIMModel, form: Any, rows: int) -> None:
    with pytest.raises(InvalidLatentError, match=REFUSED):
        model.decode(form(model.embed(SMILES[:rows])))


@pytest.mark.parametrize("options", OPTIONS)
def test_informative_embeddings_of_shipped_models_are_refused(
    shipped: CMIMModel, options: dict[str, Any], real_smiles: tuple[str, ...]
) -> None:
    smiles = usable(shipped, real_smiles)[:120]
    vectors = shipped.embed(smiles, **options)
    assert len(vectors) == 120 and not any(accepted(row[None], shipped) for row in vectors)
    assert not accepted(vectors, shipped)
    assert not accepted(vectors[:60] + 0.3 * (vectors[60:] - vectors[:60]), shipped), "neither on a line between two of them"
    assert not any(accepted(form(vectors[:3]), shipped) for form in FORMS)


def test_latents_of_shipped_models_are_accepted_one_by_one(shipped: CMIMModel, real_smiles: tuple[str, ...]) -> None:
    smiles = usable(shipped, real_smiles)[:200]
    posterior = shipped.encode(smiles)
    noise = torch.randn(200, *posterior.mean_BKD.shape[1:], generator=torch.Generator().manual_seed(0))
    around = posterior.mean_BKD + posterior.variance_BKD.sqrt() * noise
    between = posterior.mean_BKD.lerp(posterior.mean_BKD.flip(0), 0.3)
    for z in (posterior.mean_BKD, posterior.mean_BKD.double(), noise, around, between, 100 * noise):
        assert all(accepted(row[None], shipped) for row in z)
    for z in (torch.zeros(1, 1, 256), torch.ones(1, 1, 256), torch.eye(256)[:, None]):
        assert accepted(z, shipped)


@pytest.mark.parametrize("rows", [10_000, pytest.param(400_000, marks=pytest.mark.slow)])
def test_random_latents_are_taken_for_embeddings_once_in_a_million(shipped: CMIMModel, rows: int) -> None:
    """With these seeds, so that the result does not depend on chance."""
    found = 0
    for seed in range(rows // 10_000):
        z = torch.randn(10_000, 256, generator=torch.Generator().manual_seed(seed))
        found += int(_are_means_of_outputs(shipped.network.decoder_norm, z).sum())
    assert found <= rows // 100_000


def test_latents_of_an_untrained_model_are_accepted(model: CMIMModel) -> None:
    """Its norm has weight 1 and bias 0, so that zeros have mean 0 too."""
    means = model.encode(SMILES).mean_BKD
    noise = torch.randn(500, 1, 32, generator=torch.Generator().manual_seed(0))
    for z in (means, noise, torch.zeros(3, 1, 32), torch.ones(1, 1, 32)):
        assert all(accepted(row[None], model) for row in z)


@pytest.mark.parametrize("encoder", ["perceiver", "hybrid"])
def test_latents_of_an_autoencoder_are_outputs_of_a_norm_too(encoder: str) -> None:
    torch.manual_seed(0)
    network = NetworkConfig(
        hidden_size=32, ffn_size=64, attention_heads=4, encoder_layers=2, decoder_layers=2, latents=1, max_positions=64, init_std=0.2,
        encoder=encoder, posterior="point",
    )  # fmt: skip
    weights = CMIMNetwork(network).state_dict()
    config = ModelConfig(network=network, objective=ObjectiveConfig(name="ae"))
    untrained = CMIMModel(ModelFile(config, SmilesTokenizer().vocabulary, weights), "cpu")
    assert all(accepted(row[None], untrained) for row in untrained.encode(SMILES).mean_BKD)
    weights["decoder_norm.weight"] = torch.rand(32) + 0.5
    weights["decoder_norm.bias"] = torch.randn(32)
    trained = CMIMModel(ModelFile(config, SmilesTokenizer().vocabulary, weights), "cpu")
    assert all(accepted(row[None], trained) for row in trained.encode(SMILES).mean_BKD)
    assert not any(accepted(row[None], trained) for row in trained.embed(SMILES))


@pytest.mark.parametrize(
    ("z", "message"),
    [
        (np.array([[0.0] * 32, [0.0] * 31 + [np.nan]]), "row 1, counted from 0, contains NaN or infinity"),
        (np.full((1, 1, 32), np.inf), "row 0, counted from 0"),
        (torch.full((2, 32), -torch.inf), "row 0"),
        (np.full((1, 32), 1e300), "row 0"),
        (["CCO", "C"], "Latents must be an array of numbers, found a list"),
        ("CCO", "Latents must be an array of numbers, found a str"),
        (pd.DataFrame({"smiles": ["CCO"]}), "Latents must be an array of numbers, found a DataFrame"),
    ],
)
def test_latents_that_are_not_numbers_or_not_finite_raise(model: CMIMModel, z: Any, message: str) -> None:
    with pytest.raises(InvalidLatentError, match=re.escape(message)):
        model.decode(z)


def test_rows_of_invalid_molecules_cannot_be_decoded(model: CMIMModel) -> None:
    with pytest.warns(UserWarning, match="1 of 2"):
        posterior = model.encode(["C", "C1C"], on_invalid="nan")
    with pytest.raises(InvalidLatentError, match=r'row 1, .*on_invalid="nan". Remove these rows'):
        model.decode(posterior.mean_BKD)


def test_an_embedding_of_another_width_is_reported_with_the_right_source(
    model: CMIMModel, model_of_three_latents: CMIMModel
) -> None:
    for each, vectors in (
        (model, model.embed(SMILES, layers=(1, 2))),
        (model_of_three_latents, model_of_three_latents.embed(SMILES)),
    ):
        with pytest.raises(InvalidShapeError, match=r"found \[4, \d+\]. Latents are encode\(smiles\).mean_BKD"):
            each.decode(vectors)


def test_a_mixture_of_latents_and_informative_embeddings_is_refused(shipped: CMIMModel) -> None:
    if shipped.config.network.latents > 1 or not shipped.config.network.decoder_layers:
        pytest.skip("informative embeddings do not have the shape of latents")
    mixture = np.concatenate([shipped.embed(SMILES, "mean"), shipped.embed(SMILES)])
    with pytest.raises(InvalidLatentError, match=r"4 of 8 vectors, the first in row 4, counted from 0, are informative"):
        shipped.decode(mixture)
    with pytest.raises(InvalidLatentError, match=r"1 of 5 vectors, the first in row 4"):
        shipped.decode(mixture[:5])
    with pytest.raises(InvalidLatentError, match=r"4 of 8 vectors, the first in row 104"):
        shipped.decode(mixture, first_index=100)


@pytest.mark.parametrize("value", [1e30, -1e5])
def test_numbers_that_no_latent_has_are_refused(model: CMIMModel, value: float) -> None:
    z = np.zeros((2, 32), np.float32)
    z[1, 3] = value
    with pytest.raises(InvalidLatentError, match=rf"row 1, counted from 0, contains {abs(value):.3g}".replace("+", r"\+")):
        model.decode(z)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (lambda z: z.astype(complex), "its numbers are complex128"),
        (lambda z: z > 0, "its numbers are bool"),
        (lambda z: torch.from_numpy(z).to(torch.complex64), "its numbers are torch.complex64"),
        (lambda z: np.ma.masked_array(z, mask=np.eye(*z.shape, dtype=bool)), "some of its numbers are masked"),
    ],
)
def test_numbers_of_other_kinds_are_refused(model: CMIMModel, form: Any, message: str) -> None:
    with pytest.raises(InvalidLatentError, match=message):
        model.decode(form(model.embed(SMILES, "mean")))


@pytest.mark.parametrize(
    "form",
    [
        lambda z: pa.FixedSizeListArray.from_arrays(pa.array(z.ravel()), z.shape[1]),
        lambda z: pa.chunked_array([pa.array([*z])]),
        lambda z: pd.Series([*z]),
        lambda z: pl.Series([*z]),
    ],
)
def test_a_column_of_lists_is_accepted(model: CMIMModel, form: Any) -> None:
    z = model.embed(SMILES, "mean")
    assert torch.equal(as_latents(form(z), model.network, model.device), as_latents(z, model.network, model.device))
