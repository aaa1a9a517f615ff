"""Names of the steps of standardisation, for settings and options that do not load RDKit; `molecules` applies the steps."""

from __future__ import annotations

from collections.abc import Iterable

from .errors import ConfigError

__all__ = ["SALTS_AND_CHARGES", "STEPS", "Steps", "check_steps", "field_of"]

STEPS = ("extras", "atom-maps", "desalt", "neutralise")
"""The steps, in the order in which they are applied."""

SALTS_AND_CHARGES = ("desalt", "neutralise")
"""The steps that True stands for. Tautomers are left alone."""

Steps = bool | str | Iterable[str]
"""What callers pass: names of steps, True for `SALTS_AND_CHARGES`, or False for none."""


def check_steps(steps: Steps) -> tuple[str, ...]:
    """Checks the names of steps of standardisation.

    Args:
        steps: Names from `STEPS`, in any order; also a text, with commas between names, or True for `SALTS_AND_CHARGES`.

    Returns:
        The names, each once, in the order in which the steps are applied.

    Raises:
        ConfigError: If a name is unknown.
    """
    if isinstance(steps, bool):
        return SALTS_AND_CHARGES if steps else ()
    names = steps.split(",") if isinstance(steps, str) else list(steps) if isinstance(steps, Iterable) else [steps]
    names = [name.strip() if isinstance(name, str) else name for name in names]
    for name in names:
        if name not in STEPS:
            raise ConfigError(f"standardise={name!r}: this step is unknown. Known steps: {', '.join(STEPS)}.")
    return tuple(step for step in STEPS if step in names)


def field_of(step: str) -> str:
    """The name of the field of `prepare.settings.Rules` for a step."""
    return step.replace("-", "_")
