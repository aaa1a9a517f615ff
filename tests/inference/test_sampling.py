"""Sampling and interpolation of latents."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nemo_cmim.errors import ConfigError, InvalidSmilesError
from nemo_cmim.inference import CMIMModel, sampling
from nemo_cmim.inference.fit_density import fit_density
from nemo_cmim.inference.model_file import read_model_file
from nemo_cmim.molecules import is_valid

SMILES = ["CCO", "c1ccccc1O"]
MOLECULES = [f"{'C' * chain}{end}" for chain in range(1, 9) for end in ("O", "N", "F", "C#N", "c1ccccc1")]
AROUND: dict[str, Any] = {"unit": "posterior"}  # a unit that needs no fitted density
pytestmark = pytest.mark.filterwarnings("ignore:.*had not ended")


@pytest.fixture
def latents(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The latents that `sample` decodes. They are not decoded here: each becomes the SMILES of an alkane, or every third is invalid."""
    seen: list[torch.Tensor] = []

    def note(network: object, tokenizer: object, batches: Any, settings: object, numbers: Any) -> list[list[str]]:
        z = torch.cat([batch for batch, _ in batches])
        seen.append(z)
        return [["C" * (1 + number % 2**32 % 40) if number % 3 else "C("] for number in numbers]

    monkeypatch.setattr(sampling, "decode_batches", note)
    return seen


@pytest.fixture(scope="module")
def with_density(model_file: Path) -> CMIMModel:
    """A model with the density of the latents of MOLECULES."""
    return CMIMModel(fit_density(read_model_file(model_file), MOLECULES))


def test_normal_density_is_standard_normal_and_reproducible_with_a_seed(model: CMIMModel, latents: list[torch.Tensor]) -> None:
    for seed in (3, 3, None):
        assert len(model.sample(500, seed=seed, density="normal")) == 500
    first, again, other = latents
    assert first.shape == (500, 1, 32)
    assert abs(float(first.mean())) < 0.03 and abs(float(first.std()) - 1) < 0.03
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("unit", ["posterior", "absolute", "spread"])
def test_radius_counts_units(with_density: CMIMModel, latents: list[torch.Tensor], unit: str) -> None:
    posterior, density = with_density.encode(SMILES), with_density.density
    assert density is not None
    rows = with_density.sample(400, smiles=SMILES, scaled_radius=2.0, unit=unit, seed=0)
    assert [len(row) for row in rows] == [400, 400]
    for i, z in enumerate(latents[0].split(400)):
        steps = (z - posterior.mean_BKD[i]).flatten(1)
        if unit == "posterior":
            steps = steps / posterior.variance_BKD[i].sqrt()
        if unit == "spread":
            steps = torch.linalg.solve_triangular(torch.from_numpy(density.spread_ZZ), steps.T, upper=False).T
        assert abs(float(steps.mean())) < 0.1 and abs(float(steps.std()) - 2) < 0.1


def test_samples_of_the_aggregated_posterior_are_distributed_as_its_density(
    with_density: CMIMModel, latents: list[torch.Tensor]
) -> None:
    with_density.sample(2000, seed=0)
    posterior = with_density.encode(MOLECULES)
    means, drawn = posterior.mean_BKD.flatten(1), latents[0].flatten(1)
    spread = (means.var(0) + posterior.variance_BKD.flatten(1).mean(0)).sqrt()
    assert float(((drawn.mean(0) - means.mean(0)) / spread).abs().max()) < 0.15
    assert 0.9 < float((drawn.std(0) / spread).mean()) < 1.1


def test_a_row_does_not_depend_on_other_rows(with_density: CMIMModel) -> None:
    options: dict[str, Any] = {"scaled_radius": 1.0, "temperature": 1.0, "seed": 5, "max_tokens": 10}
    both = with_density.sample(3, smiles=SMILES, **options)
    assert both == [with_density.sample(3, smiles=[one], first_index=i, **options)[0] for i, one in enumerate(SMILES)]
    assert both != with_density.sample(3, smiles=SMILES, **(options | {"seed": 6}))


