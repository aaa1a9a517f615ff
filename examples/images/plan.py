"""The cells of the recorded grid, and what they cost.

The grid has three parts. `main`: the five objectives of Fig. 3, all batch sizes, six image sets, two seeds. `ablations`: cMIM-Sigma,
InfoNCE-X, cAE and cVAE (Fig. 6) on two of these sets, one seed. `temperature`: cMIM with other tau or another weight of the contrastive
term, on the same two sets, at two batch sizes, one seed; the paper leaves both open.

The recorded grid, for a budget of 10 core-hours:

    python -m examples.images grid --latents 49 --steps 750 --test-images 2000 --valid-images 500 --processes 2 -o cells

Measured on one of two busy cores (AMD EPYC, 2026-11-29), core-time of a step of cMIM at B = 2, 5, 10, 100, 200: 22, 32, 41, 174, 265 ms;
of InfoNCE, which encodes two views: 18, 23, 33, 220, 374 ms. `plan` with the same options and 800 steps: 8.8 core-hours for the main part
(300 cells), 1.0 for the ablations (40), 0.5 for the temperature part (20), 10.4 together; so 750 steps in place of 1,500.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from nemo_cmim.markdown import markdown_table

from .cell import ABLATIONS, MAIN, Cell, Settings, build
from .data import Images, Part
from .evaluation import evaluate
from .training import step_time, validation_loss

__all__ = ["PARTS", "Grid", "cells_of", "measure_times", "report"]

PARTS = ("main", "ablations", "temperature")
BATCH_SIZES = (2, 5, 10, 100, 200)
SETS = ("mnist", "fashion-mnist", "emnist-letters-a-m", "pneumoniamnist", "retinamnist", "breastmnist")
FEWER_SETS = ("mnist", "fashion-mnist")
TAUS = (0.05, 0.3, 1.0)  # and 0.1, in the main part
WEIGHTS = (0.1, 10.0)  # and 1, in the main part


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What to run. The defaults are the recorded grid.

    Attributes:
        settings: Settings of all cells.
        parts: Of `PARTS`.
        sets: Image sets of the main part; the other parts use `fewer_sets`.
        fewer_sets: Image sets of the other parts.
        objectives: Objectives of the main part.
        batch_sizes: Of the main part and the ablations.
        temperature_batch_sizes: Of the temperature part.
        seeds: Number of seeds of the main part; the other parts have seed 0.
    """

    settings: Settings
    parts: Sequence[str] = PARTS
    sets: Sequence[str] = SETS
    fewer_sets: Sequence[str] = FEWER_SETS
    objectives: Sequence[str] = MAIN
    batch_sizes: Sequence[int] = BATCH_SIZES
    temperature_batch_sizes: Sequence[int] = (5, 100)
    seeds: int = 2


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
            for tau, weight in (*((tau, 1.0) for tau in TAUS), *((0.1, weight) for weight in WEIGHTS))
            for size in grid.temperature_batch_sizes
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


def measure_rest(cell: Cell) -> tuple[float, float]:
    """Core-seconds of one validation and of the evaluation, with as many random images and 10 classes."""
    settings = cell.settings
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network, objective = build(cell)
        parts = [
            Part(torch.randint(0, 256, (count, 784), dtype=torch.uint8), torch.arange(count) % 10)
            for count in (settings.train_images, settings.valid_images, settings.test_images)
        ]
    begin = time.process_time()
    validation_loss(network, objective, parts[1], cell.batch_size, 0)
    middle = time.process_time()
    evaluate(network.eval(), Images("random", parts[0], parts[1], parts[2], ""), cell)
    return middle - begin, time.process_time() - middle


def report(grid: Grid, seconds: float, say: Callable[[str], None]) -> str:
    """Measures, and tells in Markdown what each part of a grid costs in core-hours.

    Evaluation is an upper limit: it is that of a set with as many images as the settings allow.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        cells = cells_of(grid)
        times = measure_times(cells, seconds, say)
        smallest = min(cells, key=lambda cell: (cell.batch_size, not cell.objective.startswith("cmim")))
        validation, evaluation = measure_rest(smallest)
    finally:
        torch.set_num_threads(threads)
    rows, total = [], 0.0
    for part in grid.parts:
        of_part = cells_of(Grid(**(vars(grid) | {"parts": (part,)})))
        training = sum(times[cell.objective, cell.batch_size] * cell.settings.steps for cell in of_part) / 3600
        rest = len(of_part) * (grid.settings.validations * validation + evaluation) / 3600
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
            markdown_table(("part", "cells", "training", "validation and evaluation", "together"), rows),
        ]
    )
