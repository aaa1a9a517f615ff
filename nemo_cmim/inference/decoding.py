"""From latents to SMILES: checks of latents, and greedy decoding in batches. N rows, B molecules in a batch, K latents, D width."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidLatentError, InvalidShapeError
from ..models import CMIMNetwork, greedy_decode
from ..tokenizers import SmilesTokenizer
from .capabilities import check_integer

__all__ = ["as_latents", "decode_batches"]

_SOURCES = 'Latents are encode(smiles).mean_BKD or embed(smiles, kind="mean")'
_ROUNDING = 16.0  # times eps / sqrt(D); the largest of 18,000 vectors of 14 networks, D = 32 to 1024, was 7


def as_latents(z: Any, network: CMIMNetwork, device: torch.device) -> Tensor:
    """The latents of a caller as float32 [N, K, D] on the device.

    Args:
        z: Tensor, array, list or DataFrame, [N, K, D] or [N, K * D].
        network: The network that decodes them.
        device: Its device.

    Raises:
        InvalidShapeError: If `z` has a different shape.
        InvalidLatentError: If `z` is not numbers, is not finite, or is an informative embedding.
    """
    try:
        if not isinstance(z, Tensor):
            with np.errstate(over="ignore"):  # becomes infinite, which is an error below
                z = np.array(z.to_numpy() if hasattr(z, "to_numpy") else z, dtype=np.float32, order="C")
        latents = torch.as_tensor(z, dtype=torch.float32, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidLatentError(
            f"Latents must be an array of numbers, found a {type(z).__name__}: {error}. {_SOURCES}."
        ) from error
    shape = (network.config.latents, network.config.hidden_size)
    if tuple(latents.shape[1:]) not in (shape, (shape[0] * shape[1],)):
        raise InvalidShapeError(
            f"Latents must have the shape [N, {shape[0]}, {shape[1]}], found {list(latents.shape)}. {_SOURCES}."
        )
    latents = latents.reshape(-1, *shape)
    is_finite_N = latents.isfinite().all((1, 2))
    if not is_finite_N.all():
        row = int((~is_finite_N).nonzero()[0])
        raise InvalidLatentError(
            f"Latents must be finite numbers, but row {row}, counted from 0, contains NaN or infinity. An invalid molecule has such a row "
            'with on_invalid="nan". Remove these rows before decoding.'
        )
    if shape[0] == 1 and len(latents) and _are_informative(latents.flatten(1), network):
        raise InvalidLatentError(
            'These vectors are informative embeddings (kind="informative"), which have the shape of latents but cannot be decoded. '
            f"{_SOURCES}."
        )
    return latents


def _are_informative(rows_ND: Tensor, network: CMIMNetwork) -> bool:
    """Whether each row is an informative embedding of the last layer, which would be decoded to a wrong molecule.

    Such a row is a mean of outputs of the decoder's final norm, and a latent is not. In half precision, the difference cannot be seen.
    """
    if network.decoder_norm.weight.dtype != torch.float32:
        return False
    are_means_N = _are_means_of_outputs(network.decoder_norm, rows_ND)
    if (
        not network.config.is_stochastic
    ):  # a deterministic latent is an output of the encoder's norm, which starts equal to the decoder's
        encoder_norm = getattr(network.encoder, "pool", network.encoder).norm
        are_means_N &= ~_are_means_of_outputs(encoder_norm, rows_ND)
    return bool(are_means_N.all())


def _are_means_of_outputs(norm: Any, rows_ND: Tensor) -> Tensor:
    """bool [N]: whether a row h can be a weighted mean of outputs of a layer norm.

    Without weight and bias, x = (h - bias) / weight, such a row has mean 0 over D and a root mean square of at most 1. Rounding errors
    of the D numbers are independent, so that the mean is 0 up to `_ROUNDING` * eps / sqrt(D), relative to the size of the numbers.
    The mean of a random vector is larger by a factor of about 1e5: one latent of a million passes for an embedding.
    """
    h_ND, weight_D, bias_D = (each.detach().cpu().double() for each in (rows_ND, norm.weight, norm.bias))
    x_ND = (h_ND - bias_D) / weight_D
    size_N = ((h_ND / weight_D).abs() + (bias_D / weight_D).abs()).mean(1)
    bound_N = _ROUNDING * torch.finfo(torch.float32).eps / h_ND.shape[1] ** 0.5 * size_N
    rms_N = x_ND.square().mean(1).sqrt()
    return (x_ND.mean(1).abs() <= bound_N) & (rms_N > 1e-3) & (rms_N < 1 + 1e-3)  # a row of zeros is the mean of the prior


def decode_batches(
    network: CMIMNetwork, tokenizer: SmilesTokenizer, latents: Iterable[tuple[Tensor, Tensor | None]], max_tokens: int | None
) -> list[str]:
    """Decodes batches greedily; only chemical tokens are written. A warning reports how many SMILES were truncated.

    Args:
        network: The network.
        tokenizer: Its tokenizer.
        latents: Batches of latents [B, K, D], each with its mask of real latents [B, K], or None.
        max_tokens: Maximum number of tokens of a SMILES; None: limited only by the positions of the model.

    Raises:
        ConfigError: If `max_tokens` is not a positive integer.
    """
    check_integer("max_tokens", max_tokens, optional=True)
    vocabulary = tokenizer.vocabulary
    texts: list[str] = []
    truncated = 0
    for z_BKD, is_latent_BK in latents:
        ids_BT = greedy_decode(
            network,
            z_BKD,
            is_latent_BK,
            bos_id=vocabulary.bos_id,
            eos_id=vocabulary.eos_id,
            is_allowed_V=torch.tensor(vocabulary.is_chemical),
            max_tokens=max_tokens,
        )
        texts += [tokenizer.decode(row) for row in ids_BT.tolist()]
        truncated += int((ids_BT != vocabulary.eos_id).all(1).sum())
    if truncated:
        limit = max_tokens or network.config.max_tokens
        warnings.warn(f"{truncated} of {len(texts)} SMILES had not ended after {limit} tokens and were truncated.", stacklevel=3)
    return texts