def test_rows_and_seeds_have_different_noise(model: CMIMModel, latents: list[torch.Tensor]) -> None:
    for seed in (2**63 - 1, 2**63 - 2):
        model.sample(2, smiles=["C", "C"], unit="absolute", seed=seed)
    noise = torch.cat(latents).flatten(1)
    assert len({tuple(row.tolist()) for row in noise}) == 8


def test_conditions_are_met_by_drawing_again(with_density: CMIMModel, latents: list[torch.Tensor]) -> None:
    arguments: dict[str, Any] = {"smiles": SMILES, "seed": 0}
    assert "C(" in with_density.sample(9, **arguments)[0]
    for row in with_density.sample(30, valid_only=True, **arguments):
        assert len(row) == 30 and all(map(is_valid, row))
    unique = with_density.sample(25, unique=True, valid_only=True, must_contain=["CC", "[CX4]C"], **arguments)
    assert all(len(set(row)) == 25 and min(map(len, row)) >= 2 for row in unique)


@pytest.mark.parametrize(("unit", "radius"), [("absolute", 2e3), ("spread", 1e30), ("posterior", 1e308)])
def test_a_radius_that_no_decoder_can_use_raises(with_density: CMIMModel, unit: str, radius: float) -> None:
    message = re.escape(f"scaled_radius={radius:g} with unit={unit} gives latents of up to")
    with pytest.raises(ConfigError, match=message):
        with_density.sample(2, smiles=SMILES, scaled_radius=radius, unit=unit)
    if unit != "posterior":
        with pytest.raises(ConfigError, match=message):
            with_density.optimize(SMILES, scaled_radius=radius, unit=unit)


def test_too_few_molecules_are_a_warning(with_density: CMIMModel, latents: list[torch.Tensor]) -> None:
    with pytest.warns(
        UserWarning, match=r"Fewer than 5 .* in 2 of 2 rows; in row 0, .*: 15 drawn, 10 valid, 0 kept. Allow more than attempts=3,"
    ):
        assert with_density.sample(5, smiles=SMILES, must_contain="N", attempts=3, seed=0) == [[], []]
    assert sum(len(z) for z in latents) == 2 * 15


def test_radius_zero_and_the_ends_of_a_path_are_reconstructions(model: CMIMModel) -> None:
    expected = model.reconstruct(SMILES, max_tokens=12)
    assert model.sample(2, smiles=SMILES, scaled_radius=0, unit="absolute", max_tokens=12) == [[text] * 2 for text in expected]
    for spherical in (False, True):
        line = model.interpolate(*SMILES, steps=5, spherical=spherical, max_tokens=12)
        assert len(line) == 5 and [line[0], line[-1]] == expected


