"""Number of cores."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from nemo_cmim.cores import available_cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system cannot limit a process to some cores")
def test_cores_are_those_that_a_process_may_use() -> None:
    limited = "import os; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])"
    code = f"{limited}; from nemo_cmim import cores; print(cores.available_cores())"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "1\n"
    assert available_cores() == len(os.sched_getaffinity(0))


def test_without_affinity_all_cores_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert available_cores() == 7
