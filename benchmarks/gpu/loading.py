"""Molecules per second that the training loader gives, by number of workers. Compare it with the training step."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.gpu.setting import Setting
from nemo_cmim.config import DataConfig
from nemo_cmim.loader.dataset import make_loader

__all__ = ["measure"]


def measure(setting: Setting) -> list[str]:
    """Rows for each number of workers, in page-locked memory as on a GPU."""
    batch, steps = (8, 8) if setting.is_rehearsal else (1024, 100)
    lines = ["| workers | molecules/s |", "|---|---|"]
    with tempfile.TemporaryDirectory() as name:
        data = setting.prepared(Path(name))
        for workers in (0, 1) if setting.is_rehearsal else (0, 1, 2, 4, 8):
            config = DataConfig(folder=str(data), batch_size=batch, workers=workers)
            batches = iter(make_loader(config, steps=steps, pin_memory=setting.device == "cuda"))
            started = 2 * workers + 1  # workers prepare two batches each before the first is read
            for _ in range(started):
                next(batches)
            start = time.perf_counter()
            for one in batches:
                one.to(setting.device)
            setting.synchronise()
            lines.append(f"| {workers} | {batch * (steps - started) / (time.perf_counter() - start):,.0f} |")
    return [*lines, "", f"Batches of {batch} molecules in four buckets, without observed properties, copied to the device."]
