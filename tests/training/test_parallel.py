"""Tensor x data parallelism in complete training runs: real processes over gloo, real signals, checkpoints across layouts."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nemo.core", reason="needs the [train] extra")

import nemo_cmim
from nemo_cmim.training.checkpoints.export import export_from
from nemo_cmim.training.checkpoints.format import CheckpointManifest, find_checkpoints
from tests.training.ranks import as_srun, start_function, start_training, train_with
from tests.training.runs import GIVEN_H, GIVEN_Z, overrides, steps

DROPOUT = "model.network.dropout=0.1"
OPTIMISER = "model.optim.name=muon"  # gathers shards; Adam updates the other weights, and the sharded token embedding
BATCH = ("model.train_ds.batch_size=8", "model.global_batch_size=16", "trainer.max_steps=10", "trainer.val_check_interval=10")


def layout(data: Path, folder: Path, tp: int, *more: str) -> list[str]:
    every = "exp_manager.checkpoint_callback_params.every_n_train_steps=5"
    return overrides(
        data, folder, *BATCH, *GIVEN_H, *GIVEN_Z, OPTIMISER, f"model.parallel.tensor_model_parallel_size={tp}", every, *more
    )


@pytest.fixture(scope="module")
def four(with_properties: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 steps at TP 2 x DP 2, with a checkpoint after 5."""
    folder = tmp_path_factory.mktemp("four") / "run"
    start_training(folder.parent / "logs", 4, layout(with_properties, folder, 2)).succeed()
    return folder


@pytest.mark.parametrize(
    ("ranks", "tp"), [(1, 1), pytest.param(2, 1, marks=pytest.mark.slow), pytest.param(2, 2, marks=pytest.mark.slow)]
)
def test_a_run_is_the_same_at_each_layout(four: Path, with_properties: Path, tmp_path: Path, ranks: int, tp: int) -> None:
    """Loss, gradient norm and learning rate agree: fewer ranks compute the same micro-batches of a step one after the other."""
    folder = tmp_path / "run"
    start_training(tmp_path / "logs", ranks, layout(with_properties, folder, tp)).succeed()
    expected, found = steps(four), steps(folder)
    assert [row["step"] for row in found] == list(range(1, 11))
    for key in ("train_loss", "gradient_norm", "train/token_accuracy", "molecules", "tokens", "lr"):
        np.testing.assert_allclose([r[key] for r in found], [r[key] for r in expected], rtol=1e-4, err_msg=key)


def train_and_wait(arguments: list[str], at_step: int, gate: Path) -> None:
    """Trains, and waits after `at_step` steps until the file `gate` exists. The test can then send a signal.

    Each process that waits creates a file whose name begins with that of `gate`: the step before, with its check for signals, has ended
    for this process. The metrics of a step are written earlier than that.
    """
    from nemo_cmim.training.model import MegatronCMIMModel
    from nemo_cmim.training.run import compose, train

    step = MegatronCMIMModel.training_step

    def waiting(self: MegatronCMIMModel, batch: Any, batch_idx: int) -> Any:
        if self.trainer.global_step >= at_step:
            gate.with_name(f"{gate.name}-{os.getpid()}").touch()
        while self.trainer.global_step >= at_step and not gate.exists():
            time.sleep(0.02)
        return step(self, batch, batch_idx)

    MegatronCMIMModel.training_step = waiting  # type: ignore[method-assign]
    train(compose(arguments))


@pytest.mark.slow
def test_ten_steps_are_five_a_kill_and_five_bit_for_bit(with_properties: Path, tmp_path: Path) -> None:
    """At TP 2 x DP 2, with dropout, latent noise, SMILES enumeration, masked spans and a queue of negatives."""
    more = (
        DROPOUT,
        "model.objective.queue=40",
        "model.augmentation.strings=different_random",
        "model.augmentation.mask_fraction=0.1",
    )
    more += ("exp_manager.resume_if_exists=true",)
    start_training(tmp_path / "logs-straight", 4, layout(with_properties, tmp_path / "straight", 2, *more)).succeed()

    resumed = tmp_path / "resumed"
    arguments = [*layout(with_properties, resumed, 2, *more), "trainer.devices=4"]
    ranks = start_function(tmp_path / "logs-killed", 4, train_and_wait, arguments, 7, tmp_path / "never")
    ranks.wait_for(lambda: bool(find_checkpoints(resumed / "checkpoints")) and len(steps(resumed)) == 7)
    ranks.send(signal.SIGKILL)
    assert len(steps(resumed)) == 7
    assert not list(resumed.rglob("*.nemo"))

    start_training(tmp_path / "logs-resumed", 4, arguments).succeed()
    for key in ("train_loss", "gradient_norm", "lr"):
        assert [r[key] for r in steps(resumed)] == [r[key] for r in steps(tmp_path / "straight")], key
    files = [next((tmp_path / name / "checkpoints").glob("*.nemo")).read_bytes() for name in ("straight", "resumed")]
    assert files[0] == files[1]


