"""Embedding in several processes: the same rows, warnings and errors as in one."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem

import nemo_cmim
from nemo_cmim import MoleculeEmbedder
from nemo_cmim.errors import ConfigError, InvalidSmilesError
from nemo_cmim.inference import CMIMModel, processes, stream

PATIENCE_S = 300
MIXED = [*("C" * (1 + i % 13) + "ON"[i % 2] for i in range(40)), "C1C", "OCC", "CC[NH3+].[Cl-]", "CCO", "Q"]


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many tasks for few rows."""
    monkeypatch.setattr(processes, "ROWS_AT_ONCE", 8)
    monkeypatch.setattr(stream, "ROWS_AT_ONCE", 8)


def transform(model: object, smiles: list[object], **settings: object) -> tuple[np.ndarray, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        found = MoleculeEmbedder(model, batch_size=4, **settings).fit_transform(smiles)  # type: ignore[arg-type]
    return found, [str(warning.message) for warning in caught]


def test_rows_warnings_and_errors_are_those_of_one_process(model_file: Path, model: CMIMModel) -> None:
    settings = {"on_invalid": "nan", "standardise": True}
    expected, said = transform(model, MIXED, **settings)
    assert said == ["2 of 45 molecules are invalid; their rows are NaN. The first: " + said[0].partition("first: ")[2]]
    found, also = transform(str(model_file), MIXED, n_jobs=2, **settings)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert also == said and np.isnan(found).all(axis=1).nonzero()[0].tolist() == [40, 44]
    with pytest.raises(ConfigError, match="batch_size must be at least 1"):
        MoleculeEmbedder(model, batch_size=0, n_jobs=2).fit_transform(MIXED)
    with pytest.raises(InvalidSmilesError) as one:
        transform(model, MIXED)
    with pytest.raises(InvalidSmilesError) as two:
        transform(model, MIXED, n_jobs=2)
    with pytest.raises(InvalidSmilesError, match="SMILES at index 47"):
        nemo_cmim.embed(MIXED, model, first_index=7, n_jobs=2)
    with pytest.raises(ConfigError, match=r"sample=True .* Leave n_jobs out"):
        nemo_cmim.embed(MIXED, model, sample=True, n_jobs=2)
    assert str(one.value) == str(two.value) and "SMILES at index 40" in str(one.value)


@pytest.mark.slow  # starts processes
def test_processes_end_with_a_parent_that_was_killed(model_file: Path) -> None:
    code = f"""
import os, signal
from nemo_cmim.inference import load
from nemo_cmim.inference.processes import Workers
with Workers.opened(load({str(model_file)!r}), 2) as workers:
    workers.submit("width").result()
    print(*workers._executor._processes, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False)
    pids = [int(pid) for pid in done.stdout.split()]
    assert done.returncode == -signal.SIGKILL and len(pids) == 2
    stop = time.monotonic() + PATIENCE_S
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < stop
        time.sleep(0.1)


@pytest.mark.slow  # starts processes
def test_rdkit_molecules(model: CMIMModel) -> None:
    molecules = [Chem.MolFromSmiles(smiles) for smiles in MIXED[:20]]
    np.testing.assert_allclose(transform(model, molecules, n_jobs=2)[0], model.embed(MIXED[:20]), rtol=1e-5, atol=1e-6)


def test_files_have_the_same_rows_and_lists(tmp_path: Path, model: CMIMModel) -> None:
    pd.DataFrame({"n": range(len(MIXED)), "smiles": MIXED}).to_csv(tmp_path / "in.csv", index=False)
    for name, n_jobs in (("one", 1), ("two", 2)):
        done = stream.embed_file(
            model, tmp_path / "in.csv", tmp_path / f"{name}.parquet", on_invalid="nan", standardise=True, n_jobs=n_jobs, resume=True,
            rejects=tmp_path / f"{name}.rejects", changes=tmp_path / f"{name}.changes",
        )  # fmt: skip
        assert (done.rows, done.invalid, done.changed) == (45, 2, 1)
    tables = [pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("one", "two")]
    vectors = [np.stack(table.pop("embedding")) for table in tables]
    pd.testing.assert_frame_equal(*tables)
    np.testing.assert_allclose(*vectors, rtol=1e-5, atol=1e-6)
    for what in ("rejects", "changes"):
        assert (tmp_path / f"one.{what}").read_text() == (tmp_path / f"two.{what}").read_text()
    assert (tmp_path / "two.changes").read_text() == f"file,row,smiles,standardised\n{tmp_path}/in.csv,44,CC[NH3+].[Cl-],CCN\n"
    assert len((tmp_path / "two.rejects").read_text().splitlines()) == 3


def test_finished_blocks_are_not_computed_again(tmp_path: Path, model: CMIMModel, monkeypatch: pytest.MonkeyPatch) -> None:
    smiles = [s for s in MIXED if s not in ("C1C", "Q")]
    bad = [*smiles, "Q"]
    (tmp_path / "in.csv").write_text("smiles\n" + "\n".join(bad) + "\n")
    with pytest.raises(InvalidSmilesError, match="line 45"):
        stream.embed_file(model, tmp_path / "in.csv", tmp_path / "out.npy", resume=True)
    finished = len(list((tmp_path / ".out.npy.unfinished").glob("*.block")))
    asked: list[int] = []
    submit = processes.Workers.submit

    def counting(self: processes.Workers, method: str, rows: list[str], **options: object) -> object:
        asked.append(len(rows))
        return submit(self, method, rows, **options)

    monkeypatch.setattr(processes.Workers, "submit", counting)
    done = stream.embed_file(model, tmp_path / "in.csv", tmp_path / "out.npy", resume=True, on_invalid="nan", n_jobs=2)
    assert finished == 5 and asked == [4] and done.invalid == 1
    np.testing.assert_allclose(np.load(tmp_path / "out.npy")[:-1], model.embed(smiles), rtol=1e-4, atol=1e-5)


@pytest.mark.slow  # starts processes
def test_a_process_that_was_killed_is_an_error(model: CMIMModel) -> None:
    with pytest.raises(ConfigError, match="smaller n_jobs"), processes.Workers.opened(model, 2) as workers:
        workers.submit("width").result()
        for pid in list(workers._executor._processes):
            os.kill(pid, signal.SIGKILL)
        list(workers.in_order((i, workers.submit("width")) for i in range(3)))


def test_a_folder_for_temporary_files_that_is_full(model: CMIMModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(processes, "write_shared", full)
    with pytest.raises(ConfigError, match=r"cannot be written to .*: No space left on device\. Set .* TMPDIR .*, or pass n_jobs=1"):
        nemo_cmim.embed(["CCO"] * 2 * processes.ROWS_AT_ONCE, model, n_jobs=2)
