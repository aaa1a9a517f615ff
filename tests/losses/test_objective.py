"""MIM and cMIM (Eq. 9) and their Gaussian and reconstruction terms."""

from __future__ import annotations

import pytest
import torch

from nemo_cmim.config import ObjectiveConfig
from nemo_cmim.errors import ConfigError, InvalidShapeError
from nemo_cmim.losses import build_objective, log_normal, log_p_x_given_z, log_standard_normal
from nemo_cmim.types import Posterior
from tests import reference

B, K, D, T, V = 6, 2, 3, 5, 11


def case(seed: int = 0, requires_grad: bool = False) -> tuple[torch.Tensor, Posterior, torch.Tensor]:
    """log p(x|z) [B], q(z|x), and a draw z."""
    g = torch.Generator().manual_seed(seed)
    mean, log_variance, noise = (torch.randn(B, K, D, generator=g) for _ in range(3))
    log_p_x = -torch.rand(B, generator=g) * 50
    leaves = (mean, log_variance, log_p_x)
    for leaf in leaves:
        leaf.requires_grad_(requires_grad)
    posterior = Posterior(mean, log_variance.exp())
    return log_p_x, posterior, posterior.sample(noise)


def part(posterior: Posterior, rows: slice | torch.Tensor) -> Posterior:
    return Posterior(posterior.mean_BKD[rows], posterior.variance_BKD[rows])


@pytest.mark.parametrize(("name", "tau"), [("mim", None), ("cmim", 1.0), ("cmim", 0.1)])
def test_loss_and_gradient_equal_the_loops(name: str, tau: float | None) -> None:
    g = torch.Generator().manual_seed(1)
    values = [torch.randn(B, K, D, generator=g), torch.randn(B, K, D, generator=g), torch.rand(B, generator=g) * -50]
    noise = torch.randn(B, K, D, generator=g)
    fast = [v.clone().requires_grad_() for v in values]
    slow = [v.double().requires_grad_() for v in values]
    losses = []
    for mean, log_variance, log_p_x in (fast, slow):
        posterior = Posterior(mean, log_variance.exp())
        z = posterior.sample(noise.to(mean.dtype))
        if mean.dtype == torch.float64:
            losses.append(reference.a_mim_loss(log_p_x, z, posterior, contrast_tau=tau))
        else:
            losses.append(build_objective(ObjectiveConfig(name=name, tau=tau or 1.0))(log_p_x, z, posterior).loss)
        losses[-1].backward()
    torch.testing.assert_close(losses[0].double(), losses[1], rtol=1e-6, atol=0)
    for a, b in zip(fast, slow):
        torch.testing.assert_close(a.grad.double(), b.grad, rtol=1e-4, atol=1e-6)


def test_gaussian_terms_equal_the_loops() -> None:
    _, posterior, z = case()
    torch.testing.assert_close(log_normal(z, posterior).double(), reference.log_normal(z, *posterior[:2]))
    standard = reference.log_normal(z, torch.zeros_like(z), torch.ones_like(z))
    torch.testing.assert_close(log_standard_normal(z).double(), standard)


def test_variance_at_the_clamp_is_finite() -> None:
    posterior = Posterior(torch.zeros(2, 1, 512), torch.full((2, 1, 512), 1e-6))
    noise = torch.ones(2, 1, 512)
    expected = 512 * (-0.5 * torch.log(torch.tensor(2 * torch.pi * 1e-6)) - 0.5)
    torch.testing.assert_close(log_normal(posterior.sample(noise), posterior), expected.expand(2), rtol=1e-4, atol=0)


def test_reconstruction_equals_the_loops_and_ignores_padding() -> None:
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(B, T, V, generator=g)
    target = torch.randint(V, (B, T), generator=g)
    is_target = torch.arange(T) < torch.tensor([1, 2, 3, 4, 5, 0])[:, None]
    value = log_p_x_given_z(logits, target, is_target)
    torch.testing.assert_close(value.double(), reference.log_p_x_given_z(logits, target, is_target))
    assert value[-1] == 0
    logits[~is_target] = torch.nan
    torch.testing.assert_close(log_p_x_given_z(logits, target, is_target), value)


def test_reconstruction_is_computed_in_fp32() -> None:
    logits = torch.full((1, 2, 4), -6e4, dtype=torch.float16)
    logits[..., 1] = 6e4
    value = log_p_x_given_z(logits, torch.tensor([[1, 0]]), torch.ones(1, 2, dtype=torch.bool))
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, torch.tensor([-119936.0]), rtol=1e-3, atol=0)


def test_reconstruction_refuses_other_shapes() -> None:
    with pytest.raises(InvalidShapeError, match=r"\(2, 3, 4\)"):
        log_p_x_given_z(torch.zeros(2, 3, 4), torch.zeros(2, 2, dtype=torch.long), torch.ones(2, 2, dtype=torch.bool))


def test_mim_of_a_batch_is_the_mean_of_its_parts() -> None:
    """Scale: how a batch is split, and how many molecules it has, does not move the loss per molecule."""
    log_p_x, posterior, z = case()
    objective = build_objective(ObjectiveConfig(name="mim"))
    whole = objective(log_p_x, z, posterior).loss
    parts = [objective(log_p_x[i : i + 2], z[i : i + 2], part(posterior, slice(i, i + 2))).loss for i in (0, 2, 4)]
    torch.testing.assert_close(whole, torch.stack(parts).mean())


def test_cmim_is_mim_and_the_contrast() -> None:
    log_p_x, posterior, z = case()
    cmim = build_objective(ObjectiveConfig(name="cmim"))(log_p_x, z, posterior)
    mim = build_objective(ObjectiveConfig(name="mim"))(log_p_x, z, posterior)
    torch.testing.assert_close(cmim.loss, mim.loss - cmim.terms.log_p_k1_B.mean())
    assert mim.terms.log_p_k1_B is None


def test_order_of_the_batch_does_not_matter() -> None:
    log_p_x, posterior, z = case()
    order = torch.randperm(B, generator=torch.Generator().manual_seed(5))
    objective = build_objective(ObjectiveConfig())
    shuffled = objective(log_p_x[order], z[order], part(posterior, order))
    torch.testing.assert_close(objective(log_p_x, z, posterior).loss, shuffled.loss)


def test_steps_move_each_quantity_the_right_way() -> None:
    """Minimising the loss raises log p(x|z) and log q(z|x) (narrower posteriors) and log P(z) (smaller latents)."""
    log_p_x, posterior, z = case(requires_grad=True)
    mean = posterior.mean_BKD
    loss = build_objective(ObjectiveConfig(name="mim"))(log_p_x, z, posterior).loss
    gradient = torch.autograd.grad(loss, (log_p_x, posterior.variance_BKD, mean), retain_graph=True)
    assert (gradient[0] < 0).all()
    wide = Posterior(torch.zeros(B, K, D), torch.full((B, K, D), 4.0, requires_grad=True))
    objective = build_objective(ObjectiveConfig(name="mim"))
    narrowing = torch.autograd.grad(objective(log_p_x, wide.sample(torch.ones(B, K, D)), wide).loss, wide.variance_BKD)[0]
    assert (narrowing > 0).all()
    far = torch.full((B, K, D), 3.0, requires_grad=True)
    shrinking = torch.autograd.grad(-log_standard_normal(far).mean(), far)[0]
    assert (shrinking > 0).all()


def test_an_unknown_objective_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'cmimm'.*cmim, mim"):
        build_objective(ObjectiveConfig(name="cmimm"))
