"""log p(x|z) of binary values, against loops and closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from nemo_cmim.errors import InvalidShapeError
from nemo_cmim.losses import log_bernoulli, log_p_bits


def test_equals_the_sum_of_logarithms() -> None:
    logits, x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([[1.0, 0, 1, 0, 0]] * 3)
    for row, found in zip(logits, log_bernoulli(logits, x)):
        probabilities = [1 / (1 + math.exp(-float(logit))) for logit in row]
        expected = sum(math.log(p) if bit else math.log(1 - p) for p, bit in zip(probabilities, (1, 0, 1, 0, 0)))
        assert float(found) == pytest.approx(expected, rel=1e-5)
    assert torch.equal(log_bernoulli(logits, x), log_p_bits(logits, x))


def test_a_grey_value_is_the_probability_of_a_one() -> None:
    logits = torch.tensor([[0.3]])
    as_one, as_zero = log_bernoulli(logits, torch.ones(1, 1)), log_bernoulli(logits, torch.zeros(1, 1))
    assert log_bernoulli(logits, torch.tensor([[0.25]])) == pytest.approx(0.25 * as_one + 0.75 * as_zero)


def test_the_logit_of_the_value_is_the_maximum() -> None:
    x = torch.tensor([[0.2, 0.9]])
    logits = torch.logit(x).requires_grad_()
    log_bernoulli(logits, x).sum().backward()
    assert logits.grad is not None and logits.grad.abs().max() < 1e-6


def test_extreme_logits_are_finite() -> None:
    assert log_bernoulli(torch.tensor([[1e4, -1e4]]), torch.tensor([[0.0, 1.0]])) == pytest.approx(-2e4)


def test_sums_over_all_axes_of_a_molecule_and_other_shapes_are_errors() -> None:
    assert log_bernoulli(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)) == pytest.approx(torch.full((2,), -12 * math.log(2)))
    with pytest.raises(InvalidShapeError, match=r"\(2, 3\) and values \(2, 4\)"):
        log_bernoulli(torch.zeros(2, 3), torch.zeros(2, 4))
