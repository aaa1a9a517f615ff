"""`prepare` on several workers, and after its process or a worker is killed: real processes and signals."""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.ranks import free_port
from nemo_cmim.cli import main
from nemo_cmim.errors import ConfigError, DataError
from nemo_cmim.files import lock
from nemo_cmim.prepare.chunks import plan_chunks
from nemo_cmim.prepare.cluster import start_workers
from nemo_cmim.prepare.prepare import prepare
from nemo_cmim.store.manifest import StoreManifest
from nemo_cmim.tokenizers import Vocabulary, shipped_vocabulary
from tests.clusters import FREE_PORT
from tests.prepare.command import PATIENCE_S, SETTINGS, arguments, children_of, has_results, let_go, results, start, wait_for


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


@pytest.mark.slow
def test_a_run_that_is_killed_at_any_stage_resumes_to_the_same_bytes(
    source: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    kept: dict[Path, int] = {}
    for stage, count in (("chunks", 1), ("chunks", 4), ("chunks", 9), ("shards", 2), ("shards", 4)):
        process = start(source, output, "--processes", "1", stage=stage, count=count)
        wait_for(functools.partial(has_results, output, stage, count), process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert not output.exists()
        assert all(path.stat().st_mtime_ns == written for path, written in kept.items()), "a finished task was run again"
        kept = {path: path.stat().st_mtime_ns for path in results(output, "chunks") | results(output, "shards")}
    process = start(source, output, "--processes", "1")
    shown, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, shown
    assert contents(output) == expected
    assert {path.name for path in tmp_path.iterdir()} == {"in.smi", "expected", "out", "sitecustomize"}


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced(source: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = start(source, output, "--processes", "2", stage="chunks", count=1)
    wait_for(functools.partial(has_results, output, "chunks", 1), process)
    workers = [pid for pid in children_of(process.pid) if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    let_go(output)
    shown, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, shown
    assert contents(output) == expected


@pytest.mark.slow
def test_workers_end_with_the_command(source: Path, tmp_path: Path) -> None:
    process = start(source, tmp_path / "out", "--processes", "2", stage="chunks", count=1)
    wait_for(functools.partial(has_results, tmp_path / "out", "chunks", 1), process)
    children = [Path(f"/proc/{pid}") for pid in children_of(process.pid)]
    assert len(children) >= 2
    process.kill()
    process.communicate(timeout=PATIENCE_S)  # until all that hold its output have ended
    until = time.monotonic() + 600
    while any(path.exists() for path in children):
        assert time.monotonic() < until, "workers are still running"
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
    assert main(arguments(source, tmp_path / "out", "--scheduler", scheduler)) == 0
    assert contents(tmp_path / "out") == expected


def test_a_scheduler_that_does_not_answer(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dask
    import distributed

    assert distributed.config  # loads the defaults before one is changed

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "0.2s"}),
        pytest.raises(ConfigError, match=r"No Dask scheduler answers at"),
    ):
        prepare([source], tmp_path / "out", scheduler=f"tcp://127.0.0.1:{free_port()}")
    assert {path.name for path in tmp_path.iterdir()} == {"in.smi"}


def interrupt_in(place: str, source: Path, output: Path, **settings: Any) -> Path:
    """The folder that a call leaves if it is interrupted when it calls a function."""

    def interrupt(*arguments: object, **more: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(place, interrupt)
        prepare([source], output, **(settings or {"processes": 1, **SETTINGS}))
    return next(output.with_name(f".{output.name}.unfinished").glob("*/"))


@pytest.fixture
def unfinished(source: Path, tmp_path: Path) -> Path:
    return interrupt_in("nemo_cmim.prepare.prepare.merge_range", source, tmp_path / "out")


def test_unfinished_work_is_resumed(unfinished: Path, source: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    done = {path: path.stat().st_mtime_ns for path in unfinished.rglob("chunks/*.arrow")}
    links = {path: tmp_path / f"kept_{path.name}" for path in done}
    for path, link in links.items():
        os.link(path, link)
    prepare([source], tmp_path / "out", processes=1, **SETTINGS)
    assert all(link.stat().st_mtime_ns == done[path] for path, link in links.items())
    assert len(done) > 20 and contents(tmp_path / "out") == expected
    assert not unfinished.parent.exists()


def test_unfinished_work_with_different_settings_is_not_resumed(unfinished: Path, source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"was begun with piece_lines=40\. Rerun with these to resume .* --restart"):
        prepare([source], tmp_path / "out", processes=1, **{**SETTINGS, "piece_lines": 50})
    other = tmp_path / "other.smi"
    other.write_text("CCO 1\n")
    with pytest.raises(DataError, match="was begun with different inputs"):
        prepare([other], tmp_path / "out", processes=1, **SETTINGS)
    assert main(arguments(other, tmp_path / "out", "--processes", "1")) == 2
    assert main(arguments(other, tmp_path / "out", "--processes", "1", "--restart")) == 0
    assert StoreManifest.load(tmp_path / "out").counts["kept"] == 1


def test_an_input_that_changed_since_the_interruption_is_an_error(unfinished: Path, source: Path, tmp_path: Path) -> None:
    source.write_text(source.read_text().replace("N", "O"))
    with pytest.raises(DataError, match=r"was begun with a different .*in\.smi\. Rerun .*--restart"):
        prepare([source], tmp_path / "out", processes=1, **SETTINGS)


def test_an_input_that_changes_during_the_run_is_an_error(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(*arguments: Any) -> Any:
        source.write_text(source.read_text() + "CCO 999\n")
        return plan_chunks(*arguments)

    monkeypatch.setattr("nemo_cmim.prepare.prepare.plan_chunks", change)
    with pytest.raises(DataError, match=r"in\.smi was changed while it was being prepared.*--restart"):
        prepare([source], tmp_path / "out", processes=1, **SETTINGS)


CALLS = ("replace", "rename", "unlink", "mkdir", "rmdir", "open")  # functions of os that change the disk


def run_in_child(work: Callable[[], object], kill_at: int | None) -> tuple[int, int]:
    """Exit status of a forked process that does the work, and the number of `CALLS` it made.

    The process ends at call number `kill_at` without any clean-up, as if killed by SIGKILL.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        calls = itertools.count(1)

        def counted(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **settings: Any) -> Any:
                if next(calls) == kill_at:
                    os._exit(9)
                return function(*arguments, **settings)

            return call

        for name in CALLS:
            setattr(os, name, counted(getattr(os, name)))
        status = 1
        try:
            work()
            status = 0
            os.write(writing, str(next(calls) - 1).encode())
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        made = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), int(made or 0)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["new", "overwritten", "restarted", "exact splits"])
def test_a_kill_at_any_change_of_the_disk(case: str, tmp_path: Path) -> None:
    """Killed at each call in turn and then repeated, `prepare` writes the same bytes, leaves no other file and never half a folder."""
    for name, smiles in (("old", ["CCF"]), ("in", ["CCO", "x", "CCN", "OCC", "CCCl", "CC#N"])):
        (tmp_path / f"{name}.smi").write_text("".join(f"{one} {i}\n" for i, one in enumerate(smiles)))
    settings: dict[str, Any] = {
        "piece_lines": 2,
        "shard_molecules": 3,
        "processes": 1,
        "progress": False,
        "overwrite": case != "new",
    }
    settings |= {"valid_molecules": 1, "test_molecules": 1} if case == "exact splits" else {"test_fraction": 0.3}
    prepare([tmp_path / "in.smi"], tmp_path / "expected", **settings)
    expected = contents(tmp_path / "expected")
    prepare([tmp_path / "old.smi"], tmp_path / "old", processes=1)
    old = contents(tmp_path / "old")

    def set_up(number: int) -> Callable[[], object]:
        output = tmp_path / str(number) / "out"
        output.parent.mkdir()
        if case != "new":
            shutil.copytree(tmp_path / "old", output)
        if case == "restarted":
            interrupt_in("nemo_cmim.prepare.prepare.merge_range", tmp_path / "in.smi", output, **settings)
        return functools.partial(prepare, [tmp_path / "in.smi"], output, restart=case == "restarted", **settings)

    calls = run_in_child(set_up(0), None)[1]
    assert calls > 50
    for number in range(1, calls + 1):
        output = tmp_path / str(number) / "out"
        assert run_in_child(set_up(number), number)[0] == 9
        assert not output.exists() or contents(output) in (expected, old, {}), f"half a folder after call {number}"
        try:
            prepare([tmp_path / "in.smi"], output, **settings)
        except DataError as error:  # the output was complete, and nothing was left to say that this call wrote it
            assert case == "new" and "already exists" in str(error), f"{error} after call {number}"
        assert contents(output) == expected, f"after call {number}"
        left = {path.name for path in output.parent.iterdir()} - {"out", ".out.lock"}  # an unlocked lock file is harmless
        assert not left, f"left over after call {number}: {left}"
        shutil.rmtree(output.parent)


def test_caches_of_a_process_do_not_outlive_a_run(tmp_path: Path) -> None:
    (tmp_path / "a.smi").write_text("CCO 1\nCCN 2\n")
    (tmp_path / "b.smi").write_text("CCF 1\nCCCl 2\nCCBr 3\n")
    Vocabulary(tuple(token for token in shipped_vocabulary().tokens if token != "O")).save(tmp_path / "without_oxygen.txt")
    out, inputs = tmp_path / "out", [tmp_path / "a.smi", tmp_path / "b.smi"]
    assert prepare(inputs[:1], out, processes=1).counts == {"read": 2, "kept": 2, "rejected": 0}
    assert prepare(inputs, out, processes=1, overwrite=True).counts == {"read": 5, "kept": 5, "rejected": 0}
    manifest = prepare(inputs, out, processes=1, overwrite=True, vocabulary=tmp_path / "without_oxygen.txt")
    assert manifest.rejected == {"unknown token": 1}


def test_chunks_and_ranges_without_molecules(tmp_path: Path) -> None:
    (tmp_path / "in.smi").write_text("x\ny\nz\n\nCCO\nCCN\n")
    manifest = prepare([tmp_path / "in.smi"], tmp_path / "out", processes=1, piece_lines=2, shard_molecules=1, test_fraction=0.5)
    assert manifest.counts == {"read": 6, "kept": 2, "rejected": 4}
    assert manifest.rejected == {"not a molecule to RDKit": 3, "empty line": 1}


def test_a_second_call_at_the_same_time_is_an_error(source: Path, tmp_path: Path) -> None:
    with lock(tmp_path / ".out.lock", "x", "y"), pytest.raises(ConfigError, match=r"out is in use by process \d+ on"):
        prepare([source], tmp_path / "out", processes=1)
    assert {path.name for path in tmp_path.iterdir()} == {"in.smi"}


def test_a_script_without_a_main_guard_is_an_error(source: Path, tmp_path: Path) -> None:
    call = f"prepare([{str(source)!r}], {str(tmp_path / 'out')!r}, processes=2)"
    (tmp_path / "script.py").write_text(f"from nemo_cmim.prepare.prepare import prepare\n{call}\n")
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ConfigError: No worker could be started" in done.stderr and 'if __name__ == "__main__"' in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_scheduler_without_workers(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import distributed

    monkeypatch.setattr("nemo_cmim.prepare.cluster._FIRST_WORKER_TIMEOUT", 0.1)
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=None, scheduler_kwargs=FREE_PORT) as cluster,
        pytest.raises(ConfigError, match="has no worker"),
    ):
        prepare([source], tmp_path / "out", scheduler=cluster.scheduler_address)


def test_a_worker_with_a_different_version(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import distributed

    with (
        distributed.LocalCluster(n_workers=1, dashboard_address=None, scheduler_kwargs=FREE_PORT, processes=True) as cluster,
        monkeypatch.context() as patch,
        pytest.raises(ConfigError, match=r"Worker tcp.* has .* but this process has .*'rdkit': 'another'"),
    ):
        patch.setattr("nemo_cmim.prepare.cluster.versions", lambda: {"rdkit": "another"})
        prepare([source], tmp_path / "out", scheduler=cluster.scheduler_address)
    with pytest.raises(ConfigError, match="Pass only one of them"):
        prepare([source], tmp_path / "other", scheduler="tcp://127.0.0.1:1", processes=2)


def test_a_task_that_kills_its_workers_is_an_error(tmp_path: Path) -> None:
    with start_workers(1, None, tmp_path) as here:
        assert list(here.run(print, [1, 2])) == [1, 2]
    with start_workers(2, None, tmp_path) as there, pytest.raises(DataError, match="Workers died repeatedly"):
        list(there.run(os._exit, [1]))
