"""The identities and bounds of Appendix C, as the paper states them."""

from __future__ import annotations

import functools
import math

import pytest
import torch
import torch.nn.functional as F

from nemo_cmim.losses import contrast, log_p_k1
from nemo_cmim.losses.contrastive import unit


def latents(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def similarities(z_BKD: torch.Tensor, tau: float) -> torch.Tensor:
    """s_ij = cos(z_i, z_j) / tau in float64, [B, B]."""
    unit_BH = F.normalize(z_BKD.double().flatten(1), dim=1)
    return unit_BH @ unit_BH.T / tau


@pytest.mark.parametrize("tau", [0.1, 1.0])
@pytest.mark.parametrize("B", [2, 5, 64])
def test_eq_12_log_p_k1_is_info_nce_with_the_positive_shifted(B: int, tau: float) -> None:
    """-log p_k1 is the cross-entropy of the positive among logits of which its own is raised by log(B - 1)."""
    z = latents(B, 1, 6)
    s = similarities(z, tau)
    shifted = s + torch.eye(B, dtype=torch.float64) * math.log(B - 1)
    info_nce = F.cross_entropy(shifted, torch.arange(B), reduction="none")
    torch.testing.assert_close(-log_p_k1(z, tau).double(), info_nce, rtol=1e-5, atol=1e-6)


def test_without_the_mean_the_shift_is_gone() -> None:
    """With the sum over negatives, Eq. 4 equals InfoNCE, with its bound I >= log B - loss."""
    z = latents(9, 1, 4)
    found = contrast(unit(z), unit(z), 0.2, mean_of_negatives=False)
    expected = F.cross_entropy(similarities(z, 0.2), torch.arange(9), reduction="none")
    torch.testing.assert_close(-found.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("B", [2, 7, 100])
def test_equal_logits_give_one_half_where_info_nce_gives_one_over_b(B: int) -> None:
    z = unit(torch.ones(B, 1, 3))
    torch.testing.assert_close(contrast(z, z, 0.3, mean_of_negatives=True).exp(), torch.full((B,), 0.5))
    torch.testing.assert_close(contrast(z, z, 0.3, mean_of_negatives=False).exp(), torch.full((B,), 1.0 / B))


def test_p_k1_is_a_sigmoid_of_the_margin() -> None:
    z, tau = latents(8, 1, 5), 0.5
    s = similarities(z, tau)
    for i, value in enumerate(log_p_k1(z, tau).double()):
        others = torch.cat([s[i, :i], s[i, i + 1 :]])
        s_bar = torch.logsumexp(others, 0) - math.log(len(others))
        torch.testing.assert_close(value.exp(), torch.sigmoid(s[i, i] - s_bar), rtol=1e-5, atol=1e-7)


def test_closed_form_gradients() -> None:
    """d loss_i / d s_ii = p - 1, and d loss_i / d s_ij = (1 - p) pi_ij with pi the softmax over negatives.

    With an orthonormal basis as candidates, the components of an anchor are its similarities (times tau), so the gradient of the anchor
    is the gradient of the similarities.
    """
    C, tau = 6, 0.7
    anchor = F.normalize(latents(1, C), dim=1).requires_grad_()
    loss = -contrast(anchor, torch.eye(C), tau, mean_of_negatives=True, first=2).sum()
    (gradient,) = torch.autograd.grad(loss, anchor)
    s = anchor.detach()[0] / tau
    negatives = torch.arange(C) != 2
    pi = torch.softmax(s[negatives], 0)
    p = torch.sigmoid(s[2] - (torch.logsumexp(s[negatives], 0) - math.log(C - 1)))
    expected = torch.empty(C)
    expected[2] = p - 1
    expected[negatives] = (1 - p) * pi
    torch.testing.assert_close(gradient[0] * tau, expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(gradient.sum(), torch.zeros(()), rtol=0, atol=1e-5)  # the gradients of positive and negatives cancel


@functools.cache
def means_of_g(B: int, tau: float, anchors: int) -> torch.Tensor:
    """The in-batch mean of g(z_i, z_j) over B - 1 negatives, uniform on the sphere, as log p_k1 has it: p = g_ii / (g_ii + mean)."""
    batches = latents(anchors // B, B, 1, 3, seed=B)
    p = torch.cat([log_p_k1(z_BKD, tau).double().exp() for z_BKD in batches])
    return math.exp(1 / tau) * (1 / p - 1)


@pytest.mark.parametrize("tau", [0.5, 1.0])
@pytest.mark.parametrize("B", [5, 33, 257])
def test_eq_11_hoeffdings_bound_holds(B: int, tau: float) -> None:
    """Deviations from the expectation, tau sinh(1 / tau) on the sphere, are at most as frequent as Eq. 11 states."""
    repeats, mu = 10_000, tau * math.sinh(1 / tau)
    deviation = (means_of_g(B, tau, repeats) - mu).abs()
    for fraction in (0.5, 0.25, 0.1, 0.05):
        epsilon = fraction * (math.exp(1 / tau) - math.exp(-1 / tau))
        bound = 2 * math.exp(-2 * (B - 1) * epsilon**2 / (math.exp(1 / tau) - math.exp(-1 / tau)) ** 2)
        frequency = float((deviation >= epsilon).double().mean())
        assert frequency <= bound + 3 * math.sqrt(0.25 / repeats)


def test_the_variance_falls_as_one_over_b_minus_one() -> None:
    tau = 1.0
    sizes = [5, 33, 257]
    scaled = [float(means_of_g(B, tau, 10_000).var()) * (B - 1) for B in sizes]
    second = tau / 2 * math.sinh(2 / tau)  # E[g^2] on the sphere
    expected = second - (tau * math.sinh(1 / tau)) ** 2
    assert scaled == pytest.approx([expected] * len(sizes), rel=0.05)


def test_the_loss_hardly_depends_on_batch_size_whereas_info_nce_grows() -> None:
    """Sec. 2.2: because of the mean in the denominator, log p_k1 hardly depends on B; InfoNCE grows as log B."""
    few, many = (unit(latents(B, 1, 3, seed=5)) for B in (32, 2048))
    mean = [float(-contrast(z, z, 1.0, mean_of_negatives=True).mean()) for z in (few, many)]
    total = [float(-contrast(z, z, 1.0, mean_of_negatives=False).mean()) for z in (few, many)]
    assert abs(mean[1] - mean[0]) < 0.02
    assert total[1] - total[0] == pytest.approx(math.log(2048 / 32), abs=0.1)
