"""What a newcomer waits for: `import nemo_cmim`, and a first `embed(["CCO"])` in a fresh process.

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
# The same, one part after the other; prints the seconds of each.
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
PART_NAMES = ("torch", "rdkit", "this package", "load and check the model", "embed")


def seconds(program: str) -> float:
    """Wall time of a fresh process that runs `program`."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    return time.perf_counter() - start


def shares(program: str, repeats: int) -> list[float]:
    """Median shares of the time that the parts of `program` take, which prints their seconds."""
    rounds = []
    for _ in range(repeats):
        done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
        taken = json.loads(done.stdout)
        rounds.append([part / sum(taken) for part in taken])
    return [statistics.median(column) for column in zip(*rounds)]


def main() -> None:
    """Measures and prints; `--record` keeps the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--record", action="store_true", help="keep the result in RESULTS.md")
    args = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for round_ in range(args.repeats + 1):
        for name, program in PROGRAMS.items():
            taken = seconds(program)
            if round_:  # the first round fills the system's file cache
                times[name].append(taken)
    parts = shares(PARTS, args.repeats)
    median = {name: statistics.median(values) for name, values in times.items()}
    ratio = statistics.median(embed / floor for embed, floor in zip(times["embed"], times["floor"]))
    lines = [
        f"Fresh processes, taking turns, medians of {args.repeats}; the interpreter's own start ({median['nothing']:.2f} s) is in all.",
        "",
        f"- `import nemo_cmim`: {median['import'] - median['nothing']:.3f} s above the interpreter's start (aim: under 0.5 s)",
        f'- a first `embed(["CCO"])` with the default model, {list_models()[0]}: {median["embed"]:.2f} s',
        f"- importing torch and rdkit, one molecule parsed, one forward of five torch layers of the same width: {median['floor']:.2f} s",
        f"- **ratio {ratio:.2f}** (aim: at most 1.5)",
        "- where it goes: " + ", ".join(f"{name} {share:.0%}" for name, share in zip(PART_NAMES, parts)),
    ]
    print("\n".join(lines))
    if args.record:
        record("Start", "python -m benchmarks.startup --record", lines, seed=0)


if __name__ == "__main__":
    main()
