"""What is logged of a step, in units that are easy to read. Shape letters as in `types`."""

from __future__ import annotations

from torch import Tensor

from ..types import LossTerms, Posterior, TokenBatch

__all__ = ["PER_TOKEN", "readable"]

PER_TOKEN = ("log_p_x_given_z_per_token", "token_accuracy")  # averages over tokens; all others are over molecules
_PER_DIMENSION = ("log_q_z_given_x", "log_p_z", "kl")


def readable(terms: LossTerms, batch: TokenBatch, posterior: Posterior, predicted_BT: Tensor | None) -> dict[str, Tensor]:
    """Each term of the loss under its own key, nats: per token, per latent dimension, or per molecule; and token accuracy.

    Args:
        terms: Of the loss.
        batch: The tokens.
        posterior: q(z|x).
        predicted_BT: The most likely token at each target; None without decoder.
    """
    tokens = batch.is_target_BT.sum()
    dimensions = posterior.mean_BKD[0].numel()
    named = {}
    for field, value_B in terms._asdict().items():
        name = field.removesuffix("_B")
        if value_B is None:
            continue
        if name == "log_p_x_given_z":
            named[f"{name}_per_token"] = value_B.sum() / tokens
        elif name in _PER_DIMENSION:
            named[f"{name}_per_dim"] = value_B.mean() / dimensions
        else:
            named[name] = value_B.mean()
    if predicted_BT is not None:
        named["token_accuracy"] = ((predicted_BT == batch.target_BT) & batch.is_target_BT).sum() / tokens
    return {name: value.detach() for name, value in named.items()}