def test_pairs_give_what_each_of_them_gives(model: CMIMModel) -> None:
    pairs = [("CCO", "c1ccccc1O"), ("CC", "C1C"), ("CCN", "CCO")]
    seen: list[tuple[int, int]] = []
    with pytest.warns(UserWarning, match="1 of 6 molecules are invalid; their rows are None"):
        found = model.interpolate_pairs(
            pairs, 130, unique=True, on_invalid="nan", max_tokens=8, progress=lambda done, total: seen.append((done, total))
        )
    assert found == [
        model.interpolate(*pairs[0], 130, unique=True, max_tokens=8),
        None,
        model.interpolate(*pairs[2], 130, unique=True, max_tokens=8),
    ]
    assert seen == [(1, 2), (2, 2)], "a batch holds the latents of one pair"
    with pytest.raises(InvalidSmilesError, match="index 3 "):
        model.interpolate_pairs(pairs)
    with pytest.raises(InvalidSmilesError, match="no molecules"):
        model.interpolate_pairs([])
    for wrong, item in (
        (["CC", "CO"], "item 0 is 'CC'"),
        ([("C", "N"), ("C", "N", "O")], "item 1 is ('C', 'N', 'O')"),
        (("C", 3), "'C'"),
    ):
        with pytest.raises(InvalidSmilesError, match=re.escape(item)):
            model.interpolate_pairs(wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidSmilesError, match="item 0 is 3"):
        model.interpolate_pairs([3])  # type: ignore[list-item]
    with pytest.raises(InvalidSmilesError, match=r"pairs must be a sequence of pairs of molecules, found None. Pass \[\(a, b\)\]"):
        model.interpolate_pairs(None)  # type: ignore[arg-type]
    assert model.interpolate_pairs(np.array(pairs[::2]), 3, max_tokens=8)[1] == model.interpolate(*pairs[2], 3, max_tokens=8)  # type: ignore[arg-type]


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch, with_density: CMIMModel) -> list[torch.Tensor]:
    """The latents that `interpolate` passes to `decode`, which returns as many methanes here."""
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(with_density, "decode", lambda z, **_: seen.append(z) or ["C"] * len(z))
    return seen


def test_interpolation_is_a_straight_line(with_density: CMIMModel, path: list[torch.Tensor]) -> None:
    assert with_density.interpolate(*SMILES, steps=3) == ["C"] * 3
    torch.testing.assert_close(path[0][1], with_density.encode(SMILES).mean_BKD.mean(0))


def test_spherical_interpolation_turns_at_a_constant_angle(with_density: CMIMModel, path: list[torch.Tensor]) -> None:
    assert with_density.interpolate(*SMILES, steps=5, spherical=True, unique=True) == ["C"]
    assert with_density.density is not None
    arms = path[0].flatten(1) - torch.from_numpy(with_density.density.mean_Z)
    lengths = arms.norm(dim=1)
    torch.testing.assert_close(lengths, torch.linspace(float(lengths[0]), float(lengths[-1]), 5), rtol=1e-4, atol=0)
    angles = torch.arccos(torch.nn.functional.cosine_similarity(arms[1:], arms[:-1]).clamp(-1, 1))
    torch.testing.assert_close(angles, angles.mean().expand(4), rtol=1e-2, atol=1e-4)


