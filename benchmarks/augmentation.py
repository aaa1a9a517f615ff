"""Speed of one data worker with each augmentation, compared with the speed of a training step.

    python -m benchmarks.augmentation [--record]

Uses the training data loader with one worker process, and the step of the tiny Megatron network of `benchmarks.training_step`.
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
    "enumeration": AugmentationConfig(strings="different_random"),
    "enumeration, 10 % masked": AugmentationConfig(strings="different_random", mask_fraction=0.1),
}
BATCH = 128


def loaded(folder: Path, augmentation: AugmentationConfig, steps: int) -> float:
    """Molecules/s of one worker, without its start-up."""
    config = DataConfig(folder=str(folder), batch_size=BATCH, workers=1)
    batches = iter(make_loader(config, steps=steps + 1, augmentation=augmentation, max_tokens=127))
    next(batches)
    start = time.perf_counter()
    for _ in batches:
        pass
    return steps * BATCH / (time.perf_counter() - start)


def main() -> None:
    """Measures all augmentations, alternating."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="number of measurements (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=30, help="batches per measurement (default: %(default)s)")
    parser.add_argument("--record", action="store_true", help="write the result to benchmarks/RESULTS.md")
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
        whole = DataConfig(folder=str(folder / "data"), batch_size=size, buckets=1, workers=0)
        batches = [batch.buckets[0] for batch in make_loader(whole, steps=8)]
        step = size / measure(config, batches, 7)["Megatron"]
    lines = ["| augmentation | molecules/s of one worker | multiple of the tiny network's training speed |", "|---|---|---|"]
    for title, values in rates.items():
        rate = statistics.median(values)
        lines.append(f"| {title} | {rate:,.0f} | {rate / step:.1f} |")
    lines += [
        "",
        f"MOSES, batches of {BATCH}, medians of {args.repeats}; the tiny network trains on {step:.0f} molecules/s on all cores. "
        "The paper's run (16,384 molecules per step, 250,000 steps in 40 hours on 64 GPUs) trained on 444 molecules/s per GPU.",
    ]
    print("\n".join(lines))
    if args.record:
        record("Augmentation", "python -m benchmarks.augmentation --record", lines, seed=0)


if __name__ == "__main__":
    main()
