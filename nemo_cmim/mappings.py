"""Config dataclasses from nested mappings and back: checks of keys, types and values, and quoting for Hydra."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from .errors import ConfigError

__all__ = ["check", "check_keys", "finite", "from_mapping", "hydra_quoted", "suggestion", "to_mapping"]

T = TypeVar("T")


def check(condition: bool, message: str) -> None:
    """Raises a `ConfigError` unless `condition` is true."""
    if not condition:
        raise ConfigError(message)


def finite(value: Any) -> Any:
    """A value for JSON, with None in place of NaN and infinite numbers, which JSON does not have; also within mappings and sequences."""
    if isinstance(value, Mapping):
        return {name: finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def from_mapping(cls: type[T], mapping: Mapping[str, Any], where: str = "") -> T:
    """Builds a config dataclass from nested mappings; unknown and missing keys and wrong types are errors.

    Args:
        cls: A dataclass, such as those of `config`.
        mapping: Nested mappings, as read from YAML.
        where: Path of `mapping` in the config, for error messages (`model.network`).

    Raises:
        ConfigError: If a key is unknown (the message suggests a similar one) or missing, a type is wrong, or a value is out of range.
    """
    if upgrade := getattr(cls, "upgrade", None):  # renames keys of earlier versions
        mapping = upgrade(mapping)
    hints = typing.get_type_hints(cls)
    prefix = f"{where}." if where else ""
    check_keys(mapping, hints, prefix)
    missing = [field.name for field in dataclasses.fields(cls) if _is_required(field) and field.name not in mapping]  # type: ignore[arg-type]
    check(not missing, f"The config has no {', '.join(prefix + name for name in missing)}.")
    return cls(**{key: _convert(hints[key], value, prefix + key) for key, value in mapping.items()})


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def check_keys(mapping: Iterable[Any], known: Iterable[str], prefix: str) -> None:
    """Checks the keys of a mapping.

    Raises:
        ConfigError: If a key is unknown; the message suggests a similar one.
    """
    names = list(known)
    for key in mapping:
        if key not in names:
            hint = suggestion(str(key), names, prefix)
            raise ConfigError(f"Unknown config key {prefix}{key}.{hint} Known keys here: {', '.join(names)}.")


def suggestion(name: str, known: Iterable[str], prefix: str = "") -> str:
    """A sentence for an error message, with a space before it, that suggests a similar name; empty if there is none."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {prefix}{near[0]}?" if near else ""


def _convert(hint: Any, value: Any, where: str) -> Any:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        if value is None:
            return None
        (hint,) = (arg for arg in typing.get_args(hint) if arg is not type(None))
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} must be a mapping, found {value!r}.")
        return from_mapping(typing.cast(type, hint), value, where)
    if typing.get_origin(hint) is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} must be a mapping, found {value!r}.")
        kind = typing.get_args(hint)[1]
        return {str(key): _convert(kind, item, f"{where}.{key}") for key, item in value.items()}
    if typing.get_origin(hint) is tuple:
        kinds = typing.get_args(hint)
        if isinstance(value, str) or not hasattr(value, "__len__"):
            raise ConfigError(f"{where} must be a list, found {value!r}.")
        if kinds[-1] is ...:
            kinds = kinds[:1] * len(value)
        if len(value) != len(kinds):
            raise ConfigError(f"{where} must be a list of {len(kinds)} values, found {value!r}.")
        return tuple(_convert(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value)))
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(f"{where} must be of type {hint.__name__}, found {value!r} ({type(value).__name__}).")
    return value


def to_mapping(config: Any) -> dict[str, Any]:
    """Converts a config dataclass to nested mappings, as stored in YAML; tuples become lists."""
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_mapping(value)
    return list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value


def hydra_quoted(value: object, *, interpolate: bool = False) -> str:
    """Quotes a value, such as a path, for a Hydra override, so that Hydra and OmegaConf read its text unchanged.

    Args:
        value: The value.
        interpolate: Keep `${key}` as a reference to a key of the config.
    """
    text = re.sub(r"(\\*)\$\{" + (r"(?![\w.]+\})" if interpolate else ""), lambda match: 2 * match[1] + r"\${", str(value))
    text = re.sub(r"(\\*)('|\Z)", lambda match: 2 * match[1] + match[2].replace("'", r"\'"), text)
    return f"'{text}'"
