"""A cell: one training run with its evaluation, named by everything that has an effect on its result."""

from __future__ import annotations

import hashlib
import json
import math
import threading
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from nemo_cmim.arguments import check_integer, check_positive
from nemo_cmim.config import ObjectiveConfig
from nemo_cmim.errors import ConfigError
from nemo_cmim.losses import OBJECTIVES, Objective, build_objective

from .network import ImageNetwork, NetworkSizes, latent_config
from .sets import SETS

__all__ = ["ABLATIONS", "MAIN", "REFERENCES", "TAU", "VERSION", "WEIGHT", "Cell", "Settings", "build"]

MAIN = ("cmim", "mim", "vae", "ae", "infonce")
ABLATIONS = ("cmim_sum", "infonce_x", "cae", "cvae")
REFERENCES = ("untrained", "pixels")
"""Rows of tables that need no training: cMIM's network with its initial weights, and the pixels as vectors. See `references`."""
TAU, WEIGHT = 0.1, 1.0
"""The paper's temperature, and the weight of its contrastive term."""

LATENTS = 49
"""Steps of the latent array in the recorded grid; 400 in the paper."""

VERSION = 2
"""Part of the name of every cell. Increase it if code or constants that are not settings change results: network, augmentation, order,
training, classifiers."""

_SEEDED = threading.Lock()  # of torch's generator, which the threads of a process share


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings that all cells of a comparison share. The defaults are those of the recorded grid, smaller than the paper's.

    Attributes:
        sizes: Sizes of the network.
        steps: Optimiser steps, the same for all batch sizes.
        lr: Maximum learning rate of Adam (WSD).
        validations: Number of validations, evenly over the steps; the weights with the lowest validation loss are kept.
        valid_images: Maximum number of validation images; 0: all.
        train_images: Maximum number of training images of the classifiers; 0: all.
        test_images: Maximum number of test images; 0: all.
        mlp_steps: Updates of the MLP classifier.
    """

    sizes: NetworkSizes = field(default_factory=lambda: NetworkSizes(latents=LATENTS))
    steps: int = 1500
    lr: float = 1e-3
    validations: int = 10
    valid_images: int = 500
    train_images: int = 5000
    test_images: int = 2000
    mlp_steps: int = 1000

    def __post_init__(self) -> None:
        least = {"steps": 1, "validations": 1, "valid_images": 0, "train_images": 0, "test_images": 0, "mlp_steps": 1}
        for name, value in least.items():
            check_integer(name, getattr(self, name), value)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run, or a reference.

    Attributes:
        data: Name of the image set.
        objective: Name in `losses.OBJECTIVES`, or in `REFERENCES`.
        batch_size: B; 0 for references.
        seed: Seed of weights, order, augmentation, noise and classifiers.
        tau: Temperature of contrastive terms.
        weight: Weight of the contrastive term of objectives that also have other terms.
        settings: Shared settings.
    """

    data: str
    objective: str
    batch_size: int
    seed: int = 0
    tau: float = TAU
    weight: float = WEIGHT
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        if self.data not in SETS:
            raise ConfigError(f"Unknown image set {self.data!r}. Known: {', '.join(SETS)}.")
        if self.objective not in (*MAIN, *ABLATIONS, *REFERENCES):
            raise ConfigError(f"Unknown objective {self.objective!r}. Known: {', '.join((*MAIN, *ABLATIONS, *REFERENCES))}.")
        if self.is_reference and self.batch_size:
            raise ConfigError(f"batch_size must be 0 for {self.objective}, found {self.batch_size}.")
        if not self.is_reference:
            check_integer("batch_size", self.batch_size, 2)
        check_integer("seed", self.seed, 0)
        check_positive("tau", self.tau)
        if not 0 <= self.weight < math.inf:
            raise ConfigError(f"weight must be a number of at least 0, found {self.weight}.")
        composition = None if self.is_reference else OBJECTIVES[self.objective]
        if not (composition and composition.is_contrastive) and (self.tau, self.weight) != (TAU, WEIGHT):
            raise ConfigError(f"tau and weight have no effect on the objective {self.objective}.")
        if composition and len(composition.weights) == 1 and self.weight != WEIGHT:
            raise ConfigError(f"weight has no effect on the objective {self.objective}: the contrastive term is its only one.")

    @property
    def is_reference(self) -> bool:
        """Whether the cell needs no training."""
        return self.objective in REFERENCES

    @property
    def name(self) -> str:
        """Name of the files of the cell. It ends with a digest of all fields, so that cells with different settings do not collide."""
        digest = hashlib.sha256(json.dumps(self.as_mapping(), sort_keys=True).encode()).hexdigest()[:8]
        own = "" if (self.tau, self.weight) == (TAU, WEIGHT) else f"-tau{self.tau:g}-weight{self.weight:g}"
        return f"{self.data}-{self.objective}-b{self.batch_size}-s{self.seed}{own}-{digest}"

    def as_mapping(self) -> dict[str, Any]:
        """The fields and `VERSION`, as stored in JSON."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_mapping(cls, mapping: dict[str, Any]) -> Cell:
        """The inverse of `as_mapping`.

        Raises:
            ConfigError: If the mapping is of a different version, or has different fields.
        """
        fields = dict(mapping)
        try:
            if (version := fields.pop("version")) != VERSION:
                raise ConfigError(f"The cell is of version {version}, not {VERSION}.")
            settings = dict(fields["settings"])
            sizes = NetworkSizes(**settings["sizes"])
            return cls(**(fields | {"settings": Settings(**(settings | {"sizes": sizes}))}))
        except (KeyError, TypeError) as error:
            raise ConfigError(f"The cell has different fields: {error}.") from error


def build(cell: Cell) -> tuple[ImageNetwork, Objective]:
    """Builds the untrained network and the package's objective of a cell (of a reference: cMIM's). Its seed determines the weights."""
    name = "cmim" if cell.is_reference else cell.objective
    composition = OBJECTIVES[name]
    weights = {}
    if cell.weight != WEIGHT:
        weights = {name: cell.weight for name in composition.weights if name in ("log_p_k1", "log_p_k1_sum")}
    tau = cell.tau if composition.is_contrastive else ObjectiveConfig().tau
    config = ObjectiveConfig(name=name, weights=weights, tau=tau)
    objective = build_objective(config, latent_config(cell.settings.sizes, composition))
    with _SEEDED, torch.random.fork_rng(devices=[]):
        torch.manual_seed(cell.seed)
        return ImageNetwork(cell.settings.sizes, composition), objective
