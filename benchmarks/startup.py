"""Start-up time: `import nemo_cmim`, and the first `embed(["CCO"])` in a new process.

python -m benchmarks.startup [--record]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

from benchmarks.report import record
from nemo_cmim import list_models

PROGRAMS = {
    "nothing": "pass",
    "import": "import nemo_cmim",
    "floor": """
import torch
from rdkit import Chem
Chem.MolToSmiles(Chem.MolFromSmiles("CCO"))
layer = torch.nn.TransformerEncoderLayer(256, 4, 512, batch_first=True)
with torch.inference_mode():
    torch.nn.TransformerEncoder(layer, 5, enable_nested_tensor=False).eval()(torch.randn(1, 4, 256))
""",
    "embed": "import nemo_cmim; nemo_cmim.embed(['CCO'])",
}
# The same in separate parts; prints the seconds of each part.
PARTS = """
import json, time
marks = [time.perf_counter()]
mark = lambda: marks.append(time.perf_counter())
import torch; mark()
from rdkit import Chem; mark()
import nemo_cmim.inference; mark()
model = nemo_cmim.load(nemo_cmim.list_models()[0]); mark()
model.embed(['CCO']); mark()
print(json.dumps([b - a for a, b in zip(marks, marks[1:])]))
"""
PART_NAMES = ("import torch", "import rdkit", "import nemo_cmim", "load and verify the model", "embed")


def seconds(program: str) -> float:
    """Wall time of a new process that runs `program`."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    return time.perf_counter() - start


def fractions(program: str, repeats: int) -> list[float]:
    """Median fraction of the time for each part of `program`, which prints the seconds of its parts."""
    rounds = []
    for _ in range(repeats):
        done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
        parts = json.loads(done.stdout)
        rounds.append([part / sum(parts) for part in parts])
    return [statistics.median(column) for column in zip(*rounds)]


def main() -> None:
    """Measures and prints; `--record` saves the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9, help="number of measurements (default: %(default)s)")
    parser.add_argument("--record", action="store_true", help="write the result to benchmarks/RESULTS.md")
    args = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for round_ in range(args.repeats + 1):
        for name, program in PROGRAMS.items():
            duration = seconds(program)
            if round_:  # the first round fills the system's file cache
                times[name].append(duration)
    parts = fractions(PARTS, args.repeats)
    median = {name: statistics.median(values) for name, values in times.items()}
    ratio = statistics.median(embed / floor for embed, floor in zip(times["embed"], times["floor"]))
    lines = [
        f"New processes, alternating, medians of {args.repeats}. All times include {median['nothing']:.2f} s for the interpreter.",
        "",
        f"- `import nemo_cmim`: {median['import'] - median['nothing']:.3f} s in addition to the interpreter (target: under 0.5 s)",
        f'- first `embed(["CCO"])` with the default model, {list_models()[0]}: {median["embed"]:.2f} s',
        f"- lower bound (import torch and rdkit, parse a molecule, forward through five layers): {median['floor']:.2f} s",
        f"- **ratio {ratio:.2f}** (target: at most 1.5)",
        "- parts of the time: " + ", ".join(f"{name} {fraction:.0%}" for name, fraction in zip(PART_NAMES, parts)),
    ]
    print("\n".join(lines))
    if args.record:
        record("Start-up time", "python -m benchmarks.startup --record", lines, seed=0)


if __name__ == "__main__":
    main()
