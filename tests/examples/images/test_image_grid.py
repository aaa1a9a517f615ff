"""Grids of cells: complete, failing and killed ones; cells of different images."""

from __future__ import annotations

import dataclasses
import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import distributed
import pytest
import torch
from threadpoolctl import threadpool_info

from examples.images.cell import MAIN, build
from examples.images.data import Images, load
from examples.images.evaluation import evaluate
from examples.images.grid import Job, one_thread, run_cell, run_grid
from examples.images.results import load_network, read_cells, weights_of
from examples.images.tables import conditions
from examples.images.training import train
from nemo_cmim.errors import ConfigError, DataError, DivergenceError
from nemo_cmim.files import lock
from nemo_cmim.prepare.cluster import Workers
from tests.clusters import FREE_PORT
from tests.examples.images.small_sets import SMALL, small_cell, write_small_set

ROOT = Path(__file__).resolve().parents[3]
LONG = dataclasses.replace(SMALL, steps=400, validations=40)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_small_set(tmp_path / "sets", "breastmnist")
    return tmp_path / "sets"


def run(jobs: list[Job], processes: int = 1) -> dict[str, str]:
    return run_grid(jobs, processes=processes, scheduler=None, say=lambda _: None)


def without_time(path: Path) -> dict[str, Any]:
    return {key: value for key, value in json.loads(path.read_text()).items() if key != "seconds"}


def test_a_cell_says_where_it_was_computed_and_from_which_images(data: Path, tmp_path: Path) -> None:
    job = Job(small_cell(), data, tmp_path / "cells", "cpu")
    run_cell(job)
    found = json.loads(job.file.read_text())
    assert found["device"] == "cpu" and found["machine"] and [one["step"] for one in found["validation"]] == [2, 4, 6]
    assert set(found["validation"][0]) == {"step", "loss", "log_p_x_given_z", "log_q_z_given_x", "log_p_z", "log_p_k1"}
    assert set(found["posterior"]) == {"median_variance", "at_floor", "sd_of_means"} and found["seconds"] > 0
    sha256 = found["images"].pop("sha256")
    assert found["images"] == {"train": 40, "valid": 12, "test": 20, "note": found["images"]["note"]}
    assert found["images"]["note"].endswith("MD5 not as published: 1 of 1 files")
    assert len(sha256) == 64 and list((tmp_path / "cells" / "unfinished").iterdir()) == []


