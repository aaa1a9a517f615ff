"""How much of its inputs a command has done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Progress", "counting_bar", "reporter"]

Progress = Callable[[int, "float | None"], None]
"""Called with the number of rows done, and the fraction of the inputs that these rows are, None if unknown."""


def reporter(
    progress: Progress | None, rows: int, size: int, before: float | None, after: float | None
) -> Callable[[int, int], None]:
    """A function that reports how much of a block is done.

    Args:
        progress: Called by the function; None: nothing is reported.
        rows: Number of rows before the block.
        size: Number of rows of the block.
        before: Fraction of the inputs that was read before the block; None if unknown.
        after: Fraction of the inputs that was read after it.

    Returns:
        A function of two numbers: how many parts of the block are done, and how many parts it has.
    """

    def report(done: int, of: int) -> None:
        if progress:
            fraction = None if before is None or after is None else before + (after - before) * done / of
            progress(rows + size * done // of, fraction)

    return report


@contextmanager
def counting_bar(**options: Any) -> Iterator[Callable[[int, int], None]]:
    """Yields a function of two numbers, what is done and all there is, which a progress bar on stderr shows; options of `tqdm.tqdm`."""
    from tqdm import tqdm

    with tqdm(**options) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
