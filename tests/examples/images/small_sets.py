"""Image sets of a few random images in MedMNIST's format, and cells that train on them for a few steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from examples.images.cell import Cell, Settings
from examples.images.network import NetworkSizes

SMALL = Settings(
    sizes=NetworkSizes(latents=4, hidden=4, layers=1, dimensions=3),
    steps=6,
    validations=3,
    valid_images=12,
    train_images=30,
    test_images=20,
    mlp_steps=5,
)
OPTIONS = [
    "--latents=4",
    "--steps=6",
    "--validations=3",
    "--valid-images=12",
    "--train-images=30",
    "--test-images=20",
    "--mlp-steps=5",
]


def small_cell(objective: str = "cmim", batch_size: int = 4, **more: Any) -> Cell:
    return Cell(**({"data": "breastmnist", "objective": objective, "batch_size": batch_size, "settings": SMALL} | more))


def write_small_set(folder: Path, name: str, seed: int = 0) -> None:
    random = np.random.default_rng(seed)
    arrays = {}
    for part, count in (("train", 40), ("val", 12), ("test", 20)):
        labels = np.arange(count, dtype=np.uint8)[:, None] % 2
        images = random.integers(0, 128, (count, 28, 28)) + 100 * labels[:, :, None]
        arrays |= {f"{part}_images": images.astype(np.uint8), f"{part}_labels": labels}
    (folder / name).mkdir(parents=True, exist_ok=True)
    np.savez(folder / name / f"{name}.npz", **arrays)
