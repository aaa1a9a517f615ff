"""The order in which Dask starts tasks."""

from __future__ import annotations

import distributed
import pytest

from nemo_cmim.prepare.cluster import Workers

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
