"""Molecules per second that one data worker prepares, by augmentation, beside what a training step takes.

    python -m benchmarks.augmentation [--record]

The loader is the real one, with one worker process; the step is the tiny Megatron network's, of `benchmarks.training_step`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.molecules import sample_smiles
from benchmarks.report import record
from benchmarks.training_step import SIZES, measure
from nemo_cmim.config import AugmentationConfig, DataConfig, ParallelConfig
from nemo_cmim.loader.dataset import make_loader
from nemo_cmim.mcore.parallel import initialise
from nemo_cmim.prepare.prepare import prepare

AUGMENTATIONS = {
    "none": AugmentationConfig(),
    "10 % masked": AugmentationConfig(mask_fraction=0.1),
    "enumeration": AugmentationConfig(enumerate_smiles=True),
    "enumeration, 10 % masked": AugmentationConfig(enumerate_smiles=True, mask_fraction=0.1),
}
BATCH = 128


def loaded(folder: Path, augmentation: AugmentationConfig, steps: int) -> float:
    """Molecules/s of one worker, its start not counted."""
    config = DataConfig(folder=str(folder), batch_size=BATCH, workers=1)
    batches = iter(make_loader(config, steps=steps + 1, augmentation=augmentation, max_tokens=127))
    next(batches)
    start = time.perf_counter()
    for _ in batches:
        pass
    return steps * BATCH / (time.perf_counter() - start)


def main() -> None:
    """Measures all augmentations, taking turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30, help="batches of a measurement")
    parser.add_argument("--record", action="store_true", help="keep the result in RESULTS.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "molecules.smi").write_text("\n".join(sample_smiles(10_000)) + "\n")
        prepare([folder / "molecules.smi"], folder / "data", max_tokens=127, valid_fraction=0.01, progress=False)
        rates: dict[str, list[float]] = {name: [] for name in AUGMENTATIONS}
        for _ in range(args.repeats):
            for title, augmentation in AUGMENTATIONS.items():
                rates[title].append(loaded(folder / "data", augmentation, args.steps))
        initialise(ParallelConfig())
        config, size = SIZES["tiny"]
        batches = list(make_loader(DataConfig(folder=str(folder / "data"), batch_size=size, workers=0), steps=8))
        step = size / measure(config, batches, 7)["Megatron"]
    lines = ["| augmentation | molecules/s of one worker | times what the tiny network trains on |", "|---|---|---|"]
    for title, values in rates.items():
        rate = statistics.median(values)
        lines.append(f"| {title} | {rate:,.0f} | {rate / step:.1f} |")
    lines += [
        "",
        f"MOSES, batches of {BATCH}, medians of {args.repeats}; the tiny network's step takes {step:.0f} molecules/s on all cores. "
        "The paper's run (16,384 molecules a step, 250,000 steps in 40 hours on 64 GPUs) took 444 molecules/s and GPU.",
    ]
    print("\n".join(lines))
    if args.record:
        record("Augmentation", "python -m benchmarks.augmentation --record", lines, seed=0)


if __name__ == "__main__":
    main()
