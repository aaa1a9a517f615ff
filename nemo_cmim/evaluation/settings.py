"""Settings of a comparison: the keys of conf/compare.yaml."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..losses import OBJECTIVES
from ..mappings import check

__all__ = ["CompareConfig", "RegressionConfig"]

OWNED = {
    "objective": "List the objectives in objectives=[...].",
    "model.objective.name": "List the objectives in objectives=[...].",
    "system": "List the objectives in objectives=[...], and set sizes with model.network.* .",
    "seed": "List the seeds in seeds=[...].",
    "trainer.max_steps": "Set steps=N.",
    "model.train_ds.folder": "Set data=FOLDER.",
    "exp_manager.explicit_log_dir": "Set output=FOLDER.",
    "exp_manager.resume_if_exists": "Leave it out.",
}
"""Overrides that the comparison sets itself, and what to do instead."""


@dataclass(frozen=True, kw_only=True)
class RegressionConfig:
    """How features are evaluated by property prediction; see `downstream.evaluate`."""

    data: tuple[str, ...] = ("freesolv",)  # freesolv, or CSV files with the columns smiles and target
    heads: tuple[str, ...] = ("svm", "mlp")
    mlp_steps: int = 2000
    folds: int = 5
    seeds: tuple[int, ...] = (0,)
    features: tuple[str, ...] = ("morgan512", "morgan2048")

    def __post_init__(self) -> None:
        for name in ("data", "heads", "seeds"):
            check(len(getattr(self, name)) > 0, f"regression.{name} is empty: list at least one.")
        check(self.folds >= 2, f"regression.folds must be at least 2, found {self.folds}.")


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """What is compared, and how."""

    data: str
    steps: int
    objectives: tuple[str, ...] = tuple(OBJECTIVES)
    seeds: tuple[int, ...] = (0, 1)
    output: str = "comparison"
    train: tuple[str, ...] = ()  # overrides of conf/pretrain.yaml for all runs
    jobs: int = 1
    decoded: int = 500
    regression: RegressionConfig = field(default_factory=RegressionConfig)

    def __post_init__(self) -> None:
        for name in self.objectives:
            check(name in OBJECTIVES, f"Unknown objective {name!r} in objectives. Known: {', '.join(OBJECTIVES)}.")
        for name in ("objectives", "seeds"):
            values = getattr(self, name)
            check(
                0 < len(values) == len(set(values)), f"{name} must have at least one value and no repetition, found {list(values)}."
            )
        for override in self.train:
            key = override.lstrip("+~").split("=")[0]
            check(key not in OWNED, f"{override}: a comparison sets {key} for each run. {OWNED.get(key)}")
        for name in ("steps", "jobs", "decoded"):
            check(getattr(self, name) >= 1, f"{name} must be at least 1, found {getattr(self, name)}.")
