"""Test molecules that are in the pretraining data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from nemo_cmim.downstream import RegressionData
from nemo_cmim.evaluation.leakage import find_seen, unseen
from tests.evaluation.made_up import RINGS


def test_seen_molecules_are_left_out_by_set_and_row() -> None:
    seen = pd.DataFrame({"data": ["A", "A", "B", "B"], "row": [0, 1, 0, 1], "same": False, "flat": [True, False, False, False]})
    predictions = pd.DataFrame({"data": ["B", "A", "A", "B", "A"], "row": [0, 0, 1, 1, 0]})
    assert unseen(predictions, seen).index.tolist() == [0, 2, 3]


def test_molecules_are_looked_up_as_given_and_the_result_is_kept(pretraining: Path, tmp_path: Path) -> None:
    """`prepare` works on the line of a file, not on its canonical SMILES."""
    data = RegressionData(name="D", smiles=[f"{RINGS[0]}O", "CCCCCCF"], targets=np.array([0.0, 1.0]))
    object.__setattr__(data, "canonical", ("C", "C"))
    said: list[str] = []
    found = find_seen([data], pretraining, tmp_path / "kept", said.append)
    assert found["same"].tolist() == found["flat"].tolist() == [True, False]
    pd.testing.assert_frame_equal(find_seen([data], pretraining, tmp_path / "kept", said.append), found)
    assert len(said) == 1
    other = RegressionData(name="D", smiles=["CCCCCCF", f"{RINGS[0]}O"], targets=data.targets)
    assert find_seen([other], pretraining, tmp_path / "kept", said.append)["same"].tolist() == [False, True]
