"""Fits and predictions of `FineTuner`."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nemo_cmim.errors import CheckpointError, ConfigError, DataError
from nemo_cmim.inference import CMIMModel
from nemo_cmim.properties.fine_tuning import FineTuner, Recipe
from nemo_cmim.properties.fine_tuning.head import Outputs, balanced_weights, loss
from tests.inference.conftest import random_model

QUICK = Recipe(epochs=3, batch_size=4, hidden=8, augment=0.5)
THOROUGH = Recipe(
    start=False, augment=0, epochs=60, patience=60, validation=0, batch_size=8, dropout=0, weight_decay=0,
    head_rate=1e-2, decoder_rate=3e-3, encoder_rate=3e-3,
)  # fmt: skip


class Killed(Exception):
    """Stands for a killed process."""


@pytest.fixture(scope="module")
def fitted(model: CMIMModel, sixteen: list[str], values: NDArray[np.float64]) -> FineTuner:
    return FineTuner(model=model, recipe=QUICK, members=2).fit(sixteen, values)


def test_it_memorises_sixteen_molecules(model: CMIMModel, sixteen: list[str], values: NDArray[np.float64]) -> None:
    before = {name: weight.clone() for name, weight in model.network.state_dict().items()}
    tuner = FineTuner(model=model, recipe=THOROUGH, members=1).fit(sixteen, values)
    error = np.abs(np.asarray(tuner.predict(sixteen))[:, 0] - values).max()
    assert error < 0.2 * values.std()
    assert all(torch.equal(weight, before[name]) for name, weight in model.network.state_dict().items())


def test_it_memorises_classes_of_several_targets(model: CMIMModel, sixteen: list[str]) -> None:
    rng = np.random.default_rng(0)
    codes = np.stack([rng.integers(0, 2, 16), rng.integers(0, 3, 16)], 1).astype(float)
    codes[::5, 1] = np.nan
    tuner = FineTuner("classification", model, recipe=THOROUGH, members=1, classes=(2, 3)).fit(sixteen, codes)
    binary, ternary = tuner.predict(sixteen)
    assert binary.shape == (16, 2)
    assert ternary.shape == (16, 3)
    np.testing.assert_allclose(ternary.sum(1), 1)
    assert (binary.argmax(1) == codes[:, 0]).all()
    known = ~np.isnan(codes[:, 1])
    assert (ternary.argmax(1) == codes[:, 1])[known].all()


def test_the_seed_decides_and_global_random_numbers_stay(model: CMIMModel, sixteen: list[str], values: NDArray[np.float64]) -> None:
    def fit(seed: int) -> NDArray[np.float64]:
        return np.asarray(FineTuner(model=model, recipe=QUICK, members=1, random_state=seed).fit(sixteen, values).predict(sixteen))

    state = torch.get_rng_state()
    first = fit(0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    np.testing.assert_array_equal(fit(0), first)
    assert not np.array_equal(fit(1), first)


def test_members_are_averaged(sixteen: list[str], fitted: FineTuner) -> None:
    parts: list[NDArray[np.float64]] = []
    for weights in fitted.members_:
        alone = copy.copy(fitted)
        alone.members_ = [weights]
        parts.append(np.asarray(alone.predict(sixteen)))
    assert not np.array_equal(parts[0], parts[1])
    np.testing.assert_allclose(fitted.predict(sixteen), np.mean(parts, 0), rtol=1e-6)


@pytest.mark.parametrize("scope", ["all", "last:1", "lora:2"])
def test_a_fit_that_was_killed_continues_to_the_same_result(
    model: CMIMModel, sixteen: list[str], values: NDArray[np.float64], tmp_path: Path, scope: str
) -> None:
    recipe = Recipe(scope=scope, epochs=3, batch_size=4, hidden=8, augment=0.5)

    def kill_after_four(done: int, total: int) -> None:
        if done == 4:
            raise Killed

    expected = FineTuner(model=model, recipe=recipe, members=2).fit(sixteen, values)
    tuner = FineTuner(model=model, recipe=recipe, members=2, checkpoint=tmp_path)
    with pytest.raises(Killed):
        tuner.fit(sixteen, values, kill_after_four)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.safetensors")) == [
        "seed-0/member.safetensors", "seed-1/epoch.safetensors",
    ]  # fmt: skip
    done: list[int] = []
    resumed = tuner.fit(sixteen, values, lambda epoch, total: done.append(epoch))
    assert done == [3, 5, 6, 6]  # the first member and the first epoch of the second were not repeated
    for found, wanted in zip(resumed.members_, expected.members_):
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_checkpoint_of_another_fit_is_refused(
    model: CMIMModel, sixteen: list[str], values: NDArray[np.float64], tmp_path: Path
) -> None:
    FineTuner(model=model, recipe=QUICK, members=2, checkpoint=tmp_path).fit(sixteen, values)
    for changed, seed in ((values + 1, 0), (values, 1)):  # seed 1 also had a member of the first fit
        with pytest.raises(CheckpointError, match=rf"seed-{seed}.member.safetensors belongs to a fit with other data"):
            FineTuner(model=model, recipe=QUICK, members=1, checkpoint=tmp_path, random_state=seed).fit(sixteen, changed)
    file = tmp_path / "seed-0" / "member.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"member.safetensors is damaged"):
        FineTuner(model=model, recipe=QUICK, members=1, checkpoint=tmp_path).fit(sixteen, values)


def test_predictions_do_not_depend_on_the_batch(fitted: FineTuner, sixteen: list[str]) -> None:
    together = np.asarray(fitted.predict(sixteen))
    alone = np.concatenate([fitted.predict([smiles]) for smiles in sixteen])
    np.testing.assert_allclose(alone, together, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(fitted.predict(sixteen[::-1])[::-1], together, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(fitted.predict(["OCC", "CCO"]), together[[2, 2]], rtol=1e-5, atol=1e-5)


def test_missing_targets_have_no_gradient() -> None:
    for outputs, targets in (
        (Outputs("regression", (1, 1)), [[1.0, np.nan], [np.nan, np.nan]]),
        (Outputs("classification", (2, 3)), [[1.0, np.nan], [np.nan, np.nan]]),
    ):
        y_BW = torch.randn(2, sum(outputs.widths), requires_grad=True)
        loss(y_BW, torch.tensor(targets), outputs).backward()
        assert y_BW.grad is not None
        first = outputs.widths[0]
        assert (y_BW.grad[0, :first] != 0).all()
        assert (y_BW.grad[0, first:] == 0).all()
        assert (y_BW.grad[1] == 0).all()


def test_class_weights_multiply_the_loss_of_their_class() -> None:
    outputs, y_BW, codes = Outputs("classification", (2,)), torch.randn(3, 2), torch.tensor([[0.0], [0.0], [1.0]])
    each = [float(loss(y_BW[[row]], codes[[row]], outputs)) for row in range(3)]
    weighted = loss(y_BW, codes, outputs, torch.tensor([0.75, 1.5]))
    assert float(weighted) == pytest.approx((0.75 * each[0] + 0.75 * each[1] + 1.5 * each[2]) / 3)


def test_balanced_classes_raise_the_probability_of_the_rare_one(model: CMIMModel, sixteen: list[str]) -> None:
    rare = (np.arange(16) % 8 == 0).astype(float)
    means = []
    for class_weight in (None, "balanced"):
        recipe = Recipe(scope="last:1", epochs=3, batch_size=4, hidden=0, class_weight=class_weight)
        tuner = FineTuner("classification", model, recipe=recipe, members=1).fit(sixteen, rare)
        means.append(tuner.predict(sixteen)[0][:, 1].mean())
    assert means[0] < 0.3 and means[1] > means[0] + 0.1


def test_balanced_weights() -> None:
    codes = np.array([[0.0, 1.0], [0.0, np.nan], [0.0, 1.0], [1.0, np.nan]])
    found = balanced_weights(codes, Outputs("classification", (2, 3)))
    np.testing.assert_allclose(found, [4 / 6, 4 / 2, 1, 1, 1])


def test_a_value_that_is_missing_everywhere_else_does_not_change_the_rest(
    model: CMIMModel, sixteen: list[str], values: NDArray[np.float64], fitted: FineTuner
) -> None:
    more = [*sixteen, "CCCCCCCC"]
    with_missing = FineTuner(model=model, recipe=QUICK, members=2).fit(more, np.append(values, np.nan))
    np.testing.assert_array_equal(with_missing.predict(sixteen), fitted.predict(sixteen))


@pytest.mark.parametrize("scope", ["all", "lora:2"])
def test_the_state_rebuilds_the_predictor(model: CMIMModel, sixteen: list[str], values: NDArray[np.float64], scope: str) -> None:
    tuner = FineTuner(model=model, recipe=Recipe(scope=scope, epochs=2, batch_size=4, hidden=8), members=2).fit(sixteen, values)
    arrays, settings = tuner.state()
    if scope != "all":
        assert sum(array.size for array in arrays.values()) < 2 * sum(weight.numel() for weight in model.network.parameters())
    rebuilt = FineTuner.from_state(arrays, json.loads(json.dumps(settings)), model)
    np.testing.assert_array_equal(rebuilt.predict(sixteen), tuner.predict(sixteen))
    other = CMIMModel(random_model(latents=3), "cpu")
    with pytest.raises(CheckpointError, match="trained from an embedding with the fingerprint"):
        FineTuner.from_state(arrays, settings, other)
    for name, message in (("frozen.bias_W", "lacks bias_W"), ("1.head.linear.bias", "1 differ in name or shape")):
        incomplete = {other: array for other, array in arrays.items() if other != name}
        with pytest.raises(CheckpointError, match=message):
            FineTuner.from_state(incomplete, settings, model)


@pytest.mark.parametrize(
    ("task", "smiles", "targets", "message"),
    [
        ("regression", ["C", "CC"], [1.0], r"Found 2 SMILES and targets of shape \[1, 1\]"),
        ("regression", ["C", "CC"], [1.0, np.inf], r"Target 0 of molecule 1 \('CC'\) is infinite"),
        ("regression", ["C", "CC"], [[1.0, np.nan], [2.0, np.nan]], "Target 1 has no value"),
        ("classification", ["C", "CC"], [0.0, 1.5], "Target 0 of molecule 1 is 1.5, not a class code from 0 to 1"),
        ("classification", ["C", "CC"], [0.0, -1.0], "Target 0 of molecule 1 is -1.0, not a class code"),
    ],
)
def test_wrong_targets_are_explained(
    model: CMIMModel, task: str, smiles: list[str], targets: Sequence[object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        FineTuner(task, model).fit(smiles, np.array(targets, dtype=float))


def test_wrong_arguments_are_explained(model: CMIMModel) -> None:
    with pytest.raises(ConfigError, match="not fitted"):
        FineTuner(model=model).predict(["C"])
    with pytest.raises(ConfigError, match="task must be one of"):
        FineTuner("ranking", model)
    with pytest.raises(ConfigError, match="classes has 1 numbers, but there are 2 targets"):
        FineTuner("classification", model, classes=[2]).fit(["C", "CC"], np.array([[0.0, 1.0], [1.0, 0.0]]))
    half = CMIMModel(random_model(), "cpu", precision="bf16")
    with pytest.raises(ConfigError, match="in fp32, but this one is in bf16"):
        FineTuner(model=half).fit(["C", "CC"], np.array([0.0, 1.0]))
