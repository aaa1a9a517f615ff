"""The training runs of a comparison, each in its own process, so that no run depends on what ran before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files import atomic_write
from ..inference.threads import thread_count
from ..mappings import hydra_quoted
from .settings import CompareConfig

__all__ = ["Run", "planned", "train_all"]


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        objective: Its objective.
        seed: Seed of weights, noise and order of the molecules.
        folder: Folder of the run: `overrides.json`, `train.log`, and the output of training in `training/`.
        overrides: Overrides of conf/pretrain.yaml.
    """

    objective: str
    seed: int
    folder: Path
    overrides: tuple[str, ...]

    def nemo_file(self) -> Path | None:
        """The trained model; None until the run has finished."""
        return next(iter((self.folder / "training" / "checkpoints").glob("*.nemo")), None)

    def trained_model(self) -> Path:
        """The trained model of a finished run."""
        path = self.nemo_file()
        assert path is not None, "the run has finished"
        return path


def planned(config: CompareConfig) -> list[Run]:
    """All runs, those of the first seed first. They differ only in objective, seed and folder."""
    output = Path(config.output).resolve()
    runs = []
    for seed in config.seeds:
        for objective in config.objectives:
            folder = output / "runs" / f"{objective}-{seed}"
            overrides = (
                *config.train,
                f"objective={objective}",
                f"seed={seed}",
                f"model.train_ds.folder={hydra_quoted(Path(config.data).resolve())}",
                f"trainer.max_steps={config.steps}",
                "exp_manager.resume_if_exists=true",
                f"exp_manager.explicit_log_dir={hydra_quoted(folder / 'training')}",  # its own: exp_manager moves older files away
            )
            runs.append(Run(objective, seed, folder, overrides))
    return runs


def train_all(runs: list[Run], jobs: int) -> Generator[tuple[Run, float], None, None]:
    """Trains the runs that are not trained yet; gives each run, with its duration in seconds, when it is finished.

    Args:
        runs: The runs.
        jobs: Number of runs at the same time; they share the cores equally.

    Raises:
        ConfigError: If a run failed, or if its folder has a run with different settings.
    """
    for run in runs:
        _claim(run)
    waiting = []
    for run in runs:
        if run.nemo_file() is None:
            waiting.append(run)
        else:
            yield run, 0.0
    pool, processes = ThreadPoolExecutor(jobs), _Processes()
    try:
        futures = {pool.submit(_train, run, jobs, processes): run for run in waiting}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:  # also if the caller fails or is interrupted: no run may continue alone
        pool.shutdown(wait=False, cancel_futures=True)
        processes.end()


class _Processes:
    """The training processes that were started. After `end` no process can be started."""

    def __init__(self) -> None:
        self._lock, self._ended = threading.Lock(), False
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, command: list[str], **settings: Any) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._ended:
                raise ConfigError("The comparison has ended.")
            self._started.append(subprocess.Popen(command, **settings))
            return self._started[-1]

    def end(self) -> None:
        with self._lock:
            self._ended = True
        for process in self._started:
            process.terminate()
        for process in self._started:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def _claim(run: Run) -> None:
    settings = run.folder / "overrides.json"
    if settings.exists():
        found = json.loads(settings.read_text())
        if sorted(found) != sorted(run.overrides):
            raise ConfigError(
                f"{run.folder} has a run with different settings ({', '.join(sorted(set(found) ^ set(run.overrides)))}). "
                "Remove the folder, or choose a different output."
            )
    run.folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(settings) as staging:
        staging.write_text(json.dumps(run.overrides))


def _train(run: Run, jobs: int, processes: _Processes) -> float:
    """Trains in a process whose output goes to train.log; returns the duration in seconds."""
    start = time.monotonic()
    threads = max(1, thread_count() // jobs)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    log = run.folder / "train.log"
    with log.open("a") as file:
        command = [sys.executable, "-m", "nemo_cmim.cli", "train", *run.overrides]
        process = processes.start(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
    if process.wait() or run.nemo_file() is None:
        last = log.read_text(errors="replace").strip().splitlines()[-1:]
        raise ConfigError(f"The run {run.folder.name} failed: {' '.join(last)} See {log} for its output.")
    return time.monotonic() - start
