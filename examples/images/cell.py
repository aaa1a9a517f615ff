"""A cell: one training run with its evaluation, named by everything that has an effect on its result."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from nemo_cmim.config import ObjectiveConfig
from nemo_cmim.errors import ConfigError
from nemo_cmim.losses import OBJECTIVES, Objective, build_objective

from .network import ImageNetwork, NetworkSizes, latent_config
from .sets import SETS

__all__ = ["ABLATIONS", "MAIN", "Cell", "Settings", "build"]

MAIN = ("cmim", "mim", "vae", "ae", "infonce")
ABLATIONS = ("cmim_sum", "infonce_x", "cae", "cvae")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all cells of a comparison share.

    Attributes:
        sizes: Sizes of the network.
        steps: Optimiser steps, the same for all batch sizes; 1,000,000 in the paper.
        lr: Maximum learning rate of Adam (WSD).
        validations: Number of validations, evenly over the steps; the weights with the lowest validation loss are kept.
        valid_images: Validation images that are used, at most.
        train_images: Training images that classifiers learn from, at most.
        test_images: Test images that are classified, at most.
        mlp_steps: Updates of the MLP classifier.
    """

    sizes: NetworkSizes = field(default_factory=NetworkSizes)
    steps: int = 1_000_000
    lr: float = 1e-3
    validations: int = 10
    valid_images: int = 1000
    train_images: int = 5000
    test_images: int = 10000
    mlp_steps: int = 1000

    def __post_init__(self) -> None:
        for name in ("steps", "validations", "valid_images", "train_images", "test_images", "mlp_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, found {getattr(self, name)}.")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run.

    Attributes:
        data: Name of the image set.
        objective: Name in `losses.OBJECTIVES`.
        batch_size: B.
        seed: Of weights, order, augmentation, noise and classifiers.
        tau: Temperature of contrastive terms; 0.1 in the paper.
        weight: Weight of the contrastive term of objectives that also have others; 1 in the paper.
        settings: Shared settings.
    """

    data: str
    objective: str
    batch_size: int
    seed: int = 0
    tau: float = 0.1
    weight: float = 1.0
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        if self.data not in SETS:
            raise ConfigError(f"Unknown image set {self.data!r}. Known: {', '.join(SETS)}.")
        if self.objective not in (*MAIN, *ABLATIONS):
            raise ConfigError(f"Unknown objective {self.objective!r}. Known: {', '.join((*MAIN, *ABLATIONS))}.")
        if self.batch_size < 2:
            raise ConfigError(f"batch_size must be at least 2, found {self.batch_size}.")
        if not OBJECTIVES[self.objective].is_contrastive and (self.tau, self.weight) != (0.1, 1.0):
            raise ConfigError(f"tau and weight have no effect on the objective {self.objective}.")

    @property
    def name(self) -> str:
        """Name of the files of the cell. It ends with a digest of all settings, so that other settings are another cell."""
        digest = hashlib.sha256(json.dumps(self.as_mapping(), sort_keys=True).encode()).hexdigest()[:8]
        own = "" if (self.tau, self.weight) == (0.1, 1.0) else f"-tau{self.tau:g}-weight{self.weight:g}"
        return f"{self.data}-{self.objective}-b{self.batch_size}-s{self.seed}{own}-{digest}"

    def as_mapping(self) -> dict[str, Any]:
        """The fields, as stored in JSON."""
        return asdict(self)

    @classmethod
    def from_mapping(cls, mapping: dict[str, Any]) -> Cell:
        """The inverse of `as_mapping`."""
        settings = dict(mapping["settings"])
        return cls(**(mapping | {"settings": Settings(**(settings | {"sizes": NetworkSizes(**settings["sizes"])}))}))

    def with_steps(self, steps: int) -> Cell:
        """The same cell with another number of steps."""
        return replace(self, settings=replace(self.settings, steps=steps))


def build(cell: Cell) -> tuple[ImageNetwork, Objective]:
    """Builds the untrained network and the package's objective of a cell; torch's random state draws the weights."""
    composition = OBJECTIVES[cell.objective]
    weights = {}
    if cell.weight != 1.0:
        weights = {name: cell.weight for name in composition.weights if name in ("log_p_k1", "log_p_k1_sum", "log_p_positive")}
    tau = cell.tau if composition.is_contrastive else ObjectiveConfig().tau
    config = ObjectiveConfig(name=cell.objective, weights=weights, tau=tau)
    objective = build_objective(config, latent_config(cell.settings.sizes, composition))
    return ImageNetwork(cell.settings.sizes, composition), objective
