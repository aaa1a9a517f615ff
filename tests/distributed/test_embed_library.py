"""Libraries that are embedded in parts: contents, counts, resumption, and what is refused."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from nemo_cmim.cli import main
from nemo_cmim.distributed import LibraryManifest, embed_files, parts
from nemo_cmim.distributed.folder import Folder
from nemo_cmim.distributed.job import UNFINISHED
from nemo_cmim.distributed.parts import category_of
from nemo_cmim.errors import CheckpointError, ConfigError, DataError, InvalidSmilesError
from nemo_cmim.files import lock
from nemo_cmim.inference import load
from nemo_cmim.inference.engines.export import export_engine
from nemo_cmim.inference.model_file import read_model_file, write_model_file
from nemo_cmim.neighbors import find_neighbors
from nemo_cmim.tables.vectors import embeddings_of, metadata_of
from tests.distributed.conftest import INVALID, ROWS
from tests.inference.conftest import random_model

SETTINGS: dict[str, Any] = {"scheduler": "local:1", "part_rows": 16, "on_invalid": "nan", "progress": False}


LEASE = f"_lease-{'0' * 32}.json"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rows_of(folder: Path) -> pa.Table:
    manifest = LibraryManifest.load(folder)
    return pa.concat_tables(pyarrow.parquet.read_table(folder / part["name"]) for part in manifest.parts)


@pytest.mark.parametrize(("stored", "tolerance"), [("float32", 0.0), ("float16", 1e-3), ("int8", 1 / 254)])
def test_rows_and_vectors_are_those_of_the_model(
    source: Path, model_file: Path, stored: str, tolerance: float, tmp_path: Path
) -> None:
    manifest = embed_files(source, tmp_path / "out", model=model_file, stored=stored, **SETTINGS)
    frame, table = pd.read_csv(source, keep_default_na=False), rows_of(tmp_path / "out")
    assert table.column("id").to_pylist() == frame["id"].tolist()
    assert table.column("smiles").to_pylist() == frame["smiles"].tolist()
    vectors = embeddings_of(table)
    expected = np.concatenate(
        [load(model_file).embed_or_explain(frame["smiles"][i : i + 16].tolist())[0] for i in range(0, ROWS, 16)]
    )
    largest = np.nanmax(np.abs(expected), axis=1, initial=0, keepdims=True)
    assert (np.isnan(vectors) == np.isnan(expected)).all() and np.isnan(vectors).any(axis=1).sum() == 3
    assert (np.abs(vectors - expected) <= tolerance * largest).all(where=~np.isnan(expected))
    reasons = table.column("invalid_reason").to_pylist()
    assert {i for i, reason in enumerate(reasons) if reason} == {*INVALID} == {*np.flatnonzero(table.column("embedding").is_null())}
    assert "unclosed ring" in reasons[7]
    column = pyarrow.parquet.ParquetFile(tmp_path / "out" / manifest.parts[0]["name"]).metadata.row_group(0).column(2)
    assert ("RLE_DICTIONARY" in column.encodings) == (stored == "int8")  # int8 alone takes 4 bytes
    assert manifest.counts == {"rows": ROWS, "embedded": ROWS - 3, "invalid": 3}
    assert manifest.invalid == {"not a molecule to RDKit": 1, "no SMILES": 1, "unknown token": 1}
    assert [part["rows"] for part in manifest.parts] == [16, 16, 16, 12] and manifest.inputs[0]["rows"] == ROWS
    for part in manifest.parts:
        content = (tmp_path / "out" / part["name"]).read_bytes()
        assert part["sha256"] == hashlib.sha256(content).hexdigest() and part["bytes"] == len(content)
    assert (metadata_of(table.schema) or {})["fingerprint"] == load(model_file).fingerprint()
    assert {*contents(tmp_path / "out")} == {"manifest.json", *(part["name"] for part in manifest.parts)}
    assert {path.name for path in tmp_path.iterdir()} == {"in.csv", "out"}


@pytest.mark.parametrize("loading", [{"engine": "onnx-int8"}, {"precision": "bf16"}])
def test_workers_and_search_use_the_engine_and_precision_of_the_library(
    source: Path, model_file: Path, loading: dict[str, str], tmp_path: Path
) -> None:
    model = model_file
    if "engine" in loading:
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnx")
        model = tmp_path / "engine"
        some = ["CCO", "c1ccccc1"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("nemo_cmim.inference.engines.export.molecules", lambda: some)
            engines = ("onnx", "onnx-int8")
            export_engine(read_model_file(model_file), model, name="random", engines=engines, cosines=dict.fromkeys(engines, 0.9))
    settings = {**SETTINGS, "scheduler": "local:2", "model": model, **loading}
    manifest = embed_files(source, tmp_path / "out", **settings)
    expected = load(model, **loading)
    smiles = pd.read_csv(source, keep_default_na=False)["smiles"].tolist()
    vectors = np.concatenate([expected.embed_or_explain(smiles[i : i + 16])[0] for i in range(0, ROWS, 16)])
    np.testing.assert_allclose(embeddings_of(rows_of(tmp_path / "out")), vectors, atol=0.01 * np.nanmax(np.abs(vectors)))
    assert manifest.embedding["fingerprint"] == expected.fingerprint() != load(model_file).fingerprint()
    assert {name: manifest.embedding[name] for name in loading} == loading
    found = find_neighbors("CCCO", tmp_path / "out", 1)
    assert (found["library_smiles"].tolist(), found["similarity"].round(4).tolist()) == (["CCCO"], [1])


def test_an_invalid_molecule_is_an_error_and_complete_parts_are_kept(source: Path, model_file: Path, tmp_path: Path) -> None:
    source.write_text(source.read_text().replace("C1CC", "CCC"))
    out, settings = tmp_path / "out", {**SETTINGS, "model": model_file}
    with pytest.raises(InvalidSmilesError, match=r'in\.csv, line 25: no SMILES\. Pass on_invalid="nan"'):
        embed_files(source, out, **{**settings, "on_invalid": "raise"})
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    assert len(kept) == 1 and not (out / "manifest.json").exists()
    assert embed_files(source, out, **settings).counts["invalid"] == 2
    assert all((out / name).stat().st_mtime_ns == written for name, written in kept.items())
    embed_files(source, tmp_path / "whole", **settings)
    assert contents(out) == contents(tmp_path / "whole")


def test_a_full_disk_stops_the_run_and_what_was_half_written_is_not_counted(
    source: Path, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, write, calls = tmp_path / "out", parts._write_parquet, []

    def fill(path: Path, *tables: Any) -> None:
        calls.append(path)
        if len(calls) == 3:
            path.write_bytes(b"PAR1 half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, *tables)

    with monkeypatch.context() as patch:
        patch.setattr(parts, "_write_parquet", fill)
        with pytest.raises(DataError, match=r"out stopped: .*No space left on device.*Complete parts are kept"):
            embed_files(source, out, model=model_file, **SETTINGS)
    assert len(list(out.glob("part-*.parquet"))) == 2 and len(list(out.glob(f"{UNFINISHED}/*/parts/*.json"))) == 2
    assert not list(out.rglob(".part*"))
    next(out.glob("part-00000-*")).unlink()  # by the user
    embed_files(source, out, model=model_file, **SETTINGS)
    embed_files(source, tmp_path / "whole", model=model_file, **SETTINGS)
    assert contents(out) == contents(tmp_path / "whole")


def test_a_complete_library_is_not_computed_again(
    source: Path, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    first = embed_files(source, out, model=model_file, **SETTINGS)
    monkeypatch.setattr(parts, "_write_parquet", None)
    assert embed_files(source, out, model=model_file, **SETTINGS) == first == LibraryManifest.load(out)


def test_other_settings_are_refused_unless_overwrite_is_given(source: Path, model_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = embed_files(source, out, model=model_file, **SETTINGS)
    with pytest.raises(
        DataError, match=r"out contains a library with different fingerprint \(\w+\), kind \(informative\)\. .*overwrite=True"
    ):
        embed_files(source, out, model=model_file, kind="mean", **SETTINGS)
    (out / "notes.txt").write_text("mine")
    after = embed_files(source, out, model=model_file, kind="mean", overwrite=True, **SETTINGS)
    assert after.digest != before.digest
    assert {*contents(out)} == {"notes.txt", "manifest.json", *(part["name"] for part in after.parts)}
    source.write_text("smiles\nC\n")
    with pytest.raises(DataError, match="different inputs"):
        embed_files(source, out, model=model_file, kind="mean", **SETTINGS)


def test_a_library_stays_complete_until_the_new_one_is(
    source: Path, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, write, calls = tmp_path / "out", parts._write_parquet, []
    before = embed_files(source, out, model=model_file, **SETTINGS)

    def stop(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(parts, "_write_parquet", stop)
        with pytest.raises(KeyboardInterrupt):
            embed_files(source, out, model=model_file, kind="mean", overwrite=True, **SETTINGS)
    assert LibraryManifest.load(out) == before and rows_of(out).num_rows == ROWS
    with pytest.raises(DataError, match=r"unfinished work with different fingerprint \(\w+\), kind \(mean\)"):
        embed_files(source, out, model=model_file, **SETTINGS)
    after = embed_files(source, out, model=model_file, kind="mean", **SETTINGS)
    assert {*contents(out)} == {"manifest.json", *(part["name"] for part in after.parts)} and after != before


def test_unfinished_work_beside_a_complete_library_can_be_dropped(source: Path, model_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = embed_files(source, out, model=model_file, **SETTINGS)
    with pytest.raises(InvalidSmilesError):
        embed_files(source, out, model=model_file, kind="mean", overwrite=True, **{**SETTINGS, "on_invalid": "raise"})
    assert embed_files(source, out, model=model_file, **SETTINGS) == before, "a run without complete parts leaves nothing"
    (out / UNFINISHED).mkdir()
    (out / UNFINISHED / "job.json").write_text('{"job": "0123"}')
    (out / "part-00000-01234567.parquet").touch()
    assert embed_files(source, out, model=model_file, overwrite=True, **SETTINGS) == before
    assert {*contents(out)} == {"manifest.json", *(part["name"] for part in before.parts)}


@pytest.mark.parametrize("content", ["{}", '{"format": "nemo_cmim token store 3"}', "not JSON", "[1]"])
def test_a_manifest_of_another_command_is_not_replaced(content: str, source: Path, model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "manifest.json").write_text(content)
    with pytest.raises(DataError, match=r"contains 'manifest\.json', which `embed` did not write"):
        embed_files(source, tmp_path / "data", model=model_file, overwrite=True, **SETTINGS)
    assert (tmp_path / "data" / "manifest.json").read_text() == content


def test_a_folder_of_other_files_and_one_in_use_are_refused(source: Path, model_file: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"contains 'in\.csv', which `embed` did not write"):
        embed_files(source, tmp_path, model=model_file, overwrite=True, **SETTINGS)
    with lock(tmp_path / ".out.lock", "out", ""), pytest.raises(ConfigError, match=r"out is in use by process \d+"):
        embed_files(source, tmp_path / "out", model=model_file, **SETTINGS)
    with pytest.raises(DataError, match="'-' stands for standard output"):
        embed_files(source, "-", model=model_file, **SETTINGS)


def test_a_file_is_no_folder(source: Path, model_file: Path) -> None:
    with pytest.raises(DataError, match=r"in\.csv is a file, but the embeddings are written to a folder"):
        embed_files(source, source, model=model_file, **SETTINGS)
    with pytest.raises(
        ConfigError, match=r"s3fs.*Run pip install 'nemo_cmim\[data\]', and install the package of the storage: s3fs"
    ):
        embed_files(source, "s3://bucket/out", model=model_file, **SETTINGS)


def test_a_late_task_of_another_run_writes_nothing(
    source: Path, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, write = tmp_path / "out", parts._write_parquet

    def slow(path: Path, *tables: Any) -> None:
        write(path, *tables)
        content = json.loads((out / UNFINISHED / "job.json").read_text())
        (out / UNFINISHED / "job.json").write_text(json.dumps({**content, "job": "f" * 16}))

    monkeypatch.setattr(parts, "_write_parquet", slow)
    with pytest.raises(DataError, match="was taken by another run"):
        embed_files(source, out, model=model_file, **SETTINGS)
    assert not list(out.rglob("*.parquet"))


def test_workers_with_another_version_or_another_model_are_refused(
    source: Path, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "model.nemo"
    copy.write_bytes(model_file.read_bytes())
    with monkeypatch.context() as patch:
        patch.setattr("nemo_cmim.distributed.job.__version__", "9.9.9")
        patch.setattr("nemo_cmim.distributed.embedding.versions", lambda engine: (("nemo_cmim", "0.0.1"),))
        with pytest.raises(ConfigError, match=r"worker on .* has nemo_cmim 9\.9\.9, not 0\.0\.1\. Install the same versions"):
            embed_files(source, tmp_path / "out", model=copy, **SETTINGS)
    loaded = load(copy)
    write_model_file(copy, random_model(3))
    with pytest.raises(CheckpointError, match=r"worker on .* has another model as .*model\.nemo: the fingerprint"):
        embed_files(source, tmp_path / "out", model=loaded, **SETTINGS)
    copy.unlink()
    with pytest.raises(CheckpointError, match=r"worker on .* cannot load the model: There is no model"):
        embed_files(source, tmp_path / "out", model=loaded, **SETTINGS)
    assert not list((tmp_path / "out").iterdir())


def test_the_model_is_loaded_once_in_a_process(
    source: Path, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def counted(name: str, **more: Any) -> Any:
        calls.append(name)
        return load(name, **more)

    monkeypatch.setattr("nemo_cmim.distributed.job.load", counted)
    for kind in ("mean", "informative"):
        embed_files(source, tmp_path / kind, model=model_file, kind=kind, batch_size=7, **SETTINGS)
    assert len(calls) == 2


def test_urls_in_and_out(source: Path, model_file: Path, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    files = fsspec.filesystem("memory")
    files.pipe("/library/in.csv", source.read_bytes())
    manifest = embed_files("memory://library/in.csv", "memory://library/out", model=model_file, **SETTINGS)
    embed_files(source, tmp_path / "out", model=model_file, **SETTINGS)
    expected = rows_of(tmp_path / "out")
    found = [pyarrow.parquet.read_table(files.open(f"/library/out/{part['name']}")) for part in manifest.parts]
    assert pa.concat_tables(found).equals(expected)
    assert {path.rsplit("/", 1)[1] for path in files.find("/library/out")} == {
        "manifest.json",
        *(p["name"] for p in manifest.parts),
    }
    lease = {"owner": "process 1 on node7", "time": time.time()}
    files.pipe(f"/library/out/{LEASE}", json.dumps(lease).encode())
    with pytest.raises(ConfigError, match=r"in use by process 1 on node7, which last reported \d+ s ago"):
        embed_files("memory://library/in.csv", "memory://library/out", model=model_file, **SETTINGS)
    files.pipe(f"/library/out/{LEASE}", json.dumps({**lease, "time": lease["time"] - 1000}).encode())
    files.pipe("/library/out/_lease_terms.json", b"{}")  # of the user
    assert embed_files("memory://library/in.csv", "memory://library/out", model=model_file, **SETTINGS) == manifest
    assert files.exists("/library/out/_lease_terms.json") and not files.exists(f"/library/out/{LEASE}")
    files.rm("/library", recursive=True)


def test_a_file_that_is_given_twice(source: Path, model_file: Path, tmp_path: Path) -> None:
    manifest = embed_files([source, source], tmp_path / "out", model=model_file, **SETTINGS)
    assert [one["rows"] for one in manifest.inputs] == [ROWS, ROWS] and manifest.counts["rows"] == 2 * ROWS


def test_a_lease_is_renewed_but_not_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    files = pytest.importorskip("fsspec").filesystem("memory")
    monkeypatch.setattr("nemo_cmim.distributed.folder._RENEWED_S", 0.01)
    with Folder("memory://renewed").locked():
        (lease,) = files.ls("/renewed", detail=False)
        files.pipe(lease, json.dumps({"owner": "it", "time": 0}).encode())
        while not (json.loads(files.cat(lease))["time"]):
            time.sleep(0.01)
        files.rm(lease)  # by a process that found it expired
        time.sleep(0.1)
        assert not files.exists(lease)


def test_two_runs_that_start_at_the_same_moment_on_an_object_store(
    source: Path, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = pytest.importorskip("fsspec").filesystem("memory")
    check, other = Folder._check_leases, {"owner": "process 1 on node7", "time": time.time()}

    def late(self: Folder, hint: str, own: str = "") -> None:
        if own:  # the other run had not written its lease when this one looked for the first time
            files.pipe(f"/moment/out/{LEASE}", json.dumps(other).encode())
        check(self, hint, own)

    monkeypatch.setattr(Folder, "_check_leases", late)
    with pytest.raises(ConfigError, match="in use by process 1 on node7"):
        embed_files(source, "memory://moment/out", model=model_file, **SETTINGS)
    assert [path.rsplit("/", 1)[1] for path in files.find("/moment/out")] == [LEASE]
    files.rm("/moment", recursive=True)


def test_columns_of_the_result_and_other_columns_in_other_files_are_errors(source: Path, model_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    for header, message in (
        ("smiles,embedding", "already has a column 'embedding'"),
        ("smiles,name", r"other\.csv has the columns 'smiles', 'name', but .*in\.csv has"),
    ):
        other.write_text(f"{header}\nC,1\n")
        inputs = [other] if "embedding" in header else [source, other]
        with pytest.raises(DataError, match=message):
            embed_files(inputs, tmp_path / "out", model=model_file, **SETTINGS)
    other.write_text("smiles,name\n")
    with pytest.raises(DataError, match="there are no rows"):
        embed_files(other, tmp_path / "out", model=model_file, **SETTINGS)
    with pytest.raises(DataError, match=r"missing\.csv is missing"):
        embed_files(tmp_path / "missing.csv", tmp_path / "out", model=model_file, **SETTINGS)


@pytest.mark.parametrize(
    ("smiles", "category"),
    [
        ("C1CC", "not a molecule to RDKit"),
        ("[Xe+9]", "unknown token"),
        ("C" * 300, "too many tokens"),
        ("[CH3:1]C", "atom maps"),
        ("C C", "forbidden character"),
        ("C\u00e9", "forbidden character"),
        ("", "no SMILES"),
        (None, "no SMILES"),
    ],
)
def test_reasons_are_counted_by_category(smiles: str | None, category: str, model_file: Path) -> None:
    assert category_of(load(model_file).invalid_reason(smiles) or "") == category


def test_the_command(source: Path, model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*more: str) -> tuple[int, str]:
        status = main(["embed", str(source), "-o", str(tmp_path / "out"), "--model", str(model_file), *more])
        said = capsys.readouterr()
        return status, said.out + said.err

    status, said = run("--scheduler", "local:1")
    assert status == 2 and "line 9: the SMILES ('C1CC') could not be parsed: unclosed ring. Pass --on-invalid nan" in said
    status, said = run("--scheduler", "local:1", "--on-invalid", "nan", "--part-rows", "25", "--stored", "int8")
    assert status == 0 and "60 rows in 3 files, informative embeddings" in said
    assert "3 rows are invalid, without embedding (1 not a molecule to RDKit, 1 no SMILES, 1 unknown token)" in said
    assert "--part-rows are for a folder" in run("--part-rows", "25")[1]
    assert "excludes --rejects bad.csv" in run("--scheduler", "local", "--rejects", "bad.csv")[1]
    assert "--scheduler must be an address such as tcp://node0:8786" in run("--scheduler", "here")[1]
    for scheduler in ("local:0", "local:-1", "local:"):
        assert "after local: stands a number of processes, at least 1" in run("--scheduler", scheduler)[1]
    assert "overwrite to replace the library" in run("--scheduler", "local:1", "--kind", "mean")[1]
