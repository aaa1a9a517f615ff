"""Small training runs through the real path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from nemo_cmim.training.run import compose

__all__ = ["config", "overrides", "scalars", "steps"]

TINY = [
    "model=tiny", "model.network.hidden_size=32", "model.network.ffn_size=64", "model.network.decoder_layers=2",
    "model.train_ds.batch_size=16", "model.train_ds.workers=0", "model.validation_ds.workers=0", "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false", "trainer.log_every_n_steps=1", "trainer.num_sanity_val_steps=0", "model.optim.lr=3e-3",
]  # fmt: skip


def overrides(data: Path, folder: Path, *more: str) -> list[str]:
    return [*TINY, f"model.train_ds.folder={data}", f"exp_manager.explicit_log_dir={folder}", *more]


def config(data: Path, folder: Path, *more: str) -> DictConfig:
    return compose(overrides(data, folder, *more))


def scalars(folder: Path) -> dict[str, list[float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events: dict[str, dict[int, float]] = {}
    for file in sorted(folder.rglob("events.out.*")):
        reader = EventAccumulator(str(file))
        reader.Reload()
        for tag in reader.Tags()["scalars"]:
            events.setdefault(tag, {}).update({e.step: e.value for e in reader.Scalars(tag)})
    return {tag: [value for _, value in sorted(steps.items())] for tag, steps in events.items()}


def steps(folder: Path) -> list[dict[str, Any]]:
    """The lines of `metrics/steps.jsonl`, as far as they are written."""
    file = folder / "metrics" / "steps.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]
