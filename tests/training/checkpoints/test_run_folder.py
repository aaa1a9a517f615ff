"""The folder of a run: which checkpoint is resumed, and which folders cannot be used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("nemo.core", reason="needs the [train] extra")

from nemo_cmim.errors import CheckpointError, ConfigError
from nemo_cmim.training.checkpoints.format import find_checkpoints
from nemo_cmim.training.checkpoints.run_folder import claim_run_folder
from nemo_cmim.training.run import train
from tests.training.checkpoints.damage import flip_a_byte, remove_the_manifest
from tests.training.runs import RESUME, checkpoint_names, config, every_two, steps


def test_a_damaged_checkpoint_is_reported_and_the_run_resumes_from_the_one_before(data: Path, run: Path) -> None:
    expected = flip_a_byte(run / "checkpoints" / "step=00000006.ckpt")
    with pytest.warns(UserWarning) as warned:
        train(config(data, run, *every_two(8), RESUME))
    assert any(expected in str(w.message) and "step=00000006.ckpt" in str(w.message) for w in warned)
    assert [row["step"] for row in steps(run)] == list(range(1, 9))
    assert checkpoint_names(run) == ["step=00000008.ckpt", "step=00000006.ckpt"]
    assert len(list((run / "checkpoints").glob("aside.*.step=00000006.ckpt"))) == 1, "nothing is deleted"


@pytest.mark.filterwarnings("ignore:Skipped a checkpoint", "ignore:The checkpoint .* is not used to resume")
def test_a_checkpoint_without_manifest_is_renamed(run: Path) -> None:
    remove_the_manifest(run / "checkpoints" / "step=00000006.ckpt")
    with claim_run_folder({"explicit_log_dir": str(run), "resume_if_exists": True}) as claimed:
        assert claimed.resume_from == run / "checkpoints" / "step=00000004.ckpt"
        assert list(claimed.kept) == [claimed.resume_from]
    assert checkpoint_names(run) == ["step=00000004.ckpt"]
    assert len(list((run / "checkpoints").glob("aside.*.step=00000006.ckpt"))) == 1


@pytest.mark.filterwarnings("ignore:Skipped a checkpoint")
def test_no_valid_checkpoint_is_an_error(run: Path) -> None:
    for path in find_checkpoints(run / "checkpoints"):
        flip_a_byte(path)
    message = r"None of the 2 checkpoints .* is valid. The newest: .*step=00000006.ckpt is damaged"
    with (
        pytest.raises(CheckpointError, match=message),
        claim_run_folder({"explicit_log_dir": str(run), "resume_if_exists": True}),
    ):
        pass
    assert len(checkpoint_names(run)) == 2


def test_an_earlier_run_is_not_overwritten(data: Path, run: Path) -> None:
    message = r"already contains a run \(step=00000006.ckpt\). Set exp_manager.resume_if_exists=true to resume"
    with pytest.raises(ConfigError, match=message):
        train(config(data, run, *every_two(8)))
    assert checkpoint_names(run) == ["step=00000006.ckpt", "step=00000004.ckpt"]


@pytest.mark.usefixtures("run")
def test_a_required_checkpoint_that_is_missing_is_an_error(tmp_path: Path) -> None:
    settings = {"explicit_log_dir": str(tmp_path / "new"), "resume_if_exists": True, "resume_ignore_no_checkpoint": False}
    with pytest.raises(CheckpointError, match="does not contain a checkpoint to resume from"), claim_run_folder(settings):
        pass


@pytest.mark.usefixtures("run")
def test_a_folder_with_other_files_is_not_used(tmp_path: Path) -> None:
    """exp_manager moves all files that it finds."""
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "thesis.tex").touch()
    message = r"contains files that are not of a run, for example thesis.tex"
    with pytest.raises(ConfigError, match=message), claim_run_folder({"explicit_log_dir": str(folder)}):
        pass
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]


def test_a_requeued_run_resumes_from_its_own_checkpoint(run: Path, tmp_path: Path) -> None:
    """The command names the checkpoint of a different run to start from, and stays the same."""
    other = run / "checkpoints" / "step=00000004.ckpt"
    settings = {"resume_if_exists": True, "resume_from_checkpoint": str(other)}
    with claim_run_folder(settings | {"explicit_log_dir": str(tmp_path / "new")}) as claimed:
        assert claimed.resume_from == other
    with claim_run_folder(settings | {"explicit_log_dir": str(run)}) as claimed:
        assert claimed.resume_from == run / "checkpoints" / "step=00000006.ckpt"


def test_two_runs_cannot_use_one_folder(data: Path, run: Path) -> None:
    resume = config(data, run, *every_two(8), RESUME)
    with (
        claim_run_folder({"explicit_log_dir": str(run), "resume_if_exists": True}),
        pytest.raises(ConfigError, match=rf"is in use by process {os.getpid()} on "),
    ):
        train(resume)
    train(resume)  # the lock is released
    assert checkpoint_names(run)[0] == "step=00000008.ckpt"


@pytest.mark.usefixtures("run")
def test_a_folder_that_cannot_be_written_is_an_error() -> None:
    message = "The run folder /proc/nowhere cannot be written"
    with pytest.raises(ConfigError, match=message), claim_run_folder({"explicit_log_dir": "/proc/nowhere"}):
        pass
