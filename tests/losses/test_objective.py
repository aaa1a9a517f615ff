"""All objectives, and their Gaussian and reconstruction terms."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from nemo_cmim.config import NetworkConfig, ObjectiveConfig
from nemo_cmim.errors import ConfigError, InvalidShapeError
from nemo_cmim.losses import (
    OBJECTIVES,
    build_objective,
    kl_to_standard_normal,
    log_normal,
    log_p_x_given_z,
    log_standard_normal,
)
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


def network_for(name: str) -> NetworkConfig:
    """A network that the objective can train."""
    composition = OBJECTIVES[name]
    shape = {"encoder": "transformer"} if composition.full_length else {"latents": K}
    posterior = "gaussian" if composition.is_stochastic else "point"
    return NetworkConfig(
        hidden_size=D, attention_heads=1, posterior=posterior, decoder_layers=2 if composition.decodes else 0, **shape
    )


@pytest.mark.parametrize("tau", [1.0, 0.1])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_loss_and_gradient_equal_the_loops(name: str, tau: float) -> None:
    """All objectives against loops over scalars in float64."""
    g = torch.Generator().manual_seed(1)
    mean, log_variance, positive, noise = (torch.randn(B, K, D, generator=g) for _ in range(4))
    values = [mean, log_variance, positive, torch.rand(B, generator=g) * -50]
    fast = [v.clone().requires_grad_() for v in values]
    slow = [v.double().requires_grad_() for v in values]
    config, network = ObjectiveConfig(name=name, tau=tau), network_for(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # tau has no effect on some
        objective = build_objective(config, network)
    losses = []
    for mean, log_variance, positive, log_p_x in (fast, slow):
        posterior = Posterior(mean, log_variance.exp())
        z = posterior.sample(noise.to(mean.dtype)) if network.is_stochastic else mean
        if mean.dtype == torch.float64:
            losses.append(reference.loss(name, log_p_x, z, posterior, positive, tau, beta=1 / (K * D)))
        else:
            composition = objective.composition
            given = (log_p_x if composition.decodes else None, z, posterior, positive if composition.needs_positive else None)
            losses.append(objective(*given).loss)
        losses[-1].backward()
    torch.testing.assert_close(losses[0].double(), losses[1], rtol=1e-6, atol=1e-7)
    for a, b in zip(fast, slow):
        expected = torch.zeros_like(b) if b.grad is None else b.grad
        found = torch.zeros_like(a) if a.grad is None else a.grad
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["vae", "beta_vae", "ae", "bart"])
def test_objectives_without_contrast_do_not_depend_on_the_batch(name: str) -> None:
    """Scale: the loss per molecule does not depend on how a batch is split."""
    log_p_x, posterior, z = case()
    objective = build_objective(ObjectiveConfig(name=name), network_for(name))
    full = objective(log_p_x, z, posterior).loss
    parts = [objective(log_p_x[i : i + 2], z[i : i + 2], part(posterior, slice(i, i + 2))).loss for i in (0, 2, 4)]
    torch.testing.assert_close(full, torch.stack(parts).mean())


def test_beta_is_one_over_all_latent_dimensions_unless_it_is_set() -> None:
    network = network_for("beta_vae")
    assert build_objective(ObjectiveConfig(name="beta_vae"), network).weights["kl"] == -1 / (K * D)
    assert build_objective(ObjectiveConfig(name="beta_vae", beta=0.25), network).weights["kl"] == -0.25
    assert build_objective(ObjectiveConfig(name="vae"), network).weights["kl"] == -1


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("ae", {}, "network.posterior is gaussian; set it to point"),
        ("mim", {"posterior": "point"}, "network.posterior is point; set it to gaussian"),
        ("bart", {"posterior": "point"}, "network.encoder is perceiver; set it to transformer"),
        ("ae", {"encoder": "transformer", "posterior": "point"}, "network.encoder is transformer; set it to perceiver or hybrid"),
        ("infonce", {"posterior": "point"}, "network.decoder_layers is 6; set it to 0"),
        ("cmim", {"decoder_layers": 0}, "network.decoder_layers is 0; set it to at least 1"),
    ],
)
def test_networks_that_do_not_match_raise_with_a_hint(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"objective {name}: {message}.*objective={name} sets it"):
        build_objective(ObjectiveConfig(name=name), NetworkConfig(**changes))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ObjectiveConfig(name="mim", tau=0.5), "objective.tau=0.5"),
        (ObjectiveConfig(name="vae", queue=8, negatives="global"), "objective.negatives=global, objective.queue=8"),
        (ObjectiveConfig(name="cmim", beta=0.5), "objective.beta=0.5"),
    ],
)
def test_settings_without_effect_warn(config: ObjectiveConfig, message: str) -> None:
    with pytest.warns(UserWarning, match=f"{message} has no effect on the objective '{config.name}'"):
        build_objective(config)


def test_the_weight_of_the_kl_term_is_set_once() -> None:
    with pytest.raises(ConfigError, match=r"beta and objective\.weights\.kl set the same weight"):
        build_objective(ObjectiveConfig(name="beta_vae", beta=0.5, weights={"kl": -0.1}))


def test_gaussian_terms_equal_the_loops() -> None:
    _, posterior, z = case()
    torch.testing.assert_close(log_normal(z, posterior).double(), reference.log_normal(z, *posterior[:2]))
    standard = reference.log_normal(z, torch.zeros_like(z), torch.ones_like(z))
    torch.testing.assert_close(log_standard_normal(z).double(), standard)
    torch.testing.assert_close(kl_to_standard_normal(posterior).double(), reference.kl_to_standard_normal(*posterior[:2]))


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


def test_reconstruction_of_mismatched_shapes_raises() -> None:
    with pytest.raises(InvalidShapeError, match=r"\(2, 3, 4\)"):
        log_p_x_given_z(torch.zeros(2, 3, 4), torch.zeros(2, 2, dtype=torch.long), torch.ones(2, 2, dtype=torch.bool))


def test_mim_of_a_batch_is_the_mean_of_its_parts() -> None:
    """Scale: the loss per molecule does not depend on the size of a batch and how the batch is split."""
    log_p_x, posterior, z = case()
    objective = build_objective(ObjectiveConfig(name="mim"))
    full = objective(log_p_x, z, posterior).loss
    parts = [objective(log_p_x[i : i + 2], z[i : i + 2], part(posterior, slice(i, i + 2))).loss for i in (0, 2, 4)]
    torch.testing.assert_close(full, torch.stack(parts).mean())


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


def test_gradients_have_the_right_sign() -> None:
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


def test_gradients_of_kl_move_the_posterior_to_the_prior() -> None:
    mean = torch.full((B, K, D), 2.0, requires_grad=True)
    variance = torch.full((B, K, D), 0.1, requires_grad=True)
    kl_to_standard_normal(Posterior(mean, variance)).mean().backward()
    assert (mean.grad > 0).all() and (variance.grad < 0).all()
    assert kl_to_standard_normal(Posterior(torch.zeros(1, K, D), torch.ones(1, K, D))).tolist() == [0.0]


def test_an_unknown_objective_raises() -> None:
    with pytest.raises(ConfigError, match=r"'cmimm'.*cmim, mim"):
        build_objective(ObjectiveConfig(name="cmimm"))
