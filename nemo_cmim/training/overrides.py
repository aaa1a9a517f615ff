"""Hydra overrides as a user types them: quoted where Hydra's grammar needs it, and errors in plain words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from ..errors import ConfigError
from ..mappings import hydra_quoted, suggestion

__all__ = ["compose_in", "groups_of", "quoted"]


_LIST = re.compile(r"\[[^\[\]]*\]")
_BETWEEN_ITEMS = r""",(?=(?:[^'"]|'[^']*'|"[^"]*")*$)"""  # a comma outside of quotes
_PLAIN = re.compile(r"""[\w.+-]*|'.*'|".*\"""", re.ASCII)


def groups_of(folder: Path) -> list[str]:
    """Names of the config groups: the subfolders of the folder of the YAML files."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and any(path.glob("*.yaml")))


def quoted(override: str) -> str:
    """The override with its value in quotes if Hydra cannot parse it otherwise, such as a path with `=` or a value with `ü`.

    Raises:
        ConfigError: If it is not an override.
    """
    return _parse(override)[0]


def compose_in(folder: Path, config_name: str, overrides: Sequence[str]) -> DictConfig:
    """Composes a config. A key that it does not contain is added, so that the caller's check of all keys finds it.

    Args:
        folder: Absolute path of the YAML files.
        config_name: Name of one of them, without suffix.
        overrides: Hydra overrides.

    Raises:
        ConfigError: If an override cannot be applied, or if the config or an option of a group is unknown.
    """
    parsed = [_parse(override) for override in overrides]
    try:
        with hydra.initialize_config_dir(str(folder), version_base=None):
            config = hydra.compose(config_name, [_with_force(text, override, folder) for text, override in parsed])
        _check_references(config)
        return config
    except MissingConfigException as error:
        raise _unknown_file(error, folder) from error
    except InterpolationKeyError as error:
        key = re.search("'(.*)'", str(error))
        raise ConfigError(f"{error.full_key} refers to ${{{key[1] if key else ''}}}, a key that does not exist.") from error
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"A setting cannot be applied: {' '.join(str(error).split()).rstrip('.')}.") from error


def _check_references(config: DictConfig) -> None:
    """Raises an `InterpolationKeyError` if a value refers to a key that does not exist. Other problems are left to the caller's checks."""
    try:
        OmegaConf.to_container(config, resolve=True)
    except InterpolationKeyError:
        raise
    except OmegaConfBaseException:
        return


def _parse(override: str) -> tuple[str, Override]:
    """The override, quoted if necessary, as text and parsed."""
    parser = OverridesParser.create()
    key, is_assigned, value = override.partition("=")
    texts = [override] if key.strip("+~") else []
    if texts and is_assigned:
        texts += [f"{key}={_quoted_items(value)}"] if _LIST.fullmatch(value) else []
        texts += [f"{key}={hydra_quoted(value, interpolate=True)}"]
    for text in texts:
        try:
            return text, parser.parse_override(text)
        except HydraException:
            continue
    raise ConfigError(f"{override!r} is not a setting of the form KEY=VALUE, with a key such as model.optim.lr.")


def _quoted_items(value: str) -> str:
    """A list `[a,b]` with each of its items in quotes that is not a number, a word or quoted already."""
    items = (item.strip() for item in re.split(_BETWEEN_ITEMS, value[1:-1]))
    return f"[{','.join(item if _PLAIN.fullmatch(item) else hydra_quoted(item, interpolate=True) for item in items)}]"


def _with_force(text: str, override: Override, folder: Path) -> str:
    """The text of an override; `++` before a key without prefix makes Hydra accept any key."""
    key = override.key_or_group
    is_group = "/" in key or "@" in text.partition("=")[0] or key in groups_of(folder)
    if override.is_sweep_override():
        values = text.partition("=")[2]
        if key in groups_of(folder):
            raise ConfigError(f"{text}: {key} must be one of {_choices(folder / key)}, found {values!r}.")
        raise ConfigError(
            f"{text} gives several values to one key. Write a list as {key}=[{values}]. Put quotes of two kinds around a text: "
            f'"{key}={hydra_quoted(values)}".'
        )
    if key in groups_of(folder) and override.type in (OverrideType.ADD, OverrideType.FORCE_ADD):
        raise ConfigError(f"{text}: {key} is one of several YAML files, of which one is in use already. Remove the +.")
    if key in groups_of(folder) and not override.is_delete() and not isinstance(override.value(), (str, list)):
        raise ConfigError(f"{text}: {key} must be one of {_choices(folder / key)}. Leave it out for the default.")
    return text if is_group or override.type != OverrideType.CHANGE else f"++{text}"


def _unknown_file(error: MissingConfigException, folder: Path) -> ConfigError:
    """The error for a YAML file that does not exist."""
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    known = _choices(folder / group)
    return ConfigError(f"Unknown {group or 'config'} {name!r}.{suggestion(name, known.split(', '))} Choices: {known}.")


def _choices(folder: Path) -> str:
    return ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
