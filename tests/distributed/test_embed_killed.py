"""`nemo-cmim embed --scheduler` on two processes, of which one or all are killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from nemo_cmim.distributed import embed_files
from tests.prepare.command import PATIENCE_S, children_of, let_go, start_command, wait_for

PART_ROWS = 5


def words(source: Path, model_file: Path, output: Path) -> list[str]:
    options = ["--scheduler", "local:2", "--on-invalid", "nan", "--part-rows", str(PART_ROWS), "--model", str(model_file)]
    return ["embed", str(source), "-o", str(output), *options]


def entries(output: Path) -> list[Path]:
    return list(output.glob("_unfinished/*/parts/[0-9]*.json"))


def complete(output: Path) -> dict[str, int]:
    """The parts that count, with the times when they were written."""
    return {part.name: part.stat().st_mtime_ns for one in entries(output) for part in output.glob(f"part-{one.stem[1:]}-*.parquet")}


def has(output: Path, count: int) -> Callable[[], bool]:
    return lambda: len(entries(output)) >= count


@pytest.fixture
def expected(source: Path, model_file: Path, tmp_path: Path) -> dict[str, bytes]:
    embed_files(
        source, tmp_path / "whole", model=model_file, scheduler="local:1", part_rows=PART_ROWS, on_invalid="nan", progress=False
    )
    return contents(tmp_path / "whole")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_killed_workers_and_a_killed_run(source: Path, model_file: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    output = tmp_path / "out"
    command = words(source, model_file, output)
    process = start_command(command, output, "parts", 3)
    wait_for(has(output, 3), process)
    kept = complete(output)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (output / "manifest.json").exists() and kept
    (output / f".{next(iter(kept))}.0123456789abcdef0123456789abcdef").touch()  # as a process leaves that is killed while it writes

    process = start_command(command, output, "parts", 6)
    wait_for(has(output, 6), process)
    workers = [pid for pid in children_of(process.pid) if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    let_go(output)
    shown, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, shown
    assert contents(output) == expected
    assert all((output / name).stat().st_mtime_ns == written for name, written in kept.items()), (
        "a complete part was computed again"
    )
    assert {path.name for path in tmp_path.iterdir()} == {"in.csv", "whole", "out", "sitecustomize"}
