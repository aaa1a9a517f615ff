"""Speed and memory of `nemo-cmim predict` for many distinct molecules.

    python -m benchmarks.predict [--rows N] [--record]

The property model predicts Crippen's logP, which RDKit computes, so that no data are needed: the target does not change the speed. The
molecules are distinct ones of MOSES, which are not in the training set of the property model.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pyarrow.parquet

from benchmarks.fitted import command_line
from benchmarks.molecules import sample_smiles
from benchmarks.report import record
from nemo_cmim import PropertyModel
from nemo_cmim.inference import list_models
from nemo_cmim.molecules import logp, parse

TRAINING = 1000
TIMES = 10


def main() -> None:
    """Fits a model, predicts, and reports the speed and the memory over time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, metavar="N", help="number of molecules (default: %(default)s)")
    parser.add_argument("--features", default="informative", help="features of the property model (default: %(default)s)")
    parser.add_argument("--record", action="store_true", help="write the result to benchmarks/RESULTS.md")
    args = parser.parse_args()
    smiles = sample_smiles(TRAINING + args.rows)
    with tempfile.TemporaryDirectory() as folder:
        model, source, target = (Path(folder) / name for name in ("logp.model", "in.csv", "out.parquet"))
        training = smiles[:TRAINING]
        PropertyModel(features=args.features, head="svm", folds=2).fit(training, [logp(parse(one)) for one in training]).save(model)
        source.write_text("\n".join(["smiles", *smiles[TRAINING:]]) + "\n")
        start = time.monotonic()
        command = [sys.executable, "-m", "nemo_cmim.cli", "predict", model, source, "-o", target]
        process = psutil.Popen([str(word) for word in command], stderr=subprocess.DEVNULL)
        samples, processor = [], 0.0
        while process.poll() is None:
            try:
                processor = sum(process.cpu_times()[:2]) or processor
                samples.append(process.memory_info().rss / 2**20)
            except psutil.Error:  # it has just ended
                break
            time.sleep(0.5)
        seconds = time.monotonic() - start
        assert process.wait() == 0, "predict failed"
        rows = pyarrow.parquet.read_metadata(target).num_rows
        assert rows == len(smiles) - TRAINING, f"{rows} rows were written"
    samples = [one for one in samples if one]  # a process that has just ended has none
    memory = [samples[len(samples) * step // TIMES - 1] for step in range(1, TIMES + 1)]
    lines = [
        f"{rows:,} distinct molecules of MOSES, CSV to Parquet; features {args.features} of {list_models()[0]}, head svm, fitted to "
        f"{TRAINING:,} molecules. Start-up is included. OMP_NUM_THREADS: {os.environ.get('OMP_NUM_THREADS', 'not set')}.",
        "",
        f"- {rows / seconds:.0f} molecules/s ({seconds:.0f} s); {rows / processor:.0f} molecules per second of CPU time",
        f"- resident memory after each tenth of the time: {', '.join(f'{one:.0f}' for one in memory)} MB",
    ]
    print("\n".join(lines))
    if args.record:
        record(f"Prediction of a large file, {args.features}", command_line("predict"), lines)


if __name__ == "__main__":
    main()
