"""Speed of `nemo-cmim embed` with several processes, compared with one process and with several threads.

    python -m benchmarks.processes [--record]

The molecules are distinct ones of MOSES, the model is the default one, the vectors are `informative`. Takes about 15 minutes on two cores.
"""

from __future__ import annotations

import statistics
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.commands import arguments, timed, write_table
from benchmarks.report import record
from benchmarks.timing import take_turns
from nemo_cmim.inference import list_models

ENGINES = ("torch", "onnx")
LAYOUTS = ((1, 1), (1, 2), (2, 1))
"""Processes, and threads of each."""
_FEW = 256  # rows of a run that is nearly all start-up


def main() -> None:
    """Measures and prints; `--record` saves the result."""
    args = arguments(__doc__, 16_384)
    with tempfile.TemporaryDirectory() as folder:
        tables = {rows: write_table(Path(folder, f"{rows}.csv"), rows) for rows in (_FEW, args.rows)}
        output = Path(folder, "out.parquet")
        runs = {
            str((engine, layout, rows)): partial(
                timed,
                ["embed", table, "-o", output, "--overwrite", "--engine", engine, "--processes", layout[0]],
                layout[1],
            )
            for engine in ENGINES
            for layout in LAYOUTS
            for rows, table in tables.items()
        }
        seconds = take_turns(runs, args.repeats)
    lines = [
        f"`nemo-cmim embed`, `informative`, {list_models()[0]}, {args.rows:,} rows from CSV to Parquet; medians of {args.repeats} "
        f"rounds in turns. Start-up is the time for {_FEW} rows; the speed without it is that of the other {args.rows - _FEW:,} rows.",
        "",
        "| engine | processes | threads each | start-up, s | rows/s | speed | rows/s without start-up | speed without start-up |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for engine in ENGINES:
        first: tuple[list[float], list[float]] | None = None
        for layout in LAYOUTS:
            few, all_ = (seconds[str((engine, layout, rows))] for rows in tables)
            rest = [a - b for a, b in zip(all_, few)]
            first = first or (all_, rest)
            speeds = [statistics.median(a / b for a, b in zip(one, own)) for one, own in zip(first, (all_, rest))]
            rates = [rows / statistics.median(own) for rows, own in ((args.rows, all_), (args.rows - _FEW, rest))]
            lines.append(
                f"| `{engine}` | {layout[0]} | {layout[1]} | {statistics.median(few):.1f} | {rates[0]:.0f} | {speeds[0]:.2f}x | "
                f"{rates[1]:.0f} | {speeds[1]:.2f}x |"
            )
    print("\n".join(lines))
    if args.record:
        record("Several processes", "python -m benchmarks.processes --record", lines)


if __name__ == "__main__":
    main()
