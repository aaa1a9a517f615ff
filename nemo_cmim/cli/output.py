"""What commands that stream rows show: a progress bar, how much was written, and rows without result."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

__all__ = ["list_rows", "progress_bar", "say"]


@contextmanager
def progress_bar(command: str, unit: str = "molecules") -> Iterator[Callable[[int, float | None], None]]:
    """Yields a function that shows on stderr how many rows are done, and the fraction of all that they are, None if unknown."""
    from tqdm import tqdm

    with tqdm(unit=f" {unit}", unit_scale=True, desc=command) as bar:

        def show(rows: int, fraction: float | None) -> None:
            bar.total = round(rows / fraction) if fraction else None
            bar.update(rows - bar.n)

        yield show


def say(output: str, text: str) -> None:
    """Prints what was written, on stderr if the output is standard output."""
    print(f"{'standard output' if output == '-' else output}: {text}", file=sys.stderr if output == "-" else sys.stdout)


def list_rows(total: int, examples: Sequence[str], what: str) -> None:
    """Prints on stderr how many rows there are of a kind, with the first of them; nothing if there are none."""
    if total:
        more = [f"... and {total - len(examples):,} more"] if total > len(examples) else []
        lines = [f"{total:,} {what}:", *(f"  {line}" for line in [*examples, *more])]
        print("\n".join(lines), file=sys.stderr)
