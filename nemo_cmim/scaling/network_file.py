"""Reads the sizes of a network from a YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..config import NetworkConfig
from ..errors import ConfigError
from ..mappings import check, from_mapping

__all__ = ["read_network"]


def read_network(path: str) -> NetworkConfig:
    """Reads the section `network:` of a YAML file such as those of `conf/model/`; missing sizes are the paper's.

    Raises:
        ConfigError: If the file cannot be read, or if a size is unknown or out of range.
    """
    import yaml  # imported here, so that a plan for the paper's sizes does not need PyYAML

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"The sizes of the network cannot be read from {path}: {error}") from error
    check(isinstance(content, Mapping) and isinstance(content.get("network"), Mapping), f"{path} has no section `network:`.")
    return from_mapping(NetworkConfig, content["network"], "network")
