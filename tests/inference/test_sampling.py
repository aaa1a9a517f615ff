"""Sampling and interpolation of latents."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from nemo_cmim.errors import ConfigError, InvalidSmilesError
from nemo_cmim.inference import CMIMModel
from nemo_cmim.types import Posterior

SMILES = ["CCO", "c1ccccc1O"]
pytestmark = pytest.mark.filterwarnings("ignore:.*had not ended")


@pytest.fixture
def latents(model: CMIMModel, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The latents that are passed to `decode`, which does not decode them here."""
    seen: list[torch.Tensor] = []

    def note(z: torch.Tensor, **_: object) -> list[str]:
        seen.append(z)
        return [str(i) for i in range(len(z))]

    monkeypatch.setattr(model, "decode", note)
    return seen


def test_the_prior_is_standard_normal_and_reproducible_with_a_seed(model: CMIMModel, latents: list[torch.Tensor]) -> None:
    assert len(model.sample(500, seed=3)) == 500
    model.sample(500, seed=3)
    model.sample(500)
    first, again, other = latents
    assert first.shape == (500, 1, 32)
    assert abs(float(first.mean())) < 0.03 and abs(float(first.std()) - 1) < 0.03
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_the_radius_is_in_posterior_standard_deviations(model: CMIMModel, latents: list[torch.Tensor]) -> None:
    posterior: Posterior = model.encode(SMILES)
    rows = model.sample(200, smiles=SMILES, scaled_radius=2.0, seed=0)
    assert [len(row) for row in rows] == [200, 200] and rows[1][0] == "200"
    for i, z in enumerate(latents[0].split(200)):
        steps = (z - posterior.mean_BKD[i]) / posterior.variance_BKD[i].sqrt()
        assert abs(float(steps.mean())) < 0.1 and abs(float(steps.std()) - 2) < 0.1


def test_radius_zero_and_the_ends_of_a_line_are_reconstructions(model: CMIMModel) -> None:
    expected = model.reconstruct(SMILES, max_tokens=12)
    assert model.sample(2, smiles=SMILES, scaled_radius=0, max_tokens=12) == [[text] * 2 for text in expected]
    line = model.interpolate(*SMILES, steps=5, max_tokens=12)
    assert len(line) == 5 and [line[0], line[-1]] == expected


def test_interpolation_is_a_straight_line(model: CMIMModel, latents: list[torch.Tensor]) -> None:
    model.interpolate(*SMILES, steps=3)
    torch.testing.assert_close(latents[0][1], model.encode(SMILES).mean_BKD.mean(0))


@pytest.mark.parametrize(
    ("call", "arguments", "message"),
    [
        ("sample", {"n": 0}, "found n=0"),
        ("sample", {"smiles": SMILES, "scaled_radius": -1}, "scaled_radius=-1"),
        ("sample", {"scaled_radius": 0.5}, "no effect without smiles"),
        ("interpolate", {"a": "C", "b": "O", "steps": 1}, "at least 2 (the two ends), found 1"),
    ],
)
def test_invalid_arguments_raise(model: CMIMModel, call: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        getattr(model, call)(**arguments)


def test_invalid_molecules_raise(model: CMIMModel) -> None:
    with pytest.raises(InvalidSmilesError, match="'C1C'"):
        model.sample(2, smiles=["C", "C1C"])
    with pytest.raises(InvalidSmilesError, match="sequence"):
        model.sample(2, smiles="CCO")
