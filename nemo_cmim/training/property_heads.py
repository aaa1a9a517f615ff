"""The heads that an objective with observed properties needs, from the settings and the data."""

from __future__ import annotations

import dataclasses

from ..config import HeadsConfig, ModelConfig
from ..errors import ConfigError, DataError
from ..observed import PropertyTable
from ..store.token_store import TokenStore

__all__ = ["check_table", "find_table", "with_heads"]


def find_table(config: ModelConfig) -> PropertyTable | None:
    """The table of the training data; None without training data, or if they have no observed properties."""
    if config.train_ds is None or not config.objective.properties.sources:
        return None
    return TokenStore.open(config.train_ds.folder, config.train_ds.split).properties


def with_heads(config: ModelConfig, table: PropertyTable | None) -> ModelConfig:
    """The settings with the heads for the properties of `table` that `config.objective.properties` uses.

    Raises:
        ConfigError: If the objective needs observed properties and there are none, or if the network has other heads.
    """
    sources, found = config.objective.properties.sources, config.network.heads
    if not sources:
        return config
    if table is None:
        folder = "The training data" if config.train_ds is None else config.train_ds.folder
        raise ConfigError(
            f"objective.properties needs observed properties, but {folder} has none. Prepare the data with nemo-cmim prepare "
            "--properties standard --fingerprint-bits 512, or set all weights of model.objective.properties to 0."
        )
    weights = config.objective.properties.weights
    for what, count in (("values", len(table.values)), ("bits", table.bits)):
        used = [name for name, weight in weights.items() if weight and what in name]
        if used and not count:
            option = "--properties" if what == "values" else "--fingerprint-bits"
            raise ConfigError(
                f"objective.properties.{used[0].removeprefix('log_p_')} needs {what}: prepare the data with {option}."
            )
    heads = HeadsConfig(sources=sources, values=table.values, bits=table.bits)
    if found.sources and found != heads:
        raise ConfigError(
            f"network.heads has {len(found.values)} properties and {found.bits} bits given {found.sources}, but the data and "
            f"objective.properties need {len(heads.values)} and {heads.bits} given {sources}. Leave network.heads out, or use the data "
            "that the model was trained on."
        )
    return dataclasses.replace(config, network=dataclasses.replace(config.network, heads=heads))


def check_table(own: PropertyTable | None, store: TokenStore) -> None:
    """Checks that a store has the properties, with the quantiles, that the heads of a model predict.

    Raises:
        DataError: If they differ.
    """
    if own is not None and store.properties != own:
        raise DataError(
            f"{store.folder} has other observed properties or quantiles than the model. Use the data that the model was trained on."
        )
