"""What a model can compute, from its settings alone: checks that run before the network does, and the choice of an embedding."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Sequence, Set
from typing import NamedTuple

from ..config import ModelConfig
from ..errors import ConfigError

__all__ = [
    "KINDS",
    "POOLINGS",
    "EmbeddingSpec",
    "description",
    "embedding_spec",
    "model_name",
    "require_bottleneck",
    "require_decoder",
    "require_prior",
]

KINDS = ("informative", "mean")
POOLINGS = ("mean", "last")


class EmbeddingSpec(NamedTuple):
    """Which vector `CMIMModel.embed` computes.

    Attributes:
        kind: "informative" or "mean".
        layers: Decoder layers, counted from 1, whose pooled states are concatenated; empty for "mean".
        pooling: "mean" or "last", for "informative".
        width: Length of the vector.
    """

    kind: str
    layers: tuple[int, ...]
    pooling: str
    width: int


def embedding_spec(config: ModelConfig, kind: str, layers: Sequence[int] | None, pooling: str) -> EmbeddingSpec:
    """Checks the arguments of `CMIMModel.embed` that determine a vector; see there.

    Raises:
        ConfigError: If `kind` or `pooling` is unknown, has no effect or is not supported by the model, or if the model does not have
            one of `layers`.
    """
    network = config.network
    if kind not in KINDS:
        raise ConfigError(f"kind must be {' or '.join(map(repr, KINDS))}, found {kind!r}.")
    if kind == "informative":
        require_decoder(config, 'kind="informative"', 'pass kind="mean"')
    if pooling not in POOLINGS:
        raise ConfigError(f"pooling must be {' or '.join(map(repr, POOLINGS))}, found {pooling!r}.")
    if kind != "informative":
        if layers is not None or pooling != "mean":
            option = "pooling" if layers is None else f"layers={tuple(layers)!r}" if isinstance(layers, Sequence) else "layers"
            raise ConfigError(f'{option} has no effect on kind={kind!r}, only on kind="informative". Leave it out.')
        return EmbeddingSpec(kind, (), pooling, network.latents * network.hidden_size)  # `latents` is 1 without bottleneck
    last = network.decoder_layers
    is_list = isinstance(layers, Iterable) and not isinstance(layers, Set)  # a set has no order
    chosen = (last,) if layers is None else tuple(layers) if is_list else ()
    are_integers = all(isinstance(layer, numbers.Integral) and not isinstance(layer, bool) for layer in chosen)
    if not chosen or not are_integers or not {*chosen} <= {*range(1, last + 1)} or len({*chosen}) < len(chosen):
        raise ConfigError(f"layers must be distinct numbers from 1 to {last}, the last layer of this model, found {layers!r}.")
    return EmbeddingSpec(kind, chosen, pooling, len(chosen) * network.hidden_size)


def model_name(config: ModelConfig) -> str:
    """The model, as error messages name it."""
    return f"this model (objective {config.objective.name})"


def description(config: ModelConfig, name: str | None, parameters: int, device: object, precision: str) -> str:
    """The `repr` of a model: its name, objective, number of parameters, and sizes of latents and inputs."""
    network = config.network
    shape = f"{network.latents} x {network.hidden_size} latents" if network.has_bottleneck else f"width {network.hidden_size}"
    size = f"{parameters / 1e6:.1f} M" if parameters >= 1e5 else f"{parameters:,}"
    return (
        f"CMIMModel({f'{name!r}, ' if name else ''}objective={config.objective.name}, {size} parameters, {shape}, "
        f"at most {network.max_tokens} tokens, device={device}{'' if precision == 'fp32' else f', precision={precision}'})"
    )


def require_decoder(config: ModelConfig, what: str, hint: str = "use a model that has one") -> None:
    """Raises a `ConfigError` if the network has no decoder.

    Args:
        config: Settings of the model.
        what: What needs the decoder; the message begins with it.
        hint: How to fix it.
    """
    if not config.network.decoder_layers:
        raise ConfigError(f"{what} needs a decoder, but {model_name(config)} has only an encoder: {hint}.")


def require_bottleneck(config: ModelConfig, what: str, hint: str) -> None:
    """Raises a `ConfigError` if the network has no bottleneck; see `require_decoder`."""
    if not config.network.has_bottleneck:
        raise ConfigError(
            f"{what} needs a fixed number of latents, but {model_name(config)} has one state for each token and no bottleneck: {hint}."
        )


def require_prior(config: ModelConfig, what: str, hint: str) -> None:
    """Raises a `ConfigError` if the latent is deterministic, so that there is no distribution to sample from; see `require_decoder`."""
    if not config.network.is_stochastic:
        raise ConfigError(f"{what} needs a prior and a posterior to sample from, but {model_name(config)} has neither: {hint}.")
