"""Augmentation, network, training and evaluation of the image experiments, on small random images."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from examples.images.augmentation import affine_matrices, random_affine, transform
from examples.images.cell import ABLATIONS, MAIN, Cell, build
from examples.images.data import Images, load, pixels
from examples.images.evaluation import accuracies, embed, encode, evaluate
from examples.images.network import ImageNetwork, NetworkSizes
from examples.images.training import loss_of, train, validation_loss
from nemo_cmim.errors import ConfigError, DataError
from nemo_cmim.losses import OBJECTIVES, kl_to_standard_normal, log_bernoulli, log_normal, log_p_k1, log_standard_normal
from tests.examples.images.small_sets import SMALL, write_small_set


@pytest.fixture
def images(tmp_path: Path) -> Images:
    write_small_set(tmp_path, "breastmnist")
    return load("breastmnist", tmp_path)


def cell(objective: str = "cmim", batch_size: int = 4, **more: float) -> Cell:
    return Cell(data="breastmnist", objective=objective, batch_size=batch_size, settings=SMALL, **more)  # type: ignore[arg-type]


def dot(row: int, column: int) -> torch.Tensor:
    image = torch.zeros(1, 28, 28)
    image[0, row, column] = 1.0
    return image.flatten(1)


def moved(angle: float = 0.0, shift: tuple[float, float] = (0.0, 0.0), scale: float = 1.0, shear: float = 0.0) -> torch.Tensor:
    matrix = affine_matrices(torch.tensor([angle]), torch.tensor([shift]), torch.tensor([scale]), torch.tensor([shear]))
    return transform(dot(4, 13), matrix).view(28, 28)


def centre(image: torch.Tensor) -> tuple[float, float]:
    rows, columns = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    return float((rows * image).sum() / image.sum()), float((columns * image).sum() / image.sum())


def test_affine_transforms_move_a_dot_as_told() -> None:
    assert torch.allclose(moved(), dot(4, 13).view(28, 28), atol=1e-5)
    assert centre(moved(shift=(2 / 28, 3 / 28))) == pytest.approx((7, 15), abs=1e-3)
    assert centre(moved(angle=math.pi / 2)) == pytest.approx((13, 23), abs=1e-3)  # from the top to the right: clockwise
    assert centre(moved(scale=0.5)) == pytest.approx((13.5 - 9.5 / 2, 13.5 - 0.5 / 2), abs=0.3)
    row, column = centre(moved(shear=math.radians(45)))
    assert row == pytest.approx(4, abs=1e-3) and column != pytest.approx(13, abs=1)


def test_random_transforms_keep_the_range_and_depend_on_the_generator_only() -> None:
    x = torch.rand(50, 784)
    first, again = (random_affine(x, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, again) and not torch.equal(first, random_affine(x, torch.Generator().manual_seed(2)))
    assert first.min() >= 0 and first.max() <= 1 and first.shape == x.shape
    distances = [
        abs(centre(image)[0] - 13.5)
        for image in random_affine(torch.ones(50, 784), torch.Generator().manual_seed(1)).view(-1, 28, 28)
    ]
    assert max(distances) < 3  # shifts are within 2.8 pixels


def test_the_network_sees_where_a_pixel_is_and_rows_are_independent() -> None:
    network = ImageNetwork(NetworkSizes(latents=5), OBJECTIVES["cmim"])
    x = torch.cat([dot(4, 13), dot(20, 3)])
    mean = network.encode(x).mean_BKD
    assert mean.shape == (2, 1, 64) and not torch.allclose(mean[0], mean[1], atol=1e-4)
    assert torch.allclose(mean[1:], network.encode(x[1:]).mean_BKD, atol=1e-5)
    assert (network.encode(x).variance_BKD >= 1e-6).all()
    assert network.hidden(mean).shape == (2, 5) and network.log_p_x_given_z(x, mean).shape == (2,)


@torch.no_grad()
def test_the_variance_is_at_least_a_millionth() -> None:
    network = ImageNetwork(NetworkSizes(latents=5), OBJECTIVES["vae"])
    torch.nn.init.constant_(network.posterior.log_variance.bias, -100.0)  # type: ignore[union-attr, arg-type]
    assert network.encode(torch.rand(2, 784)).variance_BKD == pytest.approx(torch.full((2, 1, 64), 1e-6))


def test_sizes_of_the_paper() -> None:
    network = ImageNetwork(NetworkSizes(), OBJECTIVES["cmim"])
    assert network.encoder.perceiver.latents_KD.shape == (400, 16) and len(network.encoder.perceiver.layers) == 4
    assert network.parameter_count == 422_866
    encoder = ImageNetwork(NetworkSizes(), OBJECTIVES["infonce"])
    assert encoder.decoder is None
    with pytest.raises(ConfigError, match="no informative embeddings"):
        encoder.hidden(torch.zeros(1, 1, 64))


@torch.no_grad()
@pytest.mark.parametrize("objective", [*MAIN, *ABLATIONS])
def test_losses_are_those_of_the_paper(objective: str) -> None:
    torch.manual_seed(0)
    network, loss = build(cell(objective))
    x, view, noise = torch.rand(4, 784), torch.rand(4, 784), torch.randn(4, 1, 3)
    posterior = network.encode(x)
    z = posterior.mean_BKD + posterior.variance_BKD.sqrt() * noise
    total = torch.zeros(4)
    if "infonce" not in objective:
        assert network.to_logits is not None
        total = total + log_bernoulli(network.to_logits(network.hidden(z)), x)
    if objective in ("cmim", "mim", "cmim_sum"):
        total = total + 0.5 * (log_normal(z, posterior) + log_standard_normal(z))
    if objective in ("vae", "cvae"):
        total = total - kl_to_standard_normal(posterior)
    if objective in ("cmim", "cae", "cvae"):
        total = total + log_p_k1(z, 0.1)
    if objective in ("cmim_sum", "infonce_x", "infonce"):
        other = network.encode(view).mean_BKD if objective == "infonce" else z
        similarity = torch.nn.functional.cosine_similarity(z.flatten(1)[:, None], other.flatten(1)[None], dim=2) / 0.1
        total = total + similarity.log_softmax(dim=1).diagonal()
    positive = view if objective == "infonce" else None
    assert float(loss_of(network, loss, x, positive, noise)) == pytest.approx(float(-total.mean()), rel=1e-4)


def test_weight_and_tau_reach_the_objective() -> None:
    assert build(cell())[1].tau == 0.1 and build(cell())[1].weights["log_p_k1"] == 1
    other = build(cell(tau=0.3, weight=10.0))[1]
    assert (other.tau, other.weights["log_p_k1"]) == (0.3, 10)
    assert build(cell("cmim_sum", weight=10.0))[1].weights["log_p_k1_sum"] == 10


def test_settings_without_effect_are_refused_and_cells_have_names() -> None:
    with pytest.raises(ConfigError, match="no effect on the objective vae"):
        cell("vae", tau=0.3)
    with pytest.raises(ConfigError, match="batch_size must be at least 2"):
        cell(batch_size=1)
    with pytest.raises(ConfigError, match="Unknown image set"):
        Cell(data="cifar", objective="cmim", batch_size=2)
    others = [
        cell("mim"),
        cell(batch_size=5),
        cell(tau=0.3),
        cell(weight=2.0),
        cell().with_steps(7),
        dataclasses.replace(cell(), seed=1),
    ]
    assert len({one.name for one in (cell(), *others)}) == 7
    assert Cell.from_mapping(cell().as_mapping()) == cell()


def test_training_lowers_the_loss_and_keeps_the_best_weights(images: Images) -> None:
    long = dataclasses.replace(cell("ae"), settings=dataclasses.replace(SMALL, steps=60, validations=6))
    found = train(long, images)
    losses = [loss for _, loss in found.history]
    assert [step for step, _ in found.history] == [10, 20, 30, 40, 50, 60]
    assert min(losses) < losses[0] and found.best_step == found.history[losses.index(min(losses))][0]
    objective = build(long)[1]
    assert validation_loss(found.network, objective, images.valid, 4, 0) == pytest.approx(min(losses))


def test_a_stopped_run_goes_on_bit_for_bit(images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for objective in ("cmim", "infonce"):
        whole = train(cell(objective), images)
        path = tmp_path / f"{objective}.pt"

        def stop(*_: object, calls: list[int] = []) -> float:  # noqa: B006
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return 5.0 - len(calls)

        with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
            original = validation_loss
            context.setattr("examples.images.training.validation_loss", lambda *a, s=stop, o=original: (s(), o(*a))[1])
            train(cell(objective), images, path)
        resumed = train(cell(objective), images, path)
        assert resumed.history == whole.history and resumed.best_step == whole.best_step
        for one, other in zip(resumed.network.state_dict().values(), whole.network.state_dict().values()):
            assert torch.equal(one, other)


@torch.no_grad()
def test_validation_uses_batches_of_the_training_size(images: Images) -> None:
    torch.manual_seed(0)
    network, objective = build(cell("infonce_x"))
    x, by_size = pixels(images.valid.images_NP), {}
    for size in (3, 12):
        parts = [loss_of(network, objective, some, None, torch.zeros(size, 1, 3)) for some in x.split(size)]
        by_size[size] = float(torch.stack(parts).mean())
        assert validation_loss(network, objective, images.valid, size, 0) == pytest.approx(by_size[size], rel=1e-4)
    assert by_size[3] < by_size[12]


def test_too_few_images_are_refused(images: Images) -> None:
    with pytest.raises(DataError, match="40 training and 12 validation images: too few"):
        train(cell(batch_size=41), images)


def test_classifiers_find_what_is_there() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(200) % 2
    vectors = (random.normal(size=(200, 4)) + 4 * labels[:, None]).astype(np.float32)
    settings = dataclasses.replace(SMALL, mlp_steps=300)
    found = accuracies(vectors[:150], vectors[150:], labels[:150], labels[150:], dataclasses.replace(cell(), settings=settings))
    assert set(found) == {"knn_cosine", "knn_euclidean", "mlp"} and found["knn_euclidean"] > 0.95 and found["mlp"] > 0.95


def test_evaluation_has_both_embeddings_unless_there_is_no_decoder(images: Images) -> None:
    network, _ = build(cell())
    found = evaluate(network.eval(), images, cell())
    assert set(found["accuracy"]) == {"mean", "informative"} and found["classifier_images"] == 30 and found["tested_images"] == 20
    assert found["log_likelihood"]["mean"] < 0 and found["log_likelihood"]["drawn"] < 0
    q = encode(network, images.test)
    assert embed(network, q, "mean").shape == (20, 3) and embed(network, q, "informative").shape == (20, 4)
    encoder, _ = build(cell("infonce"))
    found = evaluate(encoder.eval(), images, cell("infonce"))
    assert set(found["accuracy"]) == {"mean"} and found["log_likelihood"] is None
