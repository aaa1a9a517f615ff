"""What the measurements share: device, molecules, and timing that waits for the GPU."""

from __future__ import annotations

import contextlib
import gc
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import take_turns
from nemo_cmim.prepare.prepare import prepare

__all__ = ["DTYPES", "Setting"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Setting:
    """Device and molecules of all measurements.

    Attributes:
        device: "cuda", or "cpu" to rehearse.
        smiles: Distinct SMILES.
        repeats: Rounds to measure.
        is_rehearsal: Small networks and few molecules: the numbers mean nothing.
    """

    device: str
    smiles: list[str]
    repeats: int
    is_rehearsal: bool

    @property
    def card(self) -> str:
        """Name of the device."""
        return torch.cuda.get_device_name() if self.device == "cuda" else "CPU, rehearsal"

    @property
    def precisions(self) -> tuple[str, ...]:
        """Names of the precisions to measure."""
        return ("fp32", "bf16") if self.device == "cpu" else tuple(DTYPES)

    def autocast(self, precision: str) -> contextlib.AbstractContextManager[Any]:
        """Mixed precision of torch; nothing for fp32."""
        return contextlib.nullcontext() if precision == "fp32" else torch.autocast(self.device, DTYPES[precision])

    def seconds(self, functions: Mapping[str, Callable[[], object]], calls: int = 1) -> dict[str, float]:
        """Median seconds of each function. They take turns.

        Args:
            functions: Functions by name.
            calls: Number of calls that are timed together, so that a GPU can work on one call while the next is prepared.
        """

        def repeated(function: Callable[[], object]) -> Callable[[], None]:
            def run() -> None:
                for _ in range(calls):
                    function()
                self.synchronise()

            return run

        times = take_turns({name: repeated(function) for name, function in functions.items()}, self.repeats)
        return {name: statistics.median(values) / calls for name, values in times.items()}

    def prepared(self, folder: Path) -> Path:
        """Prepares the molecules as training data, in a new folder in `folder`."""
        (folder / "molecules.smi").write_text("\n".join(self.smiles) + "\n")
        prepare([folder / "molecules.smi"], folder / "data", max_tokens=127, valid_fraction=0.01, progress=False)
        return folder / "data"

    def start_memory(self) -> int:
        """Starts to measure the peak memory of the GPU; bytes in use now, for `peak_gib`."""
        gc.collect()
        if self.device == "cpu":
            return 0
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()

    def peak_gib(self, before: int) -> str:
        """Peak memory since `start_memory`, beyond what was in use then, GiB; empty on a CPU."""
        return f"{(torch.cuda.max_memory_allocated() - before) / 2**30:.2f}" if self.device == "cuda" else ""

    def synchronise(self) -> None:
        """Waits for the GPU."""
        if self.device == "cuda":
            torch.cuda.synchronize()
