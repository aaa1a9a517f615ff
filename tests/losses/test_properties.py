from __future__ import annotations

import math

import pytest
import torch

from nemo_cmim.errors import InvalidShapeError
from nemo_cmim.losses import log_p_bits, log_p_values, property_terms
from nemo_cmim.types import ObservedProperties


def test_values_are_a_gaussian_density_in_nats() -> None:
    predicted, observed = torch.randn(5, 3), torch.randn(5, 3)
    expected = torch.distributions.Normal(predicted, 0.3).log_prob(observed).sum(1)
    torch.testing.assert_close(log_p_values(predicted, observed, 0.3), expected)


def test_bits_are_bernoulli_in_nats() -> None:
    logits, bits = torch.randn(5, 8), torch.randint(2, (5, 8)).float()
    torch.testing.assert_close(log_p_bits(logits, bits), torch.distributions.Bernoulli(logits=logits).log_prob(bits).sum(1))
    torch.testing.assert_close(log_p_bits(torch.zeros(2, 8), bits[:2]), torch.full((2,), -8 * math.log(2)))


def test_missing_values_count_nothing_and_have_no_gradient() -> None:
    predicted = torch.randn(2, 3, requires_grad=True)
    observed = torch.tensor([[0.1, math.nan, 0.2], [math.nan] * 3])
    terms = log_p_values(predicted, observed, 1.0)
    torch.testing.assert_close(terms[0], log_p_values(predicted[:1, [0, 2]], observed[:1, [0, 2]], 1.0)[0])
    assert terms[1] == 0
    terms.sum().backward()
    assert predicted.grad is not None and predicted.grad.isfinite().all()
    assert predicted.grad[observed.isnan()].tolist() == [0.0] * 4


def test_heads_are_split_into_values_and_bits() -> None:
    observed = ObservedProperties(torch.randn(4, 3), torch.randint(2, (4, 5)).float())
    predicted = {"h": torch.randn(4, 8), "z": torch.randn(4, 8)}
    terms = property_terms(predicted, observed, 0.5)
    assert set(terms) == {f"log_p_{what}_given_{given}" for what in ("values", "bits") for given in "hz"}
    torch.testing.assert_close(terms["log_p_values_given_z"], log_p_values(predicted["z"][:, :3], observed.values_BP, 0.5))
    torch.testing.assert_close(terms["log_p_bits_given_h"], log_p_bits(predicted["h"][:, 3:], observed.bits_BF))


def test_half_precision_is_computed_in_fp32() -> None:
    predicted, observed = torch.full((1, 600), 8.0), torch.full((1, 600), -8.0)
    expected = log_p_values(predicted, observed, 0.1)
    assert expected.isfinite().all() and expected.abs() > 65504  # beyond the range of fp16
    torch.testing.assert_close(log_p_values(predicted.half(), observed, 0.1), expected)


def test_shapes_must_match() -> None:
    with pytest.raises(InvalidShapeError, match=r"\(2, 3\) and observed properties \(2, 4\)"):
        log_p_values(torch.zeros(2, 3), torch.zeros(2, 4), 1.0)
