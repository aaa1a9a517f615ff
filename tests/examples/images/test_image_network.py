"""Augmentation and network of the image experiments."""

from __future__ import annotations

import math

import pytest
import torch

from examples.images.augmentation import affine_matrices, random_affine, transform
from examples.images.cell import ABLATIONS, MAIN, build
from examples.images.network import ImageNetwork, NetworkSizes, encode_all, in_parts
from examples.images.training import loss_of
from nemo_cmim.errors import ConfigError
from nemo_cmim.losses import OBJECTIVES, kl_to_standard_normal, log_bernoulli, log_normal, log_p_k1, log_standard_normal
from tests.examples.images.small_sets import small_cell


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


def test_affine_transforms_move_a_dot_as_expected() -> None:
    assert torch.allclose(moved(), dot(4, 13).view(28, 28), atol=1e-5)
    assert centre(moved(shift=(2 / 28, 3 / 28))) == pytest.approx((7, 15), abs=1e-3)
    assert centre(moved(angle=math.pi / 2)) == pytest.approx((13, 23), abs=1e-3)  # from the top to the right: clockwise
    assert centre(moved(scale=0.5)) == pytest.approx((13.5 - 9.5 / 2, 13.5 - 0.5 / 2), abs=0.3)
    assert centre(moved(shear=math.radians(45))) == pytest.approx((4, 13 + 9.5), abs=1e-3)  # 9.5 above the centre: to the right


def test_random_transforms_keep_the_range_and_depend_on_the_generator_only() -> None:
    x = torch.rand(50, 784, generator=torch.Generator().manual_seed(0))
    first, again = (random_affine(x, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, again) and not torch.equal(first, random_affine(x, torch.Generator().manual_seed(2)))
    assert first.min() >= 0 and first.max() <= 1 and first.shape == x.shape


def test_random_transforms_have_the_ranges_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[torch.Tensor] = []

    def recorded(*values: torch.Tensor) -> torch.Tensor:
        drawn.extend(values)
        return affine_matrices(*values)

    monkeypatch.setattr("examples.images.augmentation.affine_matrices", recorded)
    random_affine(torch.zeros(2000, 784), torch.Generator().manual_seed(0))
    angle, shift, scale, shear = drawn
    degrees = math.degrees(1)
    for values, low, high in (
        (angle * degrees, -15, 15),
        (shift[:, 0], -0.1, 0.1),
        (shift[:, 1], -0.1, 0.1),
        (scale, 0.9, 1.1),
        (shear * degrees, -10, 10),
    ):
        margin = 0.01 * (high - low)  # 2,000 uniform draws come closer to both ends
        assert low - 1e-4 <= values.min() < low + margin and high - margin < values.max() <= high + 1e-4


def test_the_network_sees_where_pixels_are_and_rows_are_independent() -> None:
    torch.manual_seed(0)
    network = ImageNetwork(NetworkSizes(latents=5), OBJECTIVES["cmim"])
    upper = (torch.arange(784) < 392).float()
    x = torch.stack([upper, 1 - upper])
    mean = network.encode(x).mean_BKD
    assert mean.shape == (2, 1, 64) and not torch.allclose(mean[0], mean[1], atol=1e-2)
    assert torch.allclose(mean[1:], network.encode(x[1:]).mean_BKD, atol=1e-5)
    assert (network.encode(x).variance_BKD >= 1e-6).all()
    assert network.hidden(mean).shape == (2, 5) and network.log_p_x_given_z(x, mean).shape == (2,)


def test_many_images_are_encoded_as_a_few_are() -> None:
    network, _ = build(small_cell("vae"))
    x = torch.rand(203, 784, generator=torch.Generator().manual_seed(0))
    found, expected = encode_all(network, x), network.encode(x)
    assert torch.allclose(found.mean_BKD, expected.mean_BKD, atol=1e-5)
    assert torch.allclose(found.variance_BKD, expected.variance_BKD, atol=1e-5) and not found.mean_BKD.requires_grad
    log_p = in_parts(network.log_p_x_given_z, x, expected.mean_BKD)
    assert torch.allclose(log_p, network.log_p_x_given_z(x, expected.mean_BKD), rtol=1e-5)


@torch.no_grad()
def test_the_variance_is_at_least_a_millionth() -> None:
    torch.manual_seed(0)
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


def test_the_query_scale_multiplies_the_first_weights_of_the_queries() -> None:
    weights = {}
    for scale in (1.0, 3.0):
        torch.manual_seed(0)
        network = ImageNetwork(NetworkSizes(latents=5, query_scale=scale), OBJECTIVES["ae"])
        weights[scale] = network.encoder.perceiver.cross_attention.q.weight
    assert torch.allclose(weights[3.0], 3 * weights[1.0])


def test_sizes_that_cannot_be_trained_are_errors() -> None:
    with pytest.raises(ConfigError, match="latents must be at least 2, found 1"):
        NetworkSizes(latents=1)
    with pytest.raises(ConfigError, match="query_scale must be a number above 0"):
        NetworkSizes(query_scale=0.0)


@torch.no_grad()
@pytest.mark.parametrize("objective", [*MAIN, *ABLATIONS])
def test_losses_are_those_of_the_paper(objective: str) -> None:
    network, loss = build(small_cell(objective))
    draws = torch.Generator().manual_seed(0)
    x, view = torch.rand(2, 4, 784, generator=draws)
    noise = torch.randn(4, 1, 3, generator=draws)
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