def test_latents_far_from_those_of_molecules_are_a_warning(with_density: CMIMModel, model: CMIMModel) -> None:
    assert with_density.density is not None
    typical = with_density.density.sample(20, np.random.default_rng(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*had not ended")
        with_density.decode(typical, max_tokens=4)
        model.decode(typical * 50, max_tokens=4)  # without a density, nothing is known
    typical[[3, 7]] = with_density.density.mean_Z + 50 * (typical[[3, 7]] - with_density.density.mean_Z)
    with pytest.warns(
        UserWarning, match=r"2 of 20 latents are far from those of molecules.* row 13, counted from 0, at [\d.]+ times"
    ):
        with_density.decode(typical, max_tokens=4, first_index=10)


def test_without_a_density_the_message_says_what_to_do(model: CMIMModel) -> None:
    with pytest.raises(ConfigError, match=r"unit=\"spread\" needs a density.*fit-prior.*unit=\"posterior\""):
        model.sample(2, smiles=SMILES)
    with pytest.raises(ConfigError, match=r"density=\"aggregated\" needs a density.*density=\"normal\""):
        model.sample(2)


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
        ("sample", {"scaled_radius": 0.7}, "scaled_radius has no effect without smiles"),
        ("sample", {"unit": "absolute"}, "unit has no effect without smiles"),
        ("sample", {"unit": "sigma"}, "unit must be one of spread, posterior, absolute, found 'sigma'"),
        ("sample", {"density": "prior"}, "density must be one of aggregated, normal, found 'prior'"),
        ("sample", {"must_contain": "c1cc"}, "RDKit cannot parse 'c1cc'"),
        ("sample", {"unique": "no"}, "unique must be True or False, found 'no' (str)"),
        ("sample", {"valid_only": None}, "valid_only must be True or False, found None"),
        ("sample", {"attempts": 0}, "attempts must be at least 1"),
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
        model.sample(2, smiles=["C", "C1C"], **AROUND)
    with pytest.raises(InvalidSmilesError, match="sequence"):
        model.sample(2, smiles="CCO", **AROUND)
    for ends in (("C", ["C"]), ("C", None), (b"C", "C")):
        with pytest.raises(InvalidSmilesError, match="must be text"):
            model.interpolate(*ends)  # type: ignore[arg-type]


def test_numbers_of_numpy_are_numbers(model: CMIMModel) -> None:
    options = {"unit": "posterior", "scaled_radius": np.float32(0.5), "seed": np.int64(3), "max_tokens": np.int32(8)}
    found = model.sample(np.int64(2), smiles=SMILES, **options)  # type: ignore[arg-type]
    assert found == model.sample(2, smiles=SMILES, scaled_radius=0.5, seed=3, max_tokens=8, **AROUND)
    assert len(model.interpolate("C", "O", np.int64(3), max_tokens=8)) == 3  # type: ignore[arg-type]


def test_invalid_molecules_can_be_none(model: CMIMModel) -> None:
    """What is drawn around a valid molecule does not depend on its invalid neighbours."""
    rows = ["CCO", "C1CC", None, "c1ccccc1O"]
    with pytest.warns(UserWarning, match="2 of 4 molecules are invalid; their rows are None.*index 1 .*unclosed ring"):
        drawn = model.sample(2, smiles=rows, seed=3, max_tokens=8, on_invalid="nan", **AROUND)
    assert drawn[1] is None and drawn[2] is None
    expected = model.sample(2, smiles=["CCO", "C", "C", "c1ccccc1O"], seed=3, max_tokens=8, **AROUND)
    assert [drawn[0], drawn[3]] == [expected[0], expected[3]]
    with pytest.warns(UserWarning, match="2 of 4"):
        again = model.reconstruct(rows, max_tokens=8, on_invalid="nan")
    assert again == [model.reconstruct(["CCO"], max_tokens=8)[0], None, None, model.reconstruct(["c1ccccc1O"], max_tokens=8)[0]]
    with pytest.warns(UserWarning, match="1 of 2"):
        assert model.interpolate("CCO", "C1C", 4, on_invalid="nan") == [None] * 4
    with pytest.warns(UserWarning, match="1 of 1"):
        assert model.sample(3, smiles=["("], on_invalid="nan", **AROUND) == model.reconstruct(["("], on_invalid="nan") == [None]
    for call in (model.reconstruct, lambda x: model.sample(smiles=x, **AROUND), lambda x: model.interpolate(x[0], x[1])):
        with pytest.raises(InvalidSmilesError, match='Pass on_invalid="nan" to keep None in its place'):
            call(["CC(", "C"])
        with pytest.raises(ConfigError, match="on_invalid must be"):
            model.sample(smiles=["C"], on_invalid="drop", **AROUND)


def test_molecules_are_standardised_before_they_are_decoded(model: CMIMModel) -> None:
    raw, standard = ["[CH3:1]CO ethanol", "CCO.Cl"], ["CCO", "CCO"]
    steps = ("extras", "atom-maps", "desalt")
    assert model.reconstruct(raw, standardise=steps, max_tokens=8) == model.reconstruct(standard, max_tokens=8)
    assert model.sample(2, smiles=raw, seed=1, standardise=steps, max_tokens=8, **AROUND) == model.sample(
        2, smiles=standard, seed=1, max_tokens=8, **AROUND
    )
    line = model.interpolate(*raw, 3, standardise=steps, max_tokens=8)
    assert line == model.interpolate(*standard, 3, max_tokens=8)
