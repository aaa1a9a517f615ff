"""Effect of Dask's memory trimming on `nemo-cmim embed --scheduler local:2`.

    python -m benchmarks.dask_workers [--record]

Dask sets `MALLOC_TRIM_THRESHOLD_=65536` for its workers, so they return memory to the system after each large tensor, and get it back
for the next one. `start_workers` leaves it out. A value in the environment has precedence, so the runs of Dask's setting have it there.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.commands import Command, arguments, timed, write_table
from benchmarks.report import record
from benchmarks.timing import ratio, take_turns
from nemo_cmim.inference import list_models

_THRESHOLD = "MALLOC_TRIM_THRESHOLD_"


def main() -> None:
    """Measures and prints; `--record` saves the result."""
    args = arguments(__doc__, 12_000)
    found: dict[str, list[Command]] = {"Dask's threshold": [], "that of the system": []}
    with tempfile.TemporaryDirectory() as folder:
        table = write_table(Path(folder, "molecules.csv"), args.rows)

        def embed(name: str, threshold: str | None) -> None:
            os.environ.pop(_THRESHOLD, None)
            if threshold:
                os.environ[_THRESHOLD] = threshold
            output = Path(folder, f"library-{name}-{len(found[name])}")
            found[name].append(timed(["embed", table, "-o", output, "--scheduler", "local:2", "--part-rows", "2000"], 1))

        thresholds = dict(zip(found, ("65536", None)))
        seconds = take_turns({name: partial(embed, name, thresholds[name]) for name in found}, args.repeats)
    theirs, ours = seconds.values()
    lines = [
        f"`nemo-cmim embed --scheduler local:2`, {list_models()[0]}, {args.rows:,} rows, start-up included; medians of {args.repeats} "
        f"rounds in turns. With the system's threshold, a run takes **{ratio(ours, theirs):.2f}** times as long as with Dask's.",
        "",
        "| threshold | seconds | core-seconds | peak memory, MB |",
        "|---|---|---|---|",
    ]
    for name, runs in found.items():
        columns = list(zip(*runs[1:]))  # without the warm-up round
        lines.append(f"| {name} | {' | '.join(f'{statistics.median(column):.1f}' for column in columns)} |")
    print("\n".join(lines))
    if args.record:
        record("Memory of Dask workers", "python -m benchmarks.dask_workers --record", lines)


if __name__ == "__main__":
    main()
