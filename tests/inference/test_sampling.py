"""Sampling and interpolation of latents."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
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
        ("sample", {"n": 0}, "n must be at least 1, found 0"),
        ("sample", {"n": 2.0}, "n must be an integer, found 2.0 (float)"),
        ("sample", {"n": True}, "n must be an integer, found True (bool)"),
        ("sample", {"n": None}, "n must be an integer, found None"),
        ("sample", {"seed": -1}, "seed must be at least 0, found -1"),
        ("sample", {"seed": 2**63}, "seed must be at most 9223372036854775807"),
        ("sample", {"seed": "7"}, "seed must be an integer, found '7' (str)"),
        ("sample", {"max_tokens": 2.5}, "max_tokens must be an integer, found 2.5"),
        ("sample", {"max_tokens": True}, "max_tokens must be an integer, found True"),
        ("sample", {"on_invalid": "nan"}, "no effect without smiles"),
        ("sample", {"standardise": "desalt"}, "no effect without smiles"),
        *[
            (
                "sample",
                {"smiles": SMILES, "scaled_radius": value},
                f"scaled_radius must be a finite number of at least 0, found {value!r}",
            )
            for value in (-1, float("nan"), float("inf"), -float("inf"), True, "1", None, np.float64("nan"))
        ],
        ("sample", {"scaled_radius": 0.5}, "no effect without smiles"),
        ("interpolate", {"a": "C", "b": "O", "steps": 1}, "steps must be at least 2, found 1"),
        ("interpolate", {"a": "C", "b": "O", "steps": 3.0}, "steps must be an integer, found 3.0"),
        ("interpolate", {"a": "C", "b": "O", "steps": True}, "steps must be an integer, found True"),
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
    for ends in (("C", ["C"]), ("C", None), (b"C", "C")):
        with pytest.raises(InvalidSmilesError, match="must be text"):
            model.interpolate(*ends)  # type: ignore[arg-type]


def test_numbers_of_numpy_are_numbers(model: CMIMModel) -> None:
    options = {"scaled_radius": np.float32(0.5), "seed": np.int64(3), "max_tokens": np.int32(8)}
    found = model.sample(np.int64(2), smiles=SMILES, **options)  # type: ignore[arg-type]
    assert found == model.sample(2, smiles=SMILES, scaled_radius=0.5, seed=3, max_tokens=8)
    assert len(model.interpolate("C", "O", np.int64(3), max_tokens=8)) == 3  # type: ignore[arg-type]


def test_invalid_molecules_can_be_none(model: CMIMModel) -> None:
    """What is drawn around a valid molecule does not depend on its invalid neighbours."""
    rows = ["CCO", "C1CC", None, "c1ccccc1O"]
    with pytest.warns(UserWarning, match="2 of 4 molecules are invalid; their rows are None.*index 1 .*unclosed ring"):
        drawn = model.sample(2, smiles=rows, seed=3, max_tokens=8, on_invalid="nan")
    assert drawn[1] is None and drawn[2] is None
    expected = model.sample(2, smiles=["CCO", "C", "C", "c1ccccc1O"], seed=3, max_tokens=8)
    assert [drawn[0], drawn[3]] == [expected[0], expected[3]]
    with pytest.warns(UserWarning, match="2 of 4"):
        again = model.reconstruct(rows, max_tokens=8, on_invalid="nan")
    assert again == [model.reconstruct(["CCO"], max_tokens=8)[0], None, None, model.reconstruct(["c1ccccc1O"], max_tokens=8)[0]]
    with pytest.warns(UserWarning, match="1 of 2"):
        assert model.interpolate("CCO", "C1C", 4, on_invalid="nan") == [None] * 4
    with pytest.warns(UserWarning, match="1 of 1"):
        assert model.sample(3, smiles=["("], on_invalid="nan") == model.reconstruct(["("], on_invalid="nan") == [None]
    for call in (model.reconstruct, lambda x: model.sample(smiles=x), lambda x: model.interpolate(x[0], x[1])):
        with pytest.raises(InvalidSmilesError, match='Pass on_invalid="nan" to keep None in its place'):
            call(["CC(", "C"])
        with pytest.raises(ConfigError, match="on_invalid must be"):
            model.sample(smiles=["C"], on_invalid="drop")


def test_molecules_are_standardised_before_they_are_decoded(model: CMIMModel) -> None:
    raw, standard = ["[CH3:1]CO ethanol", "CCO.Cl"], ["CCO", "CCO"]
    steps = ("extras", "atom-maps", "desalt")
    assert model.reconstruct(raw, standardise=steps, max_tokens=8) == model.reconstruct(standard, max_tokens=8)
    assert model.sample(2, smiles=raw, seed=1, standardise=steps, max_tokens=8) == model.sample(
        2, smiles=standard, seed=1, max_tokens=8
    )
    line = model.interpolate(*raw, 3, standardise=steps, max_tokens=8)
    assert line == model.interpolate(*standard, 3, max_tokens=8)
