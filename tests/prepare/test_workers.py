"""The order in which Dask starts tasks, and the environment of local workers."""

from __future__ import annotations

import os
import time
from pathlib import Path

import distributed
import pytest

from nemo_cmim.prepare.cluster import Workers, start_workers

ITEMS = range(30)
started: list[int] = []


def note_start(item: int) -> None:
    """Runs in a thread of this process."""
    started.append(item)


def test_tasks_start_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    started.clear()
    priorities = []
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None, protocol="tcp"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        compute = client.compute
        monkeypatch.setattr(
            client, "compute", lambda *args, priority: priorities.append(priority) or compute(*args, priority=priority)
        )
        assert sorted(Workers(client).run(note_start, ITEMS, starts_in_order=True)) == list(ITEMS)
    assert started == list(ITEMS)
    assert priorities == sorted(set(priorities), reverse=True) and len(priorities) == len(
        ITEMS
    )  # equal ones may start in any order


def wait_for_news(item: Path) -> None:
    """Runs in a thread of this process: ends when the file before `item` exists, which is written when the item before is yielded."""
    before, deadline = item.with_name(str(int(item.name) - 1)), time.monotonic() + 60
    while not before.exists():
        assert time.monotonic() < deadline, f"{before.name} was not yielded when its task had ended"
        time.sleep(0.01)


def test_an_item_is_yielded_when_its_task_has_ended(tmp_path: Path) -> None:
    """Not when the next task of the worker has ended."""
    items = [tmp_path / str(number) for number in range(1, 4)]
    (tmp_path / "0").touch()
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None, protocol="tcp"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yielded = []
        for item in Workers(client).run(wait_for_news, items, starts_in_order=True):
            item.touch()
            yielded.append(item)
    assert yielded == items


def note_threshold(path: Path) -> None:
    """Runs in a worker process."""
    path.write_text(os.environ.get("MALLOC_TRIM_THRESHOLD_", "that of the system"))


def test_local_workers_do_not_return_memory_after_each_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)  # an earlier cluster of this process may have left it
    with start_workers(2, None, tmp_path) as workers:
        written = list(workers.run(note_threshold, [tmp_path / "0", tmp_path / "1"]))
    assert [path.read_text() for path in written] == ["that of the system"] * 2
