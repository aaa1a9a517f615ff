"""Sources of negatives: all ranks, with gradient, and a queue of latents of earlier batches."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from nemo_cmim.config import NetworkConfig, ObjectiveConfig
from nemo_cmim.losses import Candidates, Objective, build_objective
from nemo_cmim.types import Posterior
from tests.losses.candidates_worker import main
from tests.processes import run_ranks

B, K, D = 7, 1, 4


def latents(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("name", "queue", "rows"),
    [
        ("cmim", 0, (range(0, 4), range(4, 7))),
        ("cmim", 5, (range(0, 4), range(4, 7))),
        ("infonce", 9, (range(0, 4), range(4, 7))),
        ("cmim_sum", 0, (range(0, 1), range(1, 7))),
    ],
)
def test_two_ranks_equal_one_rank_on_the_joined_batch(tmp_path: Path, name: str, queue: int, rows: Any) -> None:
    """Value and gradient, also if ranks have different batch sizes, and if the queue contains latents of both ranks."""
    network: dict[str, Any] = {"decoder_layers": 0, "posterior": "point"} if name == "infonce" else {}
    case = {
        "name": name,
        "tau": 0.3,
        "queue": queue,
        "network": network,
        "rows": [list(part) for part in rows],
        "z": latents(B, K, D),
        "positive": latents(B, K, D, seed=1),
        "weight": latents(D, D, seed=2),
    }
    torch.save(case, tmp_path / "case.pt")
    run_ranks(main, 2, tmp_path)
    found = torch.load(tmp_path / "result.pt", weights_only=False)

    config = ObjectiveConfig(name=name, tau=0.3, queue=queue)
    objective = build_objective(config, NetworkConfig(hidden_size=D, attention_heads=1, **network))
    for step, (loss, gradient) in enumerate(found["results"]):
        weight = case["weight"].clone().requires_grad_()
        z, positive = case["z"] @ weight + step, case["positive"] @ weight
        log_p_x = (z * 0.1).sum((1, 2)) if objective.composition.decodes else None
        output = objective(log_p_x, z, Posterior(z, torch.ones_like(z)), positive if objective.composition.needs_positive else None)
        output.loss.backward()
        torch.testing.assert_close(loss, output.loss.detach(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(gradient, weight.grad, rtol=1e-4, atol=1e-5)
    for key, value in objective.state_dict().items():
        torch.testing.assert_close(found["state"][key], value)


def test_the_queue_keeps_the_newest() -> None:
    candidates = Candidates(2, queue=5)
    first, second = torch.arange(6.0).view(3, 2), torch.arange(6.0, 14.0).view(4, 2)
    seen, start = candidates(first)
    assert start == 0 and torch.equal(seen, first)
    seen, _ = candidates(second)
    assert torch.equal(seen, torch.cat([second, first]))
    seen, _ = candidates(first)
    assert torch.equal(seen, torch.cat([first, second, first[:1]])), "the oldest two are removed"
    long = torch.arange(40.0).view(20, 2)
    candidates(long)
    assert torch.equal(candidates.queue_MH, long[:5])


def test_past_latents_are_negatives_without_gradient() -> None:
    """Eq. 4 with a queue: the mean is over the batch's negatives and the queue's together."""
    objective = build_objective(
        ObjectiveConfig(name="cae", tau=0.5, queue=4), NetworkConfig(hidden_size=D, posterior="point", attention_heads=1)
    )
    old, new = latents(3, 1, D), latents(2, 1, D, seed=1)

    def contrast_of(z: torch.Tensor) -> torch.Tensor:
        term = objective(torch.zeros(len(z)), z, Posterior(z, torch.zeros_like(z))).terms.log_p_k1_B
        assert term is not None
        return term

    past = old.clone().requires_grad_()
    contrast_of(past)
    current = new.clone().requires_grad_()
    found = contrast_of(current)
    found.sum().backward()
    unit_new, unit_old = (torch.nn.functional.normalize(x[:, 0], dim=1) for x in (new, old))
    for i in range(2):
        g = [torch.exp(unit_new[i] @ other / 0.5) for other in (unit_new[1 - i], *unit_old)]
        expected = torch.log(math.exp(2.0) / (math.exp(2.0) + sum(g) / 4))
        torch.testing.assert_close(found[i], expected)
    assert past.grad is None and current.grad is not None


def test_validation_neither_uses_nor_updates_the_queue() -> None:
    candidates = Candidates(2, queue=5).eval()
    rows = torch.ones(3, 2)
    for _ in range(2):
        seen, _ = candidates(rows)
        assert len(seen) == 3
    assert int(candidates.filled) == 0


def test_a_restored_queue_gives_the_same_loss() -> None:
    def step(objective: Objective, seed: int) -> torch.Tensor:
        z = latents(4, 1, D, seed=seed)
        return objective(torch.zeros(4), z, Posterior(z, torch.ones_like(z))).loss

    network = NetworkConfig(hidden_size=D, attention_heads=1)
    objective = build_objective(ObjectiveConfig(queue=6), network)
    step(objective, 0)
    saved = copy.deepcopy(objective.state_dict())
    expected = step(objective, 1)
    resumed = build_objective(ObjectiveConfig(queue=6), network)
    resumed.load_state_dict(saved)
    assert torch.equal(step(resumed, 1), expected)
    assert not build_objective(ObjectiveConfig(), network).state_dict(), "without a queue there is nothing to save"
