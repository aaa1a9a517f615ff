"""What `scaled_radius` of a request means for a model."""

from __future__ import annotations

__all__ = ["FACTOR", "RADIUS_UNITS", "radius_unit"]

RADIUS_UNITS = ("auto", "absolute", "spread")

FACTOR = 0.25
"""A MolMIM radius of 1 as a radius in units of the spread of the aggregated posterior, with `auto`.

MolMIM adds its radius to the numbers of the latent. Latents of other models have another size, so that the same number is another distance:
those of the shipped models have a root mean square of 0.11, and noise of 0.7 destroys them. With this factor, MolMIM's default of 1 for
/generate is the default of `optimize` and `sample`, 0.25 of the spread, and its default of 0.7 for /sampling is a little less.
"""


def radius_unit(setting: str, asked: str | None, has_density: bool) -> tuple[str, float]:
    """The unit for `sample` and `optimize`, and the factor by which the radius of a request is multiplied.

    Args:
        setting: Setting of the service, one of `RADIUS_UNITS`.
        asked: Unit that the request names, which overrides the setting; None: it names none.
        has_density: Whether the model has a fitted density.
    """
    if asked is not None:
        return asked, 1.0
    if setting == "auto":
        return ("spread", FACTOR) if has_density else ("absolute", 1.0)
    return setting, 1.0
