"""The plain batch file: what it starts, and when it requeues the job. Slurm itself is not installed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.launch.fake_slurm import FakeSlurm

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "pretrain.sbatch"
HEADER = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?", SCRIPT.read_text(), flags=re.MULTILINE))


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"DATA": "/data/zinc 15", "RUN_FOLDER": str(tmp_path / "run")}


def test_bash_can_read_it() -> None:
    assert subprocess.run(["bash", "-n", str(SCRIPT)], check=False).returncode == 0


def test_slurm_is_asked_for_a_task_for_each_gpu_and_for_a_warning() -> None:
    assert HEADER["ntasks-per-node"] == HEADER["gpus-per-node"]
    assert re.fullmatch(r"USR1@\d+", HEADER["signal"])  # "B:" would send it to the batch script alone
    assert "requeue" in HEADER and HEADER["open-mode"] == "append"


def test_it_trains_on_all_devices_and_passes_overrides_on(slurm: FakeSlurm, env: dict[str, str]) -> None:
    assert slurm.run(SCRIPT, "trainer.max_steps=5", "model=tiny", env=env).returncode == 0
    called = slurm.called("srun")
    assert called[:4] == ["--wait=0", "--kill-on-bad-exit=0", "nemo-cmim", "train"] and called[-2:] == [
        "trainer.max_steps=5",
        "model=tiny",
    ]
    assert {"trainer.num_nodes=4", "trainer.devices=8", "exp_manager.resume_if_exists=true"} <= set(called)
    assert "model.train_ds.folder='/data/zinc 15'" in called and f"exp_manager.explicit_log_dir='{env['RUN_FOLDER']}'" in called


def test_its_overrides_compose(slurm: FakeSlurm, env: dict[str, str]) -> None:
    pytest.importorskip("nemo.core", reason="needs the [train] extra")
    from nemo_cmim.training.run import compose

    slurm.run(SCRIPT, "model=tiny", env=env)
    called = slurm.called("srun")
    cfg = compose(called[called.index("train") + 1 :])
    assert (cfg.model.train_ds.folder, cfg.exp_manager.explicit_log_dir) == (env["DATA"], env["RUN_FOLDER"])
    assert (cfg.trainer.num_nodes, cfg.trainer.devices, cfg.exp_manager.resume_if_exists) == (4, 8, True)


def test_a_container_is_used_if_one_is_set(slurm: FakeSlurm, env: dict[str, str]) -> None:
    slurm.run(SCRIPT, env={**env, "CONTAINER_IMAGE": "nemo-cmim.sqsh", "CONTAINER_MOUNTS": "/data:/data"})
    assert slurm.called("srun")[2:5] == ["--container-image=nemo-cmim.sqsh", "--container-mounts=/data:/data", "nemo-cmim"]


@pytest.mark.parametrize(
    ("status", "restarts", "cancel", "requeued"),
    [
        (143, 0, False, True),
        (143, 49, False, True),
        (143, 50, False, False),
        (143, 0, True, False),
        (0, 0, False, False),
        (1, 0, False, False),
        (2, 0, False, False),
        (137, 0, False, False),
    ],
    ids=["preempted", "preempted again", "too often", "cancelled", "finished", "failed", "a mistake in the input", "killed"],
)
def test_only_a_preempted_job_comes_back(
    slurm: FakeSlurm, env: dict[str, str], status: int, restarts: int, cancel: bool, requeued: bool
) -> None:
    done = slurm.run(SCRIPT, status=status, restarts=restarts, cancel=cancel, env=env)
    assert done.returncode == status, done.stderr
    assert slurm.called("scontrol") == (["requeue 77"] if requeued else [])


def test_data_must_be_set(slurm: FakeSlurm) -> None:
    done = slurm.run(SCRIPT)
    assert done.returncode != 0 and "Set DATA" in done.stderr and not slurm.called("srun")