@pytest.mark.parametrize(("ranks", "tp"), [(1, 1), pytest.param(4, 4, marks=pytest.mark.slow)])
def test_a_checkpoint_is_resumed_at_a_different_layout(
    four: Path, with_properties: Path, tmp_path: Path, ranks: int, tp: int
) -> None:
    halfway = next(path for path in find_checkpoints(four / "checkpoints") if "00000005" in path.name)
    resume = f"exp_manager.resume_from_checkpoint='{halfway}'"
    start_training(tmp_path / "logs", ranks, layout(with_properties, tmp_path / "run", tp, resume)).succeed()
    rows, expected = steps(tmp_path / "run"), steps(four)[5:]
    assert [row["step"] for row in rows] == [6, 7, 8, 9, 10]
    for key in ("train_loss", "gradient_norm", "lr"):
        np.testing.assert_allclose([r[key] for r in rows], [r[key] for r in expected], rtol=1e-4, err_msg=key)


def test_a_sharded_checkpoint_is_exported_to_the_model_that_training_left(four: Path, tmp_path: Path) -> None:
    exported = export_from(four, tmp_path / "again.nemo")
    assert exported.name == "step=00000010.ckpt"
    assert (tmp_path / "again.nemo").read_bytes() == next((four / "checkpoints").glob("*.nemo")).read_bytes()
    assert nemo_cmim.load(tmp_path / "again.nemo").embed(["CCO"]).shape == (1, 32)


@pytest.mark.slow
def test_a_signal_to_one_rank_saves_and_ends_all(four: Path, with_properties: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = [*layout(with_properties, folder, 1, "exp_manager.resume_if_exists=true"), "trainer.devices=2"]
    gate = tmp_path / "gate"
    ranks = start_function(tmp_path / "logs", 2, train_and_wait, arguments, 2, gate)
    ranks.wait_for(lambda: len(list(tmp_path.glob("gate-*"))) == 2)
    assert len(steps(folder)) == 2
    ranks.send(signal.SIGTERM, 1)
    gate.touch()
    assert ranks.wait() == [143, 143], ranks.output()[-4000:]
    done = len(steps(folder))
    assert done == 3, "the step in which the signal came is the last one"
    assert find_checkpoints(folder / "checkpoints")[0].name == f"step={done:08d}.ckpt"
    assert f"step {done} is saved" in ranks.output()
    start_training(tmp_path / "logs-again", 2, arguments).succeed()
    np.testing.assert_allclose([r["train_loss"] for r in steps(folder)], [r["train_loss"] for r in steps(four)], rtol=1e-4)


@pytest.mark.slow
def test_a_run_started_by_srun_is_preempted_by_usr1_and_resumes(four: Path, with_properties: Path, tmp_path: Path) -> None:
    """Slurm starts one task per device, without torchrun, and can send SIGUSR1 before a job ends."""
    arguments = [*layout(with_properties, tmp_path / "run", 2, "exp_manager.resume_if_exists=true"), "trainer.devices=2"]
    gate = tmp_path / "gate"
    ranks = start_function(tmp_path / "logs", 2, train_and_wait, arguments, 3, gate, launcher=as_srun)
    ranks.wait_for(lambda: len(list(tmp_path.glob("gate-*"))) == 2)
    assert len(steps(tmp_path / "run")) == 3
    ranks.send(signal.SIGUSR1)
    gate.touch()
    assert ranks.wait() == [143, 143], ranks.output()[-4000:]
    assert len(steps(tmp_path / "run")) == 4
    start_function(tmp_path / "logs-again", 2, train_with, arguments, launcher=as_srun).succeed()
    losses = [[row["train_loss"] for row in steps(folder)] for folder in (tmp_path / "run", four)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.devices=1", "trainer.devices 1 x trainer.num_nodes 1 = 1 processes are expected, but the launcher started 2"),
        ("model.global_batch_size=24", "model.global_batch_size (24) must be model.train_ds.batch_size 8 x 2 data-parallel ranks"),
        (
            "model.network.attention_heads=1",
            "network.attention_heads (1) must be a multiple of parallel.tensor_model_parallel_size",
        ),
    ],
)
def test_inconsistent_numbers_are_an_error_on_all_ranks(with_properties: Path, tmp_path: Path, override: str, message: str) -> None:
    tp = 2 if "heads" in override else 1
    arguments = [*layout(with_properties, tmp_path / "run", tp), "trainer.devices=2", override]
    ranks = start_function(tmp_path / "logs", 2, train_with, arguments)
    assert ranks.wait() == [1, 1]
    assert ranks.output().count(message) >= 2, ranks.output()[-3000:]


