"""Warnings of work that is done in many blocks."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["repeated_warnings_once"]


@contextmanager
def repeated_warnings_once() -> Iterator[None]:
    """Context in which of several warnings that differ only in their numbers the first is shown, and at the end how many there were."""
    show, kinds = warnings.showwarning, Counter[str]()
    last: dict[str, tuple[str, type[Warning]]] = {}

    def once(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        kind = re.sub(r"[\d.,]+", "0", str(message))
        kinds[kind] += 1
        last[kind] = str(message), category
        if kinds[kind] == 1:
            show(message, category, *place, **more)

    warnings.showwarning = once
    try:
        yield
    finally:
        warnings.showwarning = show
    for kind, count in kinds.items():
        if count > 1:
            message, category = last[kind]
            warnings.warn(f"This kind of warning came {count:,} times, last: {message}", category, stacklevel=3)
