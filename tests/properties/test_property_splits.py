"""Folds by scaffold, by time, and with even classes."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nemo_cmim.errors import ConfigError, DataError
from nemo_cmim.molecules import murcko_scaffold
from nemo_cmim.properties.partition import Partition
from nemo_cmim.properties.splits import random_folds, scaffold_folds, time_folds
from nemo_cmim.properties.targets import read_targets
from tests.properties.property_data import SMILES


def test_classes_are_spread_evenly_over_folds() -> None:
    strata = np.arange(60) < 6
    for seed in range(5):
        folds = random_folds(SMILES, 3, seed, strata)
        assert [int(strata[fold.test].sum()) for fold in folds] == [2, 2, 2]
        assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(60))
    assert random_folds(SMILES, 3, 0, strata)[0].test.tolist() != random_folds(SMILES, 3, 1, strata)[0].test.tolist()


def test_a_scaffold_is_in_one_fold() -> None:
    folds = scaffold_folds(SMILES + SMILES, 3)
    scaffolds = np.array([murcko_scaffold(s) for s in SMILES + SMILES])
    for fold in folds:
        assert not set(scaffolds[fold.train]) & set(scaffolds[fold.test])
    assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(120))
    assert min(len(fold.test) for fold in folds) > 0
    with pytest.raises(DataError, match="5 scaffolds are too few for 6 folds"):
        scaffold_folds(SMILES, 6)
    with pytest.raises(ConfigError, match="folds must be at least 2"):
        scaffold_folds(SMILES, 1)


def test_training_rows_are_earlier_than_test_rows() -> None:
    times = np.random.default_rng(0).integers(2000, 2020, 60)
    smiles = [*SMILES[:50], *SMILES[:10]]  # ten molecules with two times
    folds = time_folds(smiles, times, 3)
    for fold in folds:
        assert times[fold.train].max() < 2020 and len(fold.test)
        assert not {smiles[r] for r in fold.train} & {smiles[r] for r in fold.test}
    latest = {s: max(t for o, t in zip(smiles, times) if o == s) for s in smiles}
    for fold in folds:
        assert max(latest[smiles[r]] for r in fold.train) < min(latest[smiles[r]] for r in fold.test)
    with pytest.raises(DataError, match="2 different times"):
        time_folds(SMILES, [2000, 2001] * 30, 3)


@pytest.mark.parametrize(
    "times",
    [
        [0.5, 2, 3, 11],
        ["0.5", "2", "3", "11"],
        ["2023", "2023-02", "2023-03-01T01:00:00", "2023-03-01T03:00:00+01:00"],
        np.array(["2023-01-01", "2023-01-02", "2024-01-01", "2025-01-01"], dtype="datetime64[ns]"),
        pd.to_datetime(pd.Series(["2023-01-01", "2023-01-02", "2024-01-01", "2025-01-01"])),
        [datetime.date(2023, 1, day) for day in (1, 2, 3, 4)],
    ],
    ids=["numbers", "text", "dates", "array", "series", "objects"],
)
def test_kinds_of_times(times: Any) -> None:
    targets = read_targets(range(4), "regression")
    found = Partition.of("time", SMILES[:4], targets, times, np.array([3, 1, 0, 2]), 4, 0).times
    assert found is not None and found.tolist() == [3, 1, 0, 2]


def test_times_may_be_dates_and_must_be_complete() -> None:
    targets = read_targets(range(60), "regression")
    rows = np.arange(60)
    dates = [f"20{year:02}-03-01" for year in range(60)]
    for split in Partition.of("time", SMILES, targets, dates, rows, 60, 0).splits(3):
        assert split.train.max() < split.test.min()
    with pytest.raises(DataError, match="index 1 is missing"):
        Partition.of("time", SMILES, targets, [2000.0, np.nan] * 30, rows, 60, 0)
    for bad, reason in {"31.12.2020": "'31.12.2020'", np.inf: "inf", True: "True"}.items():
        times = [*dates[:7], bad, *dates[8:]]
        expected = f"^The time at index 7 is {reason}, neither a finite number nor a date such as 2024-05-31. Correct it"
        with pytest.raises(DataError, match=expected):
            Partition.of("time", SMILES, targets, times, rows, 60, 0)
        partition = Partition.of("time", SMILES[:59], targets, times, np.delete(rows, 7), 60, 0)  # of rows that are used only
        assert partition.times is not None and partition.times.tolist() == list(range(59))
    with pytest.raises(DataError, match=r"The time at index 0 is the number 1\.5, but others are dates"):
        Partition.of("time", SMILES, targets, [1.5, *dates[1:]], rows, 60, 0)
    with pytest.raises(ConfigError, match="pass the times as groups"):
        Partition.of("time", SMILES, targets, None, rows, 60, 0)
    with pytest.raises(ConfigError, match="split='time' only"):
        Partition.of("random", SMILES, targets, dates, rows, 60, 0)
