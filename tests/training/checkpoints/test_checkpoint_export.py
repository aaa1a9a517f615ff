"""`nemo-cmim export` of folders that are not valid checkpoints, and into the folder of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("nemo.core", reason="needs the [train] extra")

from nemo_cmim.cli import main
from tests.training.checkpoints.damage import flip_a_byte


def test_what_is_not_a_valid_checkpoint_is_not_exported(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nemo_file = tmp_path / "model.nemo"
    assert main(["export", str(tmp_path), "-o", str(nemo_file)]) == 2
    assert "is not a checkpoint of nemo_cmim" in capsys.readouterr().err
    flip_a_byte(run / "checkpoints" / "step=00000004.ckpt")
    assert main(["export", str(run / "checkpoints" / "step=00000004.ckpt"), "-o", str(nemo_file)]) == 2
    assert "is damaged" in capsys.readouterr().err
    assert not nemo_file.exists()


def test_a_model_file_may_be_in_the_folder_of_its_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (run, run, run / "checkpoints"):
        assert main(["export", str(run), "-o", str(folder / "model.nemo"), "--overwrite"]) == 0
    settings = run / "hparams.yaml"
    before = settings.read_bytes()
    assert main(["export", str(run), "-o", str(settings), "--overwrite"]) == 2
    assert "is also an input" in capsys.readouterr().err
    assert settings.read_bytes() == before
