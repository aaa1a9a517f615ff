"""Random files and SMILES: nothing is lost or changed, and nothing crashes. `python -m tools.fuzz` does the same with more of them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

pytest.importorskip("hypothesis", reason="needs the [dev] extra")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nemo_cmim.inference import load
from nemo_cmim.tables.layout import ReadOptions
from tests.shipped_names import WITHOUT_PROPERTIES
from tools.fuzz import OPTIONS, SUFFIXES, Table, check_damaged, check_smiles, check_table, damaged, mutated, tables

BOUNDED = settings(
    max_examples=300, deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.slow
@BOUNDED
@given(tables())
def test_cells_of_any_dialect_are_read_unchanged(tmp_path: Path, table: Table) -> None:
    check_table(table, tmp_path)


@pytest.mark.slow
@BOUNDED
@given(damaged(), st.sampled_from(SUFFIXES), OPTIONS)
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes, suffix: str, options: ReadOptions) -> None:
    check_damaged(content, suffix, options, tmp_path)


@pytest.mark.parametrize("count", [200, pytest.param(5000, marks=pytest.mark.slow)])
def test_mutated_smiles(count: int) -> None:
    smiles = mutated(random.Random(count), count)
    assert 0.1 < check_smiles(smiles, load(WITHOUT_PROPERTIES), count) / count < 0.9
