"""Sizes of a network from a YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..config import NetworkConfig, check, from_mapping
from ..errors import ConfigError

__all__ = ["read_network"]


def read_network(path: str) -> NetworkConfig:
    """Reads the mapping `network:` of a file of `conf/model/`; sizes that it does not name are the paper's.

    Raises:
        ConfigError: The file cannot be read, or a size is unknown or out of range.
    """
    import yaml  # here, so that planning for the paper's sizes imports nothing

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"The network's sizes cannot be read from {path}: {error}") from error
    check(isinstance(content, Mapping) and isinstance(content.get("network"), Mapping), f"{path} has no mapping `network:`.")
    return from_mapping(NetworkConfig, content["network"], "network")
