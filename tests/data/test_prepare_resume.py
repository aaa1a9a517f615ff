"""`prepare` that is killed, or whose workers die, and clusters: real processes, real signals."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.ranks import free_port
from nemo_cmim.data.prepare import prepare
from nemo_cmim.errors import ConfigError, DataError
from nemo_cmim.files import lock

SETTINGS = {"piece_lines": 40, "shard_molecules": 60, "valid_fraction": 0.1, "test_fraction": 0.1}


@pytest.fixture
def source(tmp_path: Path, made_up_smiles: list[str]) -> Path:
    (tmp_path / "in.smi").write_text(
        "".join(f"{smiles} {i}\n" for i, smiles in enumerate([*made_up_smiles, *made_up_smiles[:90], "x"]))
    )
    return tmp_path / "in.smi"


@pytest.fixture
def expected(source: Path, tmp_path: Path) -> dict[str, bytes]:
    prepare([source], tmp_path / "expected", processes=1, **SETTINGS)
    return contents(tmp_path / "expected")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def start(source: Path, output: Path, *more: str) -> subprocess.Popen[str]:
    options = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]
    command = [sys.executable, "-m", "nemo_cmim.cli", "prepare", str(source), "-o", str(output), *options, *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)


def wait_for(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 120
    while not reached():
        assert process.poll() is None, process.stdout and process.stdout.read()
        assert time.monotonic() < until
        time.sleep(0.002)


def results(output: Path, stage: str) -> set[Path]:
    return set((output.with_name(f".{output.name}.unfinished") / stage).glob("[0-9]*.json"))


def children_of(pid: int) -> list[int]:
    """Processes that any thread of a process started."""
    return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]


def has_results(output: Path, stage: str, count: int) -> bool:
    return len(results(output, stage)) >= count


@pytest.mark.slow
def test_killed_at_any_stage_it_goes_on_to_the_same_bytes(source: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    output = tmp_path / "out"
    kept: dict[Path, int] = {}
    for stage, count in (("pieces", 1), ("pieces", 4), ("pieces", 9), ("shards", 2), ("shards", 4)):
        process = start(source, output, "--processes", "1")
        wait_for(functools.partial(has_results, output, stage, count), process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert not output.exists()
        assert all(path.stat().st_mtime_ns == written for path, written in kept.items()), "a finished task was done again"
        kept = {path: path.stat().st_mtime_ns for path in results(output, "pieces") | results(output, "shards")}
    process = start(source, output, "--processes", "1")
    shown, _ = process.communicate(timeout=120)
    assert process.returncode == 0, shown
    assert contents(output) == expected
    assert {path.name for path in tmp_path.iterdir()} == {"in.smi", "expected", "out"}


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced(source: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = start(source, output, "--processes", "2")
    wait_for(functools.partial(has_results, output, "pieces", 1), process)
    workers = [pid for pid in children_of(process.pid) if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    shown, _ = process.communicate(timeout=120)
    assert process.returncode == 0, shown
    assert contents(output) == expected


@pytest.mark.slow
def test_workers_end_with_the_command(source: Path, tmp_path: Path) -> None:
    process = start(source, tmp_path / "out", "--processes", "2")
    wait_for(functools.partial(has_results, tmp_path / "out", "pieces", 1), process)
    children = [Path(f"/proc/{pid}") for pid in children_of(process.pid)]
    assert len(children) >= 2
    process.kill()
    process.wait()
    until = time.monotonic() + 30
    while any(path.exists() for path in children):
        assert time.monotonic() < until, "workers are left over"
        time.sleep(0.1)


@pytest.fixture
def scheduler() -> Iterator[str]:
    """A scheduler and one worker, as on a cluster."""
    address = f"tcp://127.0.0.1:{free_port()}"
    module = [sys.executable, "-m", "distributed.cli"]
    host, port = address.removeprefix("tcp://").split(":")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes = [
        subprocess.Popen(
            [*module[:-1], "distributed.cli.dask_scheduler", "--host", host, "--port", port, "--no-dashboard"], **quiet
        ),  # type: ignore[call-overload]
        subprocess.Popen([*module[:-1], "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard"], **quiet),  # type: ignore[call-overload]
    ]
    yield address
    for process in reversed(processes):
        process.terminate()
        process.wait()


@pytest.mark.slow
def test_a_cluster_gives_the_same_bytes(scheduler: str, source: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    prepare([source], tmp_path / "out", scheduler=scheduler, **SETTINGS)
    assert contents(tmp_path / "out") == expected


def test_a_scheduler_that_does_not_answer(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dask

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "0.2s"}),
        pytest.raises(ConfigError, match=r"No Dask scheduler answers at"),
    ):
        prepare([source], tmp_path / "out", scheduler=f"tcp://127.0.0.1:{free_port()}")
    assert {path.name for path in tmp_path.iterdir()} == {"in.smi"}


def cut_off_in(place: str, source: Path, output: Path) -> Path:
    """What a call leaves that is cut off where it would call a function."""

    def cut_off(*arguments: object, **settings: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(place, cut_off)
        prepare([source], output, processes=1, **SETTINGS)
    return output.with_name(f".{output.name}.unfinished")


@pytest.fixture
def unfinished(source: Path, tmp_path: Path) -> Path:
    return cut_off_in("nemo_cmim.data.prepare.merge_shard", source, tmp_path / "out")


def test_unfinished_work_is_gone_on_with(unfinished: Path, source: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    done = {path: path.stat().st_mtime_ns for path in unfinished.rglob("pieces/*.arrow")}
    links = {path: tmp_path / f"kept_{path.name}" for path in done}
    for path, link in links.items():
        os.link(path, link)
    prepare([source], tmp_path / "out", processes=1, **SETTINGS)
    assert all(link.stat().st_mtime_ns == done[path] for path, link in links.items())
    assert len(done) > 20 and contents(tmp_path / "out") == expected
    assert not unfinished.exists()


def test_unfinished_work_of_other_settings_is_not_mixed_in(unfinished: Path, source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"was begun with piece_lines 40\. Give the same again .* --restart"):
        prepare([source], tmp_path / "out", processes=1, **{**SETTINGS, "piece_lines": 50})
    other = tmp_path / "other.smi"
    other.write_text("CCO 1\n")
    with pytest.raises(DataError, match="was begun with other inputs"):
        prepare([other], tmp_path / "out", processes=1, **SETTINGS)
    manifest = prepare([other], tmp_path / "out", processes=1, restart=True, **SETTINGS)
    assert manifest.counts["kept"] == 1


def test_an_input_that_changed_since_is_noticed(unfinished: Path, source: Path, tmp_path: Path) -> None:
    source.write_text(source.read_text() + "CCO 999\n")
    with pytest.raises(DataError, match=r"in\.smi was changed while it was being prepared.*--restart"):
        prepare([source], tmp_path / "out", processes=1, **SETTINGS)


def test_cut_off_before_its_result_takes_its_name(source: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    unfinished = cut_off_in("nemo_cmim.data.workplace._publish", source, tmp_path / "out")
    (unfinished / "finished" / ".rejected.tsv.gz.0123").write_bytes(b"half of it")
    (unfinished / "finished" / "train-00000.bin").write_bytes(b"")
    (unfinished / "shards" / "000000.json").unlink()
    prepare([source], tmp_path / "out", processes=1, **SETTINGS)
    assert contents(tmp_path / "out") == expected
    assert {path.name for path in tmp_path.iterdir()} == {"in.smi", "expected", "out"}


def test_cut_off_after_its_result_took_its_name(source: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    cut_off_in("nemo_cmim.data.workplace._clear", source, tmp_path / "out")
    assert contents(tmp_path / "out") == expected
    assert prepare([source], tmp_path / "out", processes=1, **SETTINGS).counts["read"] == 451
    assert {path.name for path in tmp_path.iterdir()} == {"in.smi", "expected", "out"}
    with pytest.raises(DataError, match="out exists already"):
        prepare([source], tmp_path / "out", processes=1, **SETTINGS)


def test_what_is_replaced_is_there_until_the_new_one_is(source: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "old.smi").write_text("CCO 1\n")
    prepare([tmp_path / "old.smi"], tmp_path / "out", processes=1)
    old = contents(tmp_path / "out")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("nemo_cmim.data.workplace._publish", lambda *paths: (_ for _ in ()).throw(KeyboardInterrupt))
        prepare([source], tmp_path / "out", processes=1, overwrite=True, **SETTINGS)
    assert contents(tmp_path / "out") == old
    prepare([source], tmp_path / "out", processes=1, overwrite=True, **SETTINGS)
    assert contents(tmp_path / "out") == expected
    assert {path.name for path in tmp_path.iterdir()} == {"in.smi", "old.smi", "expected", "out"}


def test_an_input_that_was_bad_can_be_mended(unfinished: Path, source: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    """As after a kill between a look at a bad file and the error."""
    (unfinished / "inputs" / "000000.json").write_text('{"error": "in.smi is a web page"}')
    prepare([source], tmp_path / "out", processes=1, **SETTINGS)
    assert contents(tmp_path / "out") == expected


def test_pieces_and_ranges_without_molecules(tmp_path: Path) -> None:
    (tmp_path / "in.smi").write_text("x\ny\nz\n\nCCO\nCCN\n")
    manifest = prepare([tmp_path / "in.smi"], tmp_path / "out", processes=1, piece_lines=2, shard_molecules=1, test_fraction=0.5)
    assert manifest.counts == {"read": 6, "kept": 2, "rejected": 4}
    assert manifest.rejected == {"not a molecule to RDKit": 3, "empty line": 1}


def test_two_calls_at_a_time_are_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / ".out.unfinished").mkdir()
    with (
        lock(tmp_path / ".out.unfinished" / ".lock", "x", "y"),
        pytest.raises(ConfigError, match=r"out is in use by process \d+ on"),
    ):
        prepare([source], tmp_path / "out", processes=1)