def test_the_time_of_a_cell_is_that_of_the_processor_with_the_evaluation(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, calls = Job(small_cell(), data, tmp_path / "cells"), itertools.count()
    monkeypatch.setattr(time, "process_time", lambda: next(calls))  # a second for each call
    run_cell(job)
    assert json.loads(job.file.read_text())["seconds"] == 3 + 1  # three validations, one evaluation


def test_an_evaluation_is_repeated_from_the_weights_of_a_cell(data: Path, tmp_path: Path) -> None:
    for objective in ("cmim", "infonce"):
        job = Job(small_cell(objective), data, tmp_path / "cells")
        run_cell(job)
        written = json.loads(job.file.read_text())
        cell, network = load_network(job.file)
        assert cell == job.cell
        with one_thread():
            found = evaluate(network, load(cell.data, data), cell)
        assert found == {name: written[name] for name in found} and found["accuracy"]


def test_a_cell_without_weights_is_not_finished(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(small_cell(), data, tmp_path / "cells")

    def full(path: Path, content: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as context, pytest.raises(OSError, match="No space left"):
        context.setattr("examples.images.grid.save_tensors", full)
        run_cell(job)
    assert not job.file.exists() and job.checkpoint.exists()
    run_cell(job)
    assert job.file.exists() and not job.checkpoint.exists()
    assert sorted(path.name for path in job.output.iterdir()) == sorted([job.file.name, weights_of(job.file).name, "unfinished"])


def test_weights_that_cannot_be_loaded_are_errors(data: Path, tmp_path: Path) -> None:
    job, other = (Job(small_cell(objective), data, tmp_path / "cells") for objective in ("cmim", "ae"))
    for one in (job, other):
        run_cell(one)
    weights_of(job.file).write_bytes(weights_of(other.file).read_bytes())
    with pytest.raises(DataError, match="is damaged, or not the weights of breastmnist-cmim-b4"):
        load_network(job.file)
    for content in (b"", b"x", weights_of(other.file).read_bytes()[:500]):
        weights_of(job.file).write_bytes(content)
        with pytest.raises(DataError, match="is damaged"):
            load_network(job.file)
    weights_of(job.file).unlink()
    with pytest.raises(DataError, match=r"\.pt is missing. Give the JSON file of a cell"):
        load_network(job.file)
    job.file.write_text("{}")
    with pytest.raises(DataError, match="is not the JSON file of a cell"):
        load_network(job.file)


def test_cells_of_different_images_are_errors(data: Path, tmp_path: Path) -> None:
    job = Job(small_cell(), data, tmp_path / "cells")
    run_cell(job)
    run_cell(job)  # finished
    write_small_set(data, "breastmnist", seed=1)
    for again in (lambda: run_cell(job), lambda: run([job])):
        with pytest.raises(DataError, match="was computed with different images of breastmnist"):
            again()
    other = Job(small_cell("mim"), data, tmp_path / "cells")
    run_cell(other)
    with pytest.raises(DataError, match="cells of breastmnist are of different images"):
        conditions(read_cells(tmp_path / "cells"))


def test_a_cell_that_fails_does_not_end_the_others_and_is_run_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [Job(small_cell(objective), data, tmp_path / "cells") for objective in ("cmim", "vae", "ae")]

    def diverging(cell: Any, images: Images, *more: Any) -> Any:
        if cell.objective == "vae":
            raise DivergenceError("the loss is nan")
        return train(cell, images, *more)

    with monkeypatch.context() as context:
        context.setattr("examples.images.grid.train", diverging)
        assert run(jobs) == {jobs[1].cell.name: "DivergenceError: the loss is nan"}
    assert [job.file.exists() for job in jobs] == [True, False, True]
    assert "Traceback" in jobs[1].error.read_text()
    assert run(jobs) == {} and jobs[1].file.exists() and not jobs[1].error.exists()


def test_a_full_disk_fails_one_cell(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [Job(small_cell(objective), data, tmp_path / "cells") for objective in ("cmim", "ae")]

    def full(path: Path, content: object) -> None:
        if "cmim" in path.name:
            raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("examples.images.grid.save_tensors", full)
    failed = run(jobs)
    assert list(failed) == [jobs[0].cell.name] and "No space left on device" in failed[jobs[0].cell.name]
    assert jobs[1].file.exists()


def test_the_largest_batches_start_first(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def noting(self: Workers, task: object, items: list[Job], *, starts_in_order: bool) -> Iterator[Job]:
        assert starts_in_order
        sizes.extend(job.cell.batch_size for job in items)
        yield from ()

    sizes: list[int] = []
    monkeypatch.setattr(Workers, "run", noting)
    run([Job(small_cell(batch_size=size), data, tmp_path / "cells") for size in (2, 10, 5)])
    assert sizes == [10, 5, 2]


def test_batches_that_are_larger_than_a_set_are_an_error_before_the_grid_starts(data: Path, tmp_path: Path) -> None:
    jobs = [Job(small_cell(batch_size=size), data, tmp_path / "cells") for size in (2, 41)]
    with pytest.raises(DataError, match="40 training and 12 validation images"):
        run(jobs)
    assert not (tmp_path / "cells").exists()


def test_a_grid_without_any_set_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has none of these image sets"):
        run([Job(small_cell(), tmp_path, tmp_path / "cells")])


def test_a_missing_gpu_is_an_error_before_the_grid_starts(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="'cuda' is not available"):
        run([Job(small_cell(), data, tmp_path / "cells", "cuda")])


def test_a_cell_that_another_process_runs_is_an_error(data: Path, tmp_path: Path) -> None:
    job = Job(small_cell(), data, tmp_path / "cells")
    job.checkpoint.parent.mkdir(parents=True)
    with lock(job.checkpoint.with_suffix(".lock"), "", ""), pytest.raises(ConfigError, match=f"The cell {job.cell.name} is in use"):
        run_cell(job)


def test_threads_of_a_process_build_the_same_networks() -> None:
    cells = [small_cell(seed=seed) for seed in range(40)]
    with ThreadPoolExecutor(4) as threads:
        built = [network for network, _ in threads.map(build, cells)]
    for network, cell in zip(built, cells):
        expected = build(cell)[0].state_dict()
        assert all(torch.equal(weights, expected[name]) for name, weights in network.state_dict().items())


def test_numbers_of_processes_that_have_no_meaning_are_errors(data: Path, tmp_path: Path) -> None:
    jobs = [Job(small_cell(), data, tmp_path / "cells")]
    for processes in (0, -1):
        with pytest.raises(ConfigError, match="processes must be at least 1"):
            run(jobs, processes)
    with pytest.raises(ConfigError, match="Pass only one of them"):
        run_grid(jobs, processes=2, scheduler="tcp://127.0.0.1:1", say=lambda _: None)


def test_a_cell_that_another_grid_finished_has_not_failed(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(small_cell(), data, tmp_path / "cells")

    def two_grids(one: Job) -> None:
        run_cell(one)
        one.error.write_text("ConfigError: is in use")  # by the grid that ran into the lock of the other

    monkeypatch.setattr("examples.images.grid._run_or_write_error", two_grids)
    assert run([job]) == {} and job.file.exists() and not job.error.exists()


def test_one_thread_computes_a_cell() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1 and {pool["num_threads"] for pool in threadpool_info()} == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_files_of_a_different_version_are_left_out(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no finished cell"):
        read_cells(tmp_path)
    job = Job(small_cell(), data, tmp_path / "cells")
    run_cell(job)
    for content in ("{}", "[]", json.dumps({"cell": {**small_cell().as_mapping(), "version": 0}}), job.file.read_text()):
        (tmp_path / "cells" / "other.json").write_text(content)
        with pytest.warns(UserWarning, match="other.json is not a cell of this version"):
            assert len(read_cells(tmp_path / "cells")) == 1
    (tmp_path / "cells" / "other.json").write_text("{")
    with pytest.raises(DataError, match=r"other\.json is not JSON"):
        read_cells(tmp_path / "cells")


@pytest.mark.slow
def test_a_killed_cell_is_resumed_with_the_same_result(data: Path, tmp_path: Path) -> None:
    killed, whole = (Job(small_cell(settings=LONG), data, tmp_path / name) for name in ("killed", "whole"))
    code = "from tests.examples.images.test_image_grid import run_killed; import sys; run_killed(*sys.argv[1:])"
    process = subprocess.Popen([sys.executable, "-c", code, str(data), str(tmp_path / "killed")], cwd=ROOT)
    while not killed.checkpoint.exists():
        assert process.poll() is None, "the run ended before it was killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not killed.file.exists()
    run_cell(killed)
    run_cell(whole)
    assert without_time(killed.file) == without_time(whole.file)
    assert not killed.checkpoint.exists()


def run_killed(data: str, output: str) -> None:
    """In the process that is killed."""
    run_cell(Job(small_cell(settings=LONG), Path(data), Path(output)))


@pytest.mark.slow
def test_dask_processes_give_the_same_result_as_this_one(data: Path, tmp_path: Path) -> None:
    cells = [small_cell(objective) for objective in MAIN]
    for processes in (1, 2):
        assert run([Job(cell, data, tmp_path / str(processes)) for cell in cells], processes) == {}
    options = {"threads_per_worker": 1, "dashboard_address": None, "scheduler_kwargs": FREE_PORT}
    with distributed.LocalCluster(n_workers=1, **options) as cluster:
        jobs = [Job(cell, data, tmp_path / "scheduler") for cell in cells]
        assert run_grid(jobs, processes=None, scheduler=cluster.scheduler_address, say=lambda _: None) == {}
    for cell in cells:
        one, *others = (without_time(tmp_path / folder / f"{cell.name}.json") for folder in ("1", "2", "scheduler"))
        assert others == [one, one]
