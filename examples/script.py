"""How table1.py and ablations.py run as programs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from nemo_cmim.signals import sigterm_raises

__all__ = ["run_script"]


def run_script(main: Callable[[], None]) -> None:
    """Runs a script. SIGTERM ends the processes that it started, and an error in the input is printed as one line."""
    try:
        with sigterm_raises():
            main()
    except ValueError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
