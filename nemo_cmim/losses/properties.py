"""log p(y | .) of observed properties y, in nats, fp32. B molecules, P properties, F bits of a fingerprint."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from ..errors import InvalidShapeError
from ..types import ObservedProperties
from .reconstruction import log_bernoulli

__all__ = ["log_p_bits", "log_p_values", "property_terms"]

_LOG_2PI = math.log(2.0 * math.pi)


def property_terms(predicted: Mapping[str, Tensor], observed: ObservedProperties, sigma: float) -> dict[str, Tensor]:
    """The terms log p(y | .) of `LossTerms`, each float32 [B].

    Args:
        predicted: Predictions [B, P + F] of the heads, by what they are given: "h" or "z".
        observed: The properties.
        sigma: See `log_p_values`.
    """
    values = observed.values_BP.shape[1]
    terms = {}
    for given, predicted_BW in predicted.items():
        terms[f"log_p_values_given_{given}"] = log_p_values(predicted_BW[:, :values], observed.values_BP, sigma)
        terms[f"log_p_bits_given_{given}"] = log_p_bits(predicted_BW[:, values:], observed.bits_BF)
    return terms


def log_p_values(predicted_BP: Tensor, observed_BP: Tensor, sigma: float) -> Tensor:
    """Log-density of properties under N(predicted, sigma^2).

    Args:
        predicted_BP: Predicted means, in the unit of `observed_BP`.
        observed_BP: Normal scores; NaN is missing and counts as 0 nats.
        sigma: Standard deviation of the Gaussian, in the same unit.

    Returns:
        float32 [B], summed over properties.

    Raises:
        InvalidShapeError: If the shapes differ.
    """
    _check_shapes(predicted_BP, observed_BP)
    is_missing_BP = observed_BP.isnan()
    error_BP = (predicted_BP.float() - observed_BP.float().masked_fill(is_missing_BP, 0.0)) / sigma
    log_p_BP = -0.5 * (error_BP.square() + _LOG_2PI) - math.log(sigma)
    return log_p_BP.masked_fill(is_missing_BP, 0.0).sum(1)


def log_p_bits(logits_BF: Tensor, observed_BF: Tensor) -> Tensor:
    """Log-probability of independent bits.

    Args:
        logits_BF: Logits of a 1.
        observed_BF: Bits, 0 or 1.

    Returns:
        float32 [B], summed over bits.

    Raises:
        InvalidShapeError: If the shapes differ.
    """
    _check_shapes(logits_BF, observed_BF)
    return log_bernoulli(logits_BF, observed_BF)


def _check_shapes(predicted: Tensor, observed: Tensor) -> None:
    if predicted.shape != observed.shape:
        raise InvalidShapeError(
            f"Predicted {tuple(predicted.shape)} and observed properties {tuple(observed.shape)} must have the same shape."
        )
