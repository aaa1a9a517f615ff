"""The cells of the grid, and what they cost.

The grid has four parts. `main`: the five objectives of Fig. 3, all batch sizes, six image sets, two seeds. `ablations`: cMIM-Sigma,
InfoNCE-X, cAE and cVAE (Fig. 6) on one of these sets, one seed. `temperature`: cMIM with different tau or a different weight of the
contrastive term, on the same set, at four batch sizes, one seed; the paper chooses tau from 0.1 and 1, and has no weight. `references`:
an untrained network and the pixels, for each set and seed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from nemo_cmim.arguments import check_integer
from nemo_cmim.errors import ConfigError
from nemo_cmim.markdown import markdown_table

from .cell import ABLATIONS, MAIN, REFERENCES, TAU, WEIGHT, Cell, Settings, build
from .data import TEST, VALIDATION, Images, Part, pixels
from .evaluation import evaluate
from .grid import one_thread
from .network import PIXELS
from .sets import SETS
from .training import step_time, validate

__all__ = ["PARTS", "Grid", "cells_of", "measure_times", "report"]

PARTS = ("main", "ablations", "temperature", "references")
BATCH_SIZES = (2, 5, 10, 100, 200)
TEMPERATURE_BATCH_SIZES = (2, 5, 10, 100)
MAIN_SETS = ("mnist", "fashion-mnist", "emnist-letters-a-m", "pneumoniamnist", "retinamnist", "breastmnist")
FEWER_SETS = ("mnist",)
TAUS = (0.05, 0.3, 1.0)  # and 0.1, in the main part
WEIGHTS = (0.1, 10.0)  # and 1, in the main part
_MEASURED_IMAGES = 10_000  # at most, of each part


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Which cells to run. The defaults are those of the recorded grid.

    Attributes:
        settings: Settings of all cells.
        parts: Names in `PARTS`.
        sets: Image sets of the main part.
        fewer_sets: Image sets of the ablations and the temperature part. References are of all sets.
        objectives: Objectives of the main part.
        batch_sizes: Batch sizes of the main part and the ablations.
        temperature_batch_sizes: Batch sizes of the temperature part.
        seeds: Number of seeds of the main part and the references; the other parts have seed 0.
    """

    settings: Settings
    parts: Sequence[str] = PARTS
    sets: Sequence[str] = MAIN_SETS
    fewer_sets: Sequence[str] = FEWER_SETS
    objectives: Sequence[str] = MAIN
    batch_sizes: Sequence[int] = BATCH_SIZES
    temperature_batch_sizes: Sequence[int] = TEMPERATURE_BATCH_SIZES
    seeds: int = 2

    def __post_init__(self) -> None:
        check_integer("seeds", self.seeds)


def cells_of(grid: Grid) -> list[Cell]:
    """All cells of a grid, each once."""
    settings, found = grid.settings, []
    if "main" in grid.parts:
        found += [
            Cell(data=data, objective=objective, batch_size=size, seed=seed, settings=settings)
            for seed in range(grid.seeds)
            for data in grid.sets
            for objective in grid.objectives
            for size in grid.batch_sizes
        ]
    if "ablations" in grid.parts:
        found += [
            Cell(data=data, objective=objective, batch_size=size, settings=settings)
            for data in grid.fewer_sets
            for objective in ABLATIONS
            for size in grid.batch_sizes
        ]
    if "temperature" in grid.parts:
        found += [
            Cell(data=data, objective="cmim", batch_size=size, tau=tau, weight=weight, settings=settings)
            for data in grid.fewer_sets
            for tau, weight in (*((tau, WEIGHT) for tau in TAUS), *((TAU, weight) for weight in WEIGHTS))
            for size in grid.temperature_batch_sizes
        ]
    if "references" in grid.parts:
        found += [
            Cell(data=data, objective=objective, batch_size=0, seed=seed, settings=settings)
            for data in (*grid.sets, *grid.fewer_sets)
            for objective in REFERENCES
            for seed in range(grid.seeds)
        ]
    return list(dict.fromkeys(found))


