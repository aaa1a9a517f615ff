"""Time of a training step of the default model on a CPU, by precision and number of buckets.

    OMP_NUM_THREADS=1 python -m benchmarks.cpu_precision [--rounds N] [--record]

Each run is a process that trains on the same molecules of MOSES. The runs are made in turn, `--rounds` times. Medians over the steps after
the first 100, in which oneDNN compiles its kernels for new shapes. Meant for CPUs with AMX.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.molecules import sample_smiles
from benchmarks.report import record
from nemo_cmim.mappings import hydra_quoted
from nemo_cmim.markdown import markdown_table
from nemo_cmim.prepare.prepare import prepare

MOLECULES, STEPS, SKIPPED = 20_000, 250, 100
KINDS = [(precision, buckets) for precision in ("32", "bf16") for buckets in (4, 2)]
PARTS = ("", "_forward", "_backward", "_optimizer")


def train(data: Path, folder: Path, precision: str, buckets: int) -> list[dict[str, float]]:
    """The records of the steps of a run."""
    command = [
        sys.executable, "-m", "nemo_cmim.cli", "train", "run=default_model", f"model.train_ds.folder={hydra_quoted(data)}",
        f"model.train_ds.buckets={buckets}", f"trainer.precision={precision}", f"trainer.max_steps={STEPS}", "trainer.limit_val_batches=0",
        f"exp_manager.explicit_log_dir={hydra_quoted(folder)}", "exp_manager.checkpoint_callback_params.save_nemo_on_train_end=false",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return [json.loads(line) for line in (folder / "metrics" / "steps.jsonl").open()][SKIPPED:]


def main() -> None:
    """Measures and prints; `--record` saves the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2, help="runs of each kind (default: %(default)s)")
    parser.add_argument("--record", action="store_true", help="write the result to benchmarks/RESULTS.md")
    args = parser.parse_args()
    steps: dict[tuple[str, int], list[dict[str, float]]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "moses.smi").write_text("\n".join(sample_smiles(MOLECULES)) + "\n")
        prepare([folder / "moses.smi"], folder / "data", properties="standard", fingerprint_bits=512)
        for number in range(args.rounds):
            for kind in KINDS:
                steps[kind] += train(folder / "data", folder / f"{kind[0]}_{kind[1]}_{number}", *kind)
    medians = {
        kind: [statistics.median(step[f"seconds{part}"] for step in found) for part in PARTS] for kind, found in steps.items()
    }
    losses = {kind: statistics.mean(step["train_loss"] for step in found) for kind, found in steps.items()}
    first = medians[KINDS[0]][0]
    rows = [
        [
            *map(str, kind),
            *(f"{1000 * part:.0f}" for part in medians[kind]),
            f"{medians[kind][0] / first:.2f}",
            f"{losses[kind]:.1f}",
        ]
        for kind in KINDS
    ]
    header = ["precision", "buckets", "step, ms", "forward", "backward", "optimiser", "step / first row's", "training loss, nats"]
    lines = [markdown_table(header, rows), "", f"Means of the loss over steps {SKIPPED + 1} to {STEPS}."]
    print("\n".join(lines))
    if args.record:
        command = f"OMP_NUM_THREADS=1 python -m benchmarks.cpu_precision --rounds {args.rounds} --record"
        record("Precision on a CPU", command, lines, seed=0)


if __name__ == "__main__":
    main()
