"""The format of a checkpoint: its description, and the detection of damage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("nemo.core", reason="needs the [train] extra")

from nemo_cmim.training.checkpoints.format import newest_valid, remove, verify
from tests.training.checkpoints.damage import DAMAGES


def test_a_manifest_describes_the_checkpoint(finished: Path) -> None:
    newest, errors = newest_valid(finished / "checkpoints")
    assert newest is not None and not errors
    manifest = verify(newest)
    assert (manifest.step, manifest.parallel, manifest.order["global batch"]) == (6, {"tensor": 1, "data": 1}, 16)
    assert manifest.model["network"]["hidden_size"] == 32
    assert {"state.pt", "vocabulary.txt", "tensors/.metadata"} < manifest.files.keys()


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_detected_and_the_checkpoint_before_is_found(run: Path, damage: Callable[[Path], str]) -> None:
    damaged = run / "checkpoints" / "step=00000006.ckpt"
    expected = damage(damaged)
    newest, errors = newest_valid(run / "checkpoints")
    assert newest == run / "checkpoints" / "step=00000004.ckpt"
    (error,) = errors
    assert expected in str(error) and str(damaged) in str(error)


def test_a_failed_removal_is_a_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"step=00000001.ckpt is no longer needed, but could not be removed: No such file"):
        remove(tmp_path / "step=00000001.ckpt")