def measure_times(cells: Sequence[Cell], seconds: float, say: Callable[[str], None]) -> dict[tuple[str, int], float]:
    """Core-seconds of a training step of each objective and batch size, on random pixels; about `seconds` for each."""
    found: dict[tuple[str, int], float] = {}
    for cell in cells:
        key = (cell.objective, cell.batch_size)
        if key not in found:
            found[key] = step_time(cell, seconds)
            say(f"{key[0]:>10} B = {key[1]:>3}: {1000 * found[key]:7.1f} ms a step, {1000 * found[key] / key[1]:.2f} ms an image")
    return found


def measure_rest(cell: Cell, sets: Sequence[str]) -> tuple[float, float]:
    """Core-seconds of one validation and of the evaluation, with random images and 10 classes.

    The number of images is that of the settings, or of the largest of `sets` where the settings have no limit. Up to 10,000 of each part
    are measured; the time is extrapolated in proportion.
    """
    settings = cell.settings
    limits = (settings.train_images, settings.valid_images, settings.test_images)
    counts_of_sets = [_counts_of(*SETS[name].documented) for name in sets]
    counts = [limit or max(2, *column) for limit, column in zip(limits, zip(*counts_of_sets))]
    parts = []
    for count in counts:
        used = min(count, _MEASURED_IMAGES)
        images_NP = torch.randint(0, 256, (used, PIXELS), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        parts.append(Part(images_NP, torch.arange(used) % 10))
    train, valid, test = parts
    network, objective = build(cell)
    begin = time.process_time()
    validate(network, objective, pixels(valid.images_NP), cell.batch_size, 0)
    middle = time.process_time()
    evaluate(network, Images("random", train, valid, test, ""), cell)
    end = time.process_time()
    factor = (counts[0] + counts[2]) / (len(train) + len(test))
    return (middle - begin) * counts[1] / len(valid), (end - middle) * factor


def _counts_of(train: int, valid: int, test: int) -> tuple[int, int, int]:
    """Numbers of images of each part of a set, after the parts that it lacks are drawn; see `data.load`."""
    if not train:  # no official split: the images are counted as test
        test, train = round(TEST * test), round((1 - TEST) * test)
    if not valid:
        valid, train = round(VALIDATION * train), round((1 - VALIDATION) * train)
    return train, valid, test


def report(grid: Grid, seconds: float, say: Callable[[str], None]) -> str:
    """Measures with one thread of this CPU, and reports in Markdown how many core-hours each part of a grid requires.

    Evaluation is an upper limit: it is that of a set with as many images as the settings allow.
    """
    cells = cells_of(grid)
    trained = [cell for cell in cells if not cell.is_reference]
    if not trained:
        raise ConfigError("The plan measures training steps, which references do not have. Add a part to --parts.")
    with one_thread():
        times = measure_times(trained, seconds, say)
        smallest = min(trained, key=lambda cell: (cell.batch_size, not cell.objective.startswith("cmim")))
        validation, evaluation = measure_rest(smallest, list(dict.fromkeys(cell.data for cell in cells)))
    rows, total = [], 0.0
    for part in grid.parts:
        of_part = cells_of(replace(grid, parts=(part,)))
        steps_of = [times[cell.objective, cell.batch_size] * cell.settings.steps for cell in of_part if not cell.is_reference]
        training = sum(steps_of) / 3600
        rest = (len(steps_of) * grid.settings.validations * validation + len(of_part) * evaluation) / 3600
        total += training + rest
        rows.append((part, str(len(of_part)), f"{training:.2f}", f"{rest:.2f}", f"{training + rest:.2f}"))
    rows.append(("all", str(len(cells)), "", "", f"{total:.2f}"))
    sizes = list(dict.fromkeys(size for _, size in times))
    names = list(dict.fromkeys(name for name, _ in times))
    steps = [(name, *(f"{1000 * times[name, size]:.1f}" if (name, size) in times else "" for size in sizes)) for name in names]
    return "\n\n".join(
        [
            f"Core-time of a training step, ms ({grid.settings.sizes.latents} latent steps):",
            markdown_table(("objective", *(f"B = {size}" for size in sizes)), steps),
            f"A validation takes {validation:.1f} s, an evaluation at most {evaluation:.1f} s.",
            f"Core-hours at {grid.settings.steps:,} steps:",
            markdown_table(("part", "cells", "training", "validation and evaluation", "total"), rows),
        ]
    )