def validate_and_wait(arguments: list[str], begun: Path, gate: Path) -> None:
    """Training whose validation waits until the file `gate` exists."""
    from nemo_cmim.training.model import MegatronCMIMModel
    from nemo_cmim.training.run import compose, train

    step = MegatronCMIMModel.validation_step

    def waiting(self: MegatronCMIMModel, batch: Any, batch_idx: int) -> Any:
        begun.touch()
        while not gate.exists():
            time.sleep(0.02)
        return step(self, batch, batch_idx)

    MegatronCMIMModel.validation_step = waiting  # type: ignore[method-assign, assignment]
    train(compose(arguments))


def test_a_signal_during_validation_ends_the_run_before_validation_is_finished(with_properties: Path, tmp_path: Path) -> None:
    """Validation may take longer than the notice period. The checkpoint is saved without a monitored value."""
    folder, begun, gate = (tmp_path / name for name in ("run", "begun", "gate"))
    settings = ("trainer.val_check_interval=2", "model.validation_ds.batch_size=2", "trainer.num_sanity_val_steps=0")
    ranks = start_function(tmp_path / "logs", 1, validate_and_wait, layout(with_properties, folder, 1, *settings), begun, gate)
    ranks.wait_for(begun.exists)
    ranks.send(signal.SIGTERM)
    gate.touch()
    assert ranks.wait() == [143], ranks.output()[-4000:]
    (saved,) = find_checkpoints(folder / "checkpoints")
    assert (saved.name, CheckpointManifest.read(saved).monitored) == ("step=00000002.ckpt", None)


def in_a_group_of_its_own(arguments: list[str], group_file: Path, gate: Path) -> None:
    os.setpgid(0, 0)
    group_file.write_text(str(os.getpgid(0)))
    train_and_wait(arguments, 2, gate)


@pytest.mark.slow
def test_a_signal_to_the_process_group_with_loader_workers_saves(with_properties: Path, tmp_path: Path) -> None:
    """torchrun ends its processes in this way. The next run can use the folder immediately."""
    folder, group_file, gate = (tmp_path / name for name in ("run", "group", "gate"))
    arguments = layout(with_properties, folder, 1, "model.train_ds.workers=2", "exp_manager.resume_if_exists=true")
    ranks = start_function(tmp_path / "logs", 1, in_a_group_of_its_own, arguments, group_file, gate)
    ranks.wait_for(lambda: len(steps(folder)) == 2)
    os.killpg(int(group_file.read_text()), signal.SIGTERM)
    gate.touch()
    assert ranks.wait() == [143], ranks.output()[-4000:]
    assert find_checkpoints(folder / "checkpoints")
    start_training(tmp_path / "logs-again", 1, arguments).succeed()


def overflow_on_the_last_rank(arguments: list[str], folder: Path) -> None:
    """Makes a gradient of rank 3 infinite in the second step, and records the state of each rank before each step."""
    import torch

    from nemo_cmim.training.model import MegatronCMIMModel
    from nemo_cmim.training.run import compose, train

    step, rank = MegatronCMIMModel.training_step, torch.distributed.get_rank
    seen: list[dict[str, Any]] = []

    def watched(self: MegatronCMIMModel, batch: Any, batch_idx: int) -> Any:
        assert self.training_state is not None
        scale = self.training_state.loss_scale
        weights = float(sum(p.detach().double().sum() for p in self.training_state.parameters.master.values()))
        seen.append({"weights": weights, "skipped": scale.skipped, "scale": scale.scale})
        return step(self, batch, batch_idx)

    def infinite(self: MegatronCMIMModel) -> None:
        self.network.posterior.mean.bias.register_hook(
            lambda g: g * float("inf") if rank() == 3 and self.trainer.global_step == 1 else g
        )

    MegatronCMIMModel.training_step = watched  # type: ignore[method-assign]
    MegatronCMIMModel.on_fit_start = infinite  # type: ignore[method-assign]
    train(compose(arguments))
    (folder / f"rank-{rank()}.json").write_text(json.dumps(seen))


@pytest.mark.slow
def test_an_overflow_on_one_rank_skips_the_step_on_all(with_properties: Path, tmp_path: Path) -> None:
    more = ("trainer.precision=fp16", "model.loss_scale.initial=16", "model.loss_scale.hysteresis=1", "trainer.max_steps=4")
    arguments = [*layout(with_properties, tmp_path / "run", 2, *more), "trainer.devices=4"]
    start_function(tmp_path / "logs", 4, overflow_on_the_last_rank, arguments, tmp_path).succeed()
    for rank in range(4):
        seen = json.loads((tmp_path / f"rank-{rank}.json").read_text())
        weights = [row["weights"] for row in seen]
        assert [row["skipped"] for row in seen] == [0, 0, 1, 1], rank
        assert [row["scale"] for row in seen] == [16, 16, 8, 8], rank
        assert weights[0] != weights[1] == weights[2] != weights[3], rank
    assert [row["skipped_steps"] for row in steps(tmp_path / "run")] == [0, 1, 1, 1]
