"""From latents to SMILES: checks of latents, and decoding in batches. N rows, B molecules in a batch, K latents, D width."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidLatentError, InvalidShapeError
from ..generation import DecodingSettings, decode
from ..models import CMIMNetwork
from ..tokenizers import SmilesTokenizer

__all__ = ["LARGEST", "SOURCES", "as_latents", "decode_batches", "informative_rows"]

SOURCES = 'Latents are encode(smiles).mean_BKD or embed(smiles, kind="mean")'
LARGEST = 1e4  # far outside of N(0, 1); squares of larger numbers come near the limits of half precision
_CHANCE = 5e-6  # probability that a latent passes for an informative embedding
_CERTAIN = 1e-3
_ROUNDING = 16.0  # times eps / sqrt(D); the largest of 18,000 vectors of 14 networks, D = 32 to 1024, was 7


def as_latents(z: Any, network: CMIMNetwork, device: torch.device, first_index: int = 0) -> Tensor:
    """The latents of a caller as float32 [N, K, D] on the device.

    Args:
        z: Tensor, array, list or DataFrame, [N, K, D] or [N, K * D].
        network: The network that decodes them.
        device: Its device.
        first_index: Index of the first row in error messages.

    Raises:
        InvalidShapeError: If `z` has a different shape.
        InvalidLatentError: If `z` is not numbers, is not finite, or is an informative embedding.
    """
    try:
        if not isinstance(z, Tensor):
            with np.errstate(over="ignore"):  # becomes infinite, which is an error below
                z = np.array(_as_array(z), dtype=np.float32, order="C")
        elif z.is_complex() or z.dtype == torch.bool:
            raise TypeError(f"its numbers are {z.dtype}")
        latents = torch.as_tensor(z, dtype=torch.float32, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidLatentError(f"Latents must be an array of numbers, found a {type(z).__name__}: {error}. {SOURCES}.") from error
    shape = (network.config.latents, network.config.hidden_size)
    if tuple(latents.shape[1:]) not in (shape, (shape[0] * shape[1],)):
        raise InvalidShapeError(f"Latents must have the shape [N, {shape[0]}, {shape[1]}], found {list(latents.shape)}. {SOURCES}.")
    latents = latents.reshape(-1, *shape)
    for row in _where(~latents.isfinite().all((1, 2))):
        raise InvalidLatentError(
            f"Latents must be finite numbers, but row {first_index + row}, counted from 0, contains NaN or infinity. An invalid molecule "
            'has such a row with on_invalid="nan". Remove these rows before decoding.'
        )
    for row in _where((latents.abs() > LARGEST).any((1, 2))):
        raise InvalidLatentError(
            f"Latents are numbers of the order of 1, as the prior N(0, 1), but row {first_index + row}, counted from 0, contains "
            f"{latents[row].abs().max():.3g}. {SOURCES}."
        )
    informative = informative_rows(latents.flatten(1), network)
    if informative:
        some = f"{len(informative)} of {len(latents)} vectors, the first in row {first_index + informative[0]}, counted from 0,"
        raise InvalidLatentError(
            f'{some} are informative embeddings (kind="informative"), which have the shape of latents but cannot be decoded. {SOURCES}.'
        )
    return latents


def _as_array(z: Any) -> Any:
    """Rows of numbers as an array; also a column of lists, such as `embedding` of a Parquet file."""
    if hasattr(z, "to_pylist"):  # pyarrow
        z = z.to_pylist()
    elif hasattr(z, "to_numpy"):
        z = z.to_numpy()
    if np.ma.is_masked(z):
        raise TypeError("some of its numbers are masked")
    array = np.asarray(z)
    if array.dtype == object and array.ndim == 1:
        array = np.array([*map(np.asarray, array)])
    if array.dtype.kind in "cb":
        raise TypeError(f"its numbers are {array.dtype}")
    return array


def _where(is_wrong_N: Tensor) -> list[int]:
    return is_wrong_N.nonzero().flatten().tolist()


def informative_rows(rows_ND: Tensor, network: CMIMNetwork) -> list[int]:
    """Indices of informative embeddings of the last layer, which would be decoded to wrong molecules.

    Such a row is a mean of outputs of the decoder's final norm, and a latent is not. One latent of about a million looks like one, so
    the list is empty if there are not more of them than chance explains. Vectors that were rounded, for example to half precision, are not
    recognised. With several latents the shapes differ, and the list is empty too.
    """
    if network.config.latents > 1 or network.decoder_norm.weight.dtype != torch.float32:
        return []
    are_means_N = _are_means_of_outputs(network.decoder_norm, rows_ND)
    if (
        not network.config.is_stochastic
    ):  # a deterministic latent is an output of the encoder's norm, which starts equal to the decoder's
        encoder_norm = getattr(network.encoder, "pool", network.encoder).norm
        are_means_N &= ~_are_means_of_outputs(encoder_norm, rows_ND)
    found = _where(are_means_N)
    by_chance = len(rows_ND) * _CHANCE
    # The probability of so many or more among so many latents is below (e by_chance / n)^n, a Chernoff bound.
    return found if found and (math.e * by_chance / len(found)) ** len(found) < _CERTAIN else []


def _are_means_of_outputs(norm: Any, rows_ND: Tensor) -> Tensor:
    """bool [N]: whether a row h can be a weighted mean of outputs of a layer norm.

    Without weight and bias, x = (h - bias) / weight, such a row has mean 0 over D and a root mean square of at most 1. Rounding errors
    of the D numbers are independent, so that the mean is 0 up to `_ROUNDING` * eps / sqrt(D), relative to the size of the numbers.
    The mean of a random vector is larger by a factor of about 1e5.
    """
    h_ND, weight_D, bias_D = (each.detach().cpu().double() for each in (rows_ND, norm.weight, norm.bias))
    x_ND = (h_ND - bias_D) / weight_D
    size_N = ((h_ND / weight_D).abs() + (bias_D / weight_D).abs()).mean(1)
    bound_N = _ROUNDING * torch.finfo(torch.float32).eps / h_ND.shape[1] ** 0.5 * size_N
    rms_N = x_ND.square().mean(1).sqrt()
    return (x_ND.mean(1).abs() <= bound_N) & (rms_N > 1e-3) & (rms_N < 1 + 1e-3)  # a row of zeros is the mean of the prior


def decode_batches(
    network: CMIMNetwork,
    tokenizer: SmilesTokenizer,
    latents: Iterable[tuple[Tensor, Tensor | None]],
    settings: DecodingSettings,
    numbers: Iterable[int] | None = None,
    report_truncated: bool = True,
) -> list[list[str]]:
    """Decodes batches; only chemical tokens are written. A warning reports how many SMILES were truncated.

    Args:
        network: The network.
        tokenizer: Its tokenizer.
        latents: Batches of latents [B, K, D], each with its mask of real latents [B, K], or None.
        settings: How tokens are chosen.
        numbers: Number of each latent, see `generation.decode`; None: counted from 0.
        report_truncated: Whether to warn.

    Returns:
        For each latent, `settings.n_best` SMILES. There are fewer if a beam did not find so many.
    """
    vocabulary, settings = tokenizer.vocabulary, settings.seeded() if settings.temperature else settings
    texts: list[list[str]] = []
    truncated = 0
    remaining = iter(itertools.count() if numbers is None else numbers)
    for z_BKD, is_latent_BK in latents:
        found = decode(network, vocabulary, z_BKD, is_latent_BK, settings, list(itertools.islice(remaining, len(z_BKD))))
        is_found_BN = found.log_p_BN > -math.inf
        for rows, are_found in zip(found.ids_BNT.tolist(), is_found_BN.tolist()):
            texts.append([tokenizer.decode(row) for row, is_found in zip(rows, are_found) if is_found])
        truncated += int(((found.ids_BNT != vocabulary.eos_id).all(2) & is_found_BN).sum())
    if truncated and report_truncated:
        limit = settings.max_tokens or network.config.max_tokens
        warnings.warn(
            f"{truncated} of {sum(map(len, texts))} SMILES had not ended after {limit} tokens and were truncated.", stacklevel=3
        )
    return texts
