"""Small training runs through `train`, and what they wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from nemo_cmim.mappings import hydra_quoted
from nemo_cmim.training.checkpoints.format import find_checkpoints
from nemo_cmim.training.run import compose

__all__ = ["GIVEN_H", "GIVEN_Z", "PARAMS", "RESUME", "checkpoint_names", "config", "every_two", "overrides", "scalars", "steps"]

TINY = [
    "model=tiny", "model.network.hidden_size=32", "model.network.ffn_size=64", "model.network.decoder_layers=2",
    "model.train_ds.batch_size=16", "model.train_ds.workers=0", "model.validation_ds.workers=0", "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false", "trainer.log_every_n_steps=1", "trainer.num_sanity_val_steps=0", "model.optim.lr=3e-3",
]  # fmt: skip
PARAMS = "exp_manager.checkpoint_callback_params"
RESUME = "exp_manager.resume_if_exists=true"
# Weights of observed properties given h, the pooled decoder states, and given z. They need the fixture `with_properties`.
GIVEN_H = ("model.objective.properties.values_given_h=5", "model.objective.properties.bits_given_h=0.5")
GIVEN_Z = ("model.objective.properties.values_given_z=1", "model.objective.properties.bits_given_z=0.1")


def overrides(data: Path, folder: Path, *more: str) -> list[str]:
    return [*TINY, f"model.train_ds.folder={hydra_quoted(data)}", f"exp_manager.explicit_log_dir={hydra_quoted(folder)}", *more]


def config(data: Path, folder: Path, *more: str) -> DictConfig:
    return compose(overrides(data, folder, *more))


def every_two(max_steps: int) -> list[str]:
    """Overrides for a checkpoint every two steps, and validation only at the end."""
    return [
        f"trainer.max_steps={max_steps}",
        "trainer.val_check_interval=100",
        f"{PARAMS}.every_n_train_steps=2",
        "model.validation.reconstruct=0",
    ]


def checkpoint_names(folder: Path) -> list[str]:
    """Names of the checkpoints of a run, the newest first."""
    return [path.name for path in find_checkpoints(folder / "checkpoints")]


def scalars(folder: Path) -> dict[str, list[float]]:
    """The values of each TensorBoard tag, by step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events: dict[str, dict[int, float]] = {}
    for file in sorted(folder.rglob("events.out.*")):
        reader = EventAccumulator(str(file))
        reader.Reload()
        for tag in reader.Tags()["scalars"]:
            events.setdefault(tag, {}).update({e.step: e.value for e in reader.Scalars(tag)})
    return {tag: [value for _, value in sorted(steps.items())] for tag, steps in events.items()}


def steps(folder: Path) -> list[dict[str, Any]]:
    """The complete lines of `metrics/steps.jsonl`."""
    file = folder / "metrics" / "steps.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line, parse_constant=pytest.fail) for line in lines if line.endswith("\n")]  # JSON has no NaN
