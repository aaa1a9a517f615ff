"""Cells, random numbers, training and evaluation of the image experiments, on small random images."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from examples.images.cell import Cell, build
from examples.images.data import Images, load, pixels
from examples.images.draws import Order, generator
from examples.images.evaluation import evaluate
from examples.images.network import ImageNetwork
from examples.images.training import loss_of, train, validate
from nemo_cmim.errors import ConfigError, DataError, DivergenceError
from nemo_cmim.training.schedule import warmup_stable_decay
from tests.examples.images.small_sets import SMALL, small_cell, write_small_set


@pytest.fixture
def images(tmp_path: Path) -> Images:
    write_small_set(tmp_path, "breastmnist")
    return load("breastmnist", tmp_path)


def test_draws_depend_on_seed_purpose_and_index_only() -> None:
    def first(*key: object) -> float:
        return float(torch.rand(1, generator=generator(*key)))  # type: ignore[arg-type]

    keys = [(seed, purpose, index) for seed in (0, 1, 2) for purpose in ("step", "validation", "epoch", "test") for index in (0, 1)]
    assert len({first(*key) for key in keys}) == len(keys)
    assert [first(*key) for key in keys] == [first(*key) for key in keys]


def test_an_epoch_has_each_image_once_in_an_order_of_its_own() -> None:
    def epoch(seed: int, number: int) -> list[int]:
        order = Order(6, 2, seed)
        return torch.cat([order.batch(3 * number + step) for step in range(3)]).tolist()

    found = [epoch(seed, number) for seed in (0, 1, 2) for number in (0, 1)]
    assert all(sorted(one) == list(range(6)) for one in found) and len(set(map(tuple, found))) == 6
    assert Order(5, 2, 0).batch(2).tolist() == Order(5, 2, 0).batch(2).tolist()
    assert {len(Order(5, 2, 0).batch(step)) for step in range(6)} == {2}  # no incomplete batch


def test_seeds_differ_in_weights_and_in_all_that_is_drawn(images: Images) -> None:
    one, other = (small_cell(seed=seed) for seed in (0, 1))
    assert not torch.equal(build(one)[0].to_latent.weight, build(other)[0].to_latent.weight)
    assert torch.equal(build(one)[0].to_latent.weight, build(one)[0].to_latent.weight)
    assert train(one, images).history == train(one, images).history != train(other, images).history


def test_weight_and_tau_reach_the_objective() -> None:
    assert build(small_cell())[1].tau == 0.1 and build(small_cell())[1].weights["log_p_k1"] == 1
    other = build(small_cell(tau=0.3, weight=10.0))[1]
    assert (other.tau, other.weights["log_p_k1"]) == (0.3, 10)
    assert build(small_cell("cmim_sum", weight=10.0))[1].weights["log_p_k1_sum"] == 10


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"objective": "vae", "tau": 0.3}, "no effect on the objective vae"),
        ({"objective": "infonce", "weight": 2.0}, "weight has no effect on the objective infonce"),
        ({"objective": "infonce_x", "weight": 2.0}, "weight has no effect on the objective infonce_x"),
        ({"objective": "bart"}, "Unknown objective"),
        ({"data": "cifar"}, "Unknown image set"),
        ({"batch_size": 1}, "batch_size must be at least 2"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"tau": 0.0}, "tau must be a number above 0"),
        ({"tau": float("nan")}, "tau must be a number above 0"),
        ({"weight": -1.0}, "weight must be a number of at least 0"),
    ],
)
def test_cells_that_cannot_be_run_are_errors(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small_cell(**fields)


def test_settings_out_of_range_are_errors() -> None:
    for name in ("steps", "validations", "mlp_steps"):
        with pytest.raises(ConfigError, match=f"{name} must be at least 1, found 0"):
            dataclasses.replace(SMALL, **{name: 0})
    with pytest.raises(ConfigError, match="test_images must be at least 0, found -1"):
        dataclasses.replace(SMALL, test_images=-1)


def test_cells_with_different_settings_have_different_names(monkeypatch: pytest.MonkeyPatch) -> None:
    others = [
        small_cell("mim"),
        small_cell(batch_size=5),
        small_cell(tau=0.3),
        small_cell(weight=2.0),
        small_cell(seed=1),
        small_cell(settings=dataclasses.replace(SMALL, steps=7)),
        small_cell(settings=dataclasses.replace(SMALL, sizes=dataclasses.replace(SMALL.sizes, query_scale=2.0))),
    ]
    names = {one.name for one in (small_cell(), *others)}
    mapping = small_cell().as_mapping()
    assert Cell.from_mapping(mapping) == small_cell()
    monkeypatch.setattr("examples.images.cell.VERSION", 0)
    assert len({*names, small_cell().name}) == len(others) + 2
    for wrong, message in (
        (mapping, "version"),
        (mapping | {"version": 0, "lr": 1.0}, "different fields"),
        ({}, "different fields"),
    ):
        with pytest.raises(ConfigError, match=message):
            Cell.from_mapping(wrong)


def test_training_lowers_the_loss_and_keeps_the_best_weights(images: Images) -> None:
    long = small_cell("ae", settings=dataclasses.replace(SMALL, steps=60, validations=6))
    found = train(long, images)
    losses = [one["loss"] for one in found.history]
    assert [one["step"] for one in found.history] == [10, 20, 30, 40, 50, 60]
    assert min(losses) < losses[0] and found.best_step == found.history[losses.index(min(losses))]["step"]
    x = pixels(images.valid.images_NP)
    assert validate(found.network, build(long)[1], x, 4, 0)["loss"] == pytest.approx(min(losses))


def test_the_weights_of_the_lowest_validation_loss_are_kept(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    def rising(network: ImageNetwork, *_: object) -> dict[str, float]:
        seen.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return {"loss": float(len(seen))}

    seen: list[dict[str, Tensor]] = []
    monkeypatch.setattr("examples.images.training.validate", rising)
    found = train(small_cell(), images)
    assert found.best_step == 2 and len(seen) == 3
    kept = found.network.state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in seen[0].items())
    assert not all(torch.equal(kept[name], tensor) for name, tensor in seen[2].items())


def test_the_learning_rate_rises_stays_and_falls(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    class Recording(torch.optim.Adam):
        def step(self, closure: None = None) -> None:  # type: ignore[override]
            rates.append(self.param_groups[0]["lr"])
            super().step(closure)

    rates: list[float] = []
    monkeypatch.setattr(torch.optim, "Adam", Recording)
    train(small_cell(settings=dataclasses.replace(SMALL, steps=20)), images)
    assert rates == pytest.approx([1e-3 * warmup_stable_decay(step, 20, warmup=0.1, decay=0.1) for step in range(20)])
    assert rates[0] < rates[10] == 1e-3 > rates[-1]


def test_each_step_draws_its_views(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    def numbered(x: Tensor, _: torch.Generator) -> Tensor:
        calls.append(x)
        return torch.full_like(x, len(calls) / 100)

    def noting(network: ImageNetwork, objective: object, x: Tensor, positive: Tensor | None, noise: Tensor) -> Tensor:
        views.append([round(100 * float(view.mean())) for view in (x, positive) if view is not None])
        return loss_of(network, objective, x, positive, noise)  # type: ignore[arg-type]

    monkeypatch.setattr("examples.images.training.random_affine", numbered)
    monkeypatch.setattr("examples.images.training.loss_of", noting)
    monkeypatch.setattr("examples.images.training.validate", lambda *_: {"loss": 0.0})
    for objective, expected in (("cmim", [[1], [2], [3]]), ("infonce", [[1, 2], [3, 4], [5, 6]]), ("infonce_x", [[1], [2], [3]])):
        calls: list[Tensor] = []
        views: list[list[int]] = []
        train(small_cell(objective, settings=dataclasses.replace(SMALL, steps=3)), images)
        assert views == expected and len(calls) == max(map(max, expected)), objective
        assert objective != "infonce" or torch.equal(calls[0], calls[1])  # two views of the same images


def test_a_stopped_run_is_resumed_bit_for_bit(images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for objective in ("cmim", "infonce"):
        whole = train(small_cell(objective), images)
        path = tmp_path / f"{objective}.pt"
        calls: list[dict[str, float]] = []

        def stopping(*args: object, calls: list[dict[str, float]] = calls) -> dict[str, float]:
            if len(calls) == 1:
                raise KeyboardInterrupt
            calls.append(validate(*args))  # type: ignore[arg-type]
            return calls[-1]

        with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
            context.setattr("examples.images.training.validate", stopping)
            train(small_cell(objective), images, path)
        resumed = train(small_cell(objective), images, path)
        assert len(calls) == 1 and resumed.history == whole.history and resumed.best_step == whole.best_step
        for one, other in zip(resumed.network.state_dict().values(), whole.network.state_dict().values()):
            assert torch.equal(one, other)


def test_a_checkpoint_of_different_images_is_an_error(images: Images, tmp_path: Path) -> None:
    train(small_cell(), images, tmp_path / "checkpoint.pt")
    write_small_set(tmp_path, "breastmnist", seed=1)
    with pytest.raises(DataError, match=r"checkpoint.pt is of different images of breastmnist"):
        train(small_cell(), load("breastmnist", tmp_path), tmp_path / "checkpoint.pt")


def test_a_validation_loss_that_is_not_finite_is_an_error(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("examples.images.training.validate", lambda *_: {"loss": float("nan")})
    with pytest.raises(DivergenceError, match="the validation loss is nan after 2 steps"):
        train(small_cell(), images)


@torch.no_grad()
def test_validation_uses_batches_of_the_training_size(images: Images) -> None:
    network, objective = build(small_cell("infonce_x"))
    x, by_size = pixels(images.valid.images_NP), {}
    for size in (3, 12):
        parts = [loss_of(network, objective, some, None, torch.zeros(size, 1, 3)) for some in x.split(size)]
        by_size[size] = float(torch.stack(parts).mean())
        assert validate(network, objective, x, size, 0)["loss"] == pytest.approx(by_size[size], rel=1e-4)
    assert by_size[3] < by_size[12]


@torch.no_grad()
def test_validation_of_infonce_uses_a_second_view(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    network, objective = build(small_cell("infonce"))
    x = pixels(images.valid.images_NP)
    augmented = validate(network, objective, x, 12, 0)["loss"]
    monkeypatch.setattr("examples.images.training.random_affine", lambda some, _: 1 - some)
    inverted = validate(network, objective, x, 12, 0)["loss"]
    same, expected = (float(loss_of(network, objective, x, view, torch.zeros(12, 1, 3))) for view in (x, 1 - x))
    assert inverted == pytest.approx(expected, abs=1e-5) and abs(expected - same) > 1e-4 and abs(augmented - inverted) > 1e-4


def test_too_few_images_are_an_error(images: Images) -> None:
    with pytest.raises(DataError, match="40 training and 12 validation images"):
        train(small_cell(batch_size=41), images)
    with pytest.raises(DataError, match="at most 1 are used: too few"):
        train(small_cell(settings=dataclasses.replace(SMALL, valid_images=1)), images)


def test_a_limit_of_zero_uses_all_images(images: Images) -> None:
    cell = small_cell(settings=dataclasses.replace(SMALL, train_images=0, test_images=0, valid_images=0))
    found = evaluate(build(cell)[0], images, cell)
    assert (found["classifier_images"], found["tested_images"]) == (40, 20)
    assert train(cell, images).history == train(small_cell(), images).history  # whose limit is the number of validation images
