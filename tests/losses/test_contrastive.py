"""log p_k1 of Eq. 4 and InfoNCE of Eq. 1."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from nemo_cmim.errors import InvalidShapeError
from nemo_cmim.losses import info_nce, log_p_k1
from tests import reference


def latents(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("tau", [0.1, 1.0])
@pytest.mark.parametrize("shape", [(2, 1, 3), (7, 1, 5), (6, 4, 3)])
def test_value_and_gradient_equal_the_loops(shape: tuple[int, int, int], tau: float) -> None:
    z = latents(*shape).requires_grad_()
    slow = z.detach().double().requires_grad_()
    value, expected = log_p_k1(z, tau), reference.log_p_k1(slow, tau)
    weight = latents(shape[0], seed=1)
    (value * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(z.grad.double(), slow.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_info_nce_equals_the_loops(tau: float) -> None:
    fast = [latents(7, 2, 5, seed=s).requires_grad_() for s in (0, 1)]
    slow = [z.detach().double().requires_grad_() for z in fast]
    value, expected = info_nce(*fast, tau), reference.info_nce(*slow, tau)
    weight = latents(7, seed=2)
    (value * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    for a, b in zip(fast, slow):
        torch.testing.assert_close(a.grad.double(), b.grad, rtol=1e-4, atol=1e-5)


def test_info_nce_of_equal_latents_is_log_of_the_batch() -> None:
    z = torch.ones(8, 1, 4)
    torch.testing.assert_close(info_nce(z, z, 0.1), torch.full((8,), math.log(8.0)))


def test_info_nce_of_unequal_shapes_raises() -> None:
    with pytest.raises(InvalidShapeError, match=r"\(3, 1, 4\).*\(2, 1, 4\)"):
        info_nce(torch.zeros(3, 1, 4), torch.zeros(2, 1, 4), 1.0)


@pytest.mark.parametrize("block", [1, 3, 4, 10])
def test_blocks_change_neither_value_nor_gradient(block: int) -> None:
    whole, parts = latents(10, 2, 4).requires_grad_(), latents(10, 2, 4).requires_grad_()
    a, b = log_p_k1(whole, 0.2), log_p_k1(parts, 0.2, block=block)
    a.square().sum().backward()
    b.square().sum().backward()
    torch.testing.assert_close(a, b)
    torch.testing.assert_close(whole.grad, parts.grad)


@pytest.mark.parametrize(("B", "block"), [(1024, 64), (4096, 128), pytest.param(16_384, 256, marks=pytest.mark.slow)])
def test_blocks_bound_the_largest_tensor(B: int, block: int) -> None:
    """With blocks no tensor of B x B elements is made, forward or backward: O(B) memory per anchor, also at the paper's batch."""
    sizes = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            sizes.extend(t.numel() for t in torch.utils._pytree.tree_leaves(out) if isinstance(t, torch.Tensor))
            return out

    z = latents(B, 1, 8).requires_grad_()
    with Watch():
        log_p_k1(z, 1.0, block=block).sum().backward()
    assert max(sizes) <= block * B


def test_equal_latents_give_log_half() -> None:
    z = torch.ones(5, 1, 4)
    torch.testing.assert_close(log_p_k1(z, 0.1), torch.full((5,), -math.log(2.0)))


def test_orthogonal_latents() -> None:
    z = torch.eye(6).unsqueeze(1)
    torch.testing.assert_close(log_p_k1(z, 0.1), torch.full((6,), -math.log1p(math.exp(-10.0))))


def test_one_molecule_has_no_negatives() -> None:
    z = latents(1, 1, 4).requires_grad_()
    with pytest.warns(UserWarning, match="no negatives"):
        value = log_p_k1(z, 1.0)
    value.sum().backward()
    assert value.tolist() == [0.0]
    assert not z.grad.any()


def test_the_warning_is_issued_once() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            log_p_k1(torch.ones(1, 1, 2), 1.0)
    assert len(caught) == 1


def test_order_of_the_batch_does_not_matter() -> None:
    z, order = latents(9, 1, 6), torch.randperm(9, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(log_p_k1(z, 0.5)[order], log_p_k1(z[order], 0.5))


def test_length_of_latents_does_not_matter() -> None:
    z = latents(9, 1, 6)
    torch.testing.assert_close(log_p_k1(z, 0.5), log_p_k1(z * torch.arange(1, 10)[:, None, None], 0.5))


def test_a_step_pushes_latents_apart() -> None:
    z = (torch.ones(8, 1, 4) + 0.1 * latents(8, 1, 4)).requires_grad_()
    before = log_p_k1(z, 1.0)
    (gradient,) = torch.autograd.grad(-before.mean(), z)
    with torch.no_grad():
        moved = z - 0.5 * gradient
        spread = [torch.nn.functional.normalize(x.flatten(1), dim=1).mean(0).norm() for x in (z, moved)]
    assert log_p_k1(moved, 1.0).mean() > before.mean()
    assert spread[1] < spread[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_latents_are_computed_in_fp32(dtype: torch.dtype) -> None:
    z = (latents(6, 1, 8).clamp(-2, 2) * 3e4).to(dtype)  # the squares overflow fp16
    value = log_p_k1(z, 0.01)
    assert value.dtype == torch.float32
    assert value.isfinite().all()
    torch.testing.assert_close(value, log_p_k1(z.float(), 0.01))


@pytest.mark.parametrize("shape", [(0, 1, 4), (4,)])
def test_wrong_shapes_raise(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidShapeError, match=r"found \("):
        log_p_k1(torch.zeros(shape), 1.0)
