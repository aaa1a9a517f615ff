"""Nearest molecules of embedded libraries: exact search, the index, and what is refused."""

from __future__ import annotations

import builtins
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from nemo_cmim.cli import main
from nemo_cmim.distributed import embed_files
from nemo_cmim.errors import CheckpointError, ConfigError, DataError, InvalidSmilesError
from nemo_cmim.inference import load, stream
from nemo_cmim.inference.model_file import write_model_file
from nemo_cmim.neighbors import build_index, find_neighbors, index
from nemo_cmim.neighbors.exact import exact_hits
from nemo_cmim.neighbors.library import EmbeddedLibrary
from tests.inference.conftest import random_model

QUERIES = ["CCCO", "c1ccccc1"]


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "random.nemo"
    write_model_file(path, random_model())
    return path


@pytest.fixture(scope="module")
def source(real_smiles: tuple[str, ...], model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 molecules. Those of rows 5 and 6 are invalid, and those of rows 100 to 119 are one molecule."""
    path = tmp_path_factory.mktemp("source") / "in.csv"
    reason = load(model_file).invalid_reason
    smiles = [one for one in real_smiles[:500] if reason(one) is None][:300]
    smiles[5:7], smiles[100:120] = ["C1CC", "C1CC"], ["CCCO"] * 20
    pd.DataFrame({"id": [f"x{i}" for i in range(300)], "smiles": smiles}).to_csv(path, index=False)
    return path


@pytest.fixture(params=["folder", "int8", "file"])
def library(request: pytest.FixtureRequest, source: Path, model_file: Path, tmp_path: Path) -> Path:
    if request.param == "file":
        stream.embed_file(load(model_file), source, tmp_path / "library.parquet", on_invalid="nan")
        return tmp_path / "library.parquet"
    stored = "int8" if request.param == "int8" else "float32"
    settings: dict[str, Any] = {
        "model": model_file,
        "scheduler": "local:1",
        "on_invalid": "nan",
        "part_rows": 64,
        "progress": False,
    }
    embed_files(source, tmp_path / "library", stored=stored, **settings)
    return tmp_path / "library"


def test_a_column_of_the_user_is_no_scale(model_file: Path, tmp_path: Path) -> None:
    rows = pd.DataFrame({"smiles": ["CCO", "CCN"], "embedding_scale": [-1.0, 0.0], "invalid_reason": ["a", "b"]})
    rows.to_parquet(tmp_path / "in.parquet")
    stream.embed_file(load(model_file), tmp_path / "in.parquet", tmp_path / "library.parquet")
    found = find_neighbors("CCO", tmp_path / "library.parquet", 2)
    assert found["library_smiles"].tolist() == ["CCO", "CCN"] and found["similarity"][0] == pytest.approx(1)
    assert found["similarity"].max() <= 1
    assert found["library_embedding_scale"].tolist() == [-1, 0] and found["library_invalid_reason"].tolist() == ["a", "b"]


def test_the_library_is_not_overwritten(model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.csv").write_text("smiles\nCCO\nCCN\n")
    stream.embed_file(load(model_file), tmp_path / "in.csv", tmp_path / "library.parquet")
    embed_files(tmp_path / "in.csv", tmp_path / "folder", model=model_file, scheduler="local:1", progress=False)
    (tmp_path / "library.parquet.index.json").write_text("of its index")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for library, output in (
        ("library.parquet", "library.parquet"),
        ("library.parquet", "library.parquet.index.json"),
        ("folder", "folder/manifest.json"),
        ("folder", "folder/new.parquet"),
    ):
        for options in (["-o", tmp_path / output], ["-o", tmp_path / "out.csv", "--rejects", tmp_path / output]):
            command = [
                "neighbors",
                tmp_path / "in.csv",
                tmp_path / library,
                *options,
                "--on-invalid",
                "nan",
                "--overwrite",
                "--exact",
            ]
            assert main(list(map(str, command))) == 2
            assert re.search("an input|rows are written as", capsys.readouterr().err)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_queries_that_are_no_names_of_files(model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.csv").write_text("smiles\nCCO\nCCN\n")
    stream.embed_file(load(model_file), tmp_path / "in.csv", tmp_path / "library.parquet")
    assert main(["neighbors", "C" * 300, str(tmp_path / "library.parquet")]) == 2
    assert "tokens" in capsys.readouterr().err  # too long for this model, but no error about a file
    assert main(["neighbors", "none.csv", str(tmp_path / "library.parquet")]) == 2
    assert "There is no file 'none.csv', and the SMILES ('none.csv') could not be parsed" in capsys.readouterr().err
    assert main(["neighbors", "", str(tmp_path / "library.parquet")]) == 2
    assert "The query is empty" in capsys.readouterr().err


def cosines(source: Path, model_file: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """The rows of the library, and their similarities to the queries, [Q, N]; -inf for invalid ones."""
    frame, model = pd.read_csv(source), load(model_file)
    vectors, _ = model.embed_or_explain(frame["smiles"].tolist())[:2]
    queries = model.embed(QUERIES)
    products = queries @ vectors.T / np.linalg.norm(queries, axis=1)[:, None] / np.linalg.norm(vectors, axis=1)
    return frame, np.nan_to_num(products, nan=-np.inf)


def check_found(found: pd.DataFrame, source: Path, model_file: Path, k: int, tolerance: float, recall: float = 1) -> None:
    frame, similarities = cosines(source, model_file)
    assert list(found.columns) == ["query", "smiles", "rank", "similarity", "library_id", "library_smiles"]
    assert len(found) == k * len(QUERIES)
    for i, smiles in enumerate(QUERIES):
        mine = found[found["query"] == i]
        assert (mine["smiles"] == smiles).all() and mine["rank"].tolist() == list(range(1, k + 1))
        rows = mine["library_id"].str[1:].astype(int).tolist()
        assert len(set(rows)) == k and frame["smiles"][rows].tolist() == mine["library_smiles"].tolist()
        np.testing.assert_allclose(mine["similarity"], similarities[i, rows], atol=tolerance)
        farthest = np.sort(similarities[i])[::-1][k - 1]
        assert (mine["similarity"] >= farthest - tolerance).mean() >= recall
        assert (np.diff(mine["similarity"]) <= 0).all()


def test_exact_search_and_the_index_find_the_nearest_molecules(library: Path, source: Path, model_file: Path) -> None:
    rounding = 2e-3 if EmbeddedLibrary(library).embedding["stored"] == "int8" else 1e-5
    check_found(find_neighbors(QUERIES, library, 25), source, model_file, 25, rounding)
    built = build_index(library, shard_rows=130)
    assert built.vectors == 298 and built.bytes > 0 and built.queries >= 197 and built.recall > 0.8
    check_found(find_neighbors(QUERIES, library, 25), source, model_file, 25, rounding + 2e-3, recall=0.5)
    check_found(find_neighbors(QUERIES, library, 25, exact=True), source, model_file, 25, rounding)
    assert find_neighbors("CCCO", library, 3)["library_smiles"].tolist() == ["CCCO"] * 3
    assert len(find_neighbors("CCCO", library, 1000, exact=True)) == 298
    every = find_neighbors(QUERIES, library, 1000)  # all molecules are asked for, so the index is not used
    assert (every.groupby("query")["library_id"].nunique() == 298).all() and not every["library_id"].isin(["x5", "x6"]).any()
    some = find_neighbors(QUERIES, library, 1000, exact=False)  # an index may not reach all rows
    assert some.groupby("query")["library_id"].nunique().between(200, 298).all()


def test_the_recall_is_measured_and_counts_equal_vectors(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hits = index.Index.hits

    def worse(self: Any, queries: Any, k: int) -> Any:
        found = hits(self, queries, k)
        found.rows[:, 6:] = -1  # of 10 other rows, at most 5 are found
        return found

    monkeypatch.setattr(index.Index, "hits", worse)
    assert 0.45 < build_index(library).recall <= 0.6
    monkeypatch.setattr(index.Index, "hits", lambda self, queries, k: exact_hits(EmbeddedLibrary(library), queries, k))
    assert build_index(library, overwrite=True).recall == 1


def test_an_index_of_rows_without_embedding(model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "in.smi").write_text("C1CC\nC1CC\nC1CC\nCCO\n")
    settings: dict[str, Any] = {"model": model_file, "scheduler": "local:1", "on_invalid": "nan", "progress": False}
    embed_files(tmp_path / "in.smi", tmp_path / "out", **settings)
    assert build_index(tmp_path / "out", shard_rows=2)[:3:2] == (1, 1.0)
    assert find_neighbors("CCO", tmp_path / "out")["library_smiles"].tolist() == ["CCO"]
    (tmp_path / "in.smi").write_text("C1CC\n")
    embed_files(tmp_path / "in.smi", tmp_path / "none", **settings)
    with pytest.raises(DataError, match="no row with an embedding"):
        build_index(tmp_path / "none")
    assert not list((tmp_path / "none").glob("index*"))
    assert find_neighbors("CCO", tmp_path / "none").empty


def test_an_interrupted_index_is_resumed(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, calls = index._graph, []

    def stopping(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return graph(*arguments)

    monkeypatch.setattr(index, "_graph", stopping)
    with pytest.raises(KeyboardInterrupt):
        build_index(library, shard_rows=100)
    assert not index.has_index(library)
    assert build_index(library, shard_rows=100).vectors == 298 and len(calls) == 4
    with pytest.raises(DataError, match=r"already has an index\. Pass overwrite=True"):
        build_index(library)
    build_index(library, overwrite=True, stored="int8")
    place = index._place(library)
    assert len(list(place.parent.glob(f"{place.name}-*.usearch"))) == 1
    assert not list(place.parent.glob("*.lock"))


def test_an_index_of_another_library_is_refused(library: Path, source: Path, model_file: Path, tmp_path: Path) -> None:
    build_index(library)
    path = next(index._place(library).parent.glob("*.usearch"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"cannot be read: .* has .* bytes, not .*nemo-cmim index .* --overwrite"):
        find_neighbors("CCO", library)
    build_index(library, overwrite=True)
    (tmp_path / "other.csv").write_text("\n".join(source.read_text().splitlines()[:50]))
    if library.is_dir():
        embed_files(
            tmp_path / "other.csv", library, model=model_file, scheduler="local:1", on_invalid="nan", overwrite=True, progress=False
        )
    else:
        stream.embed_file(load(model_file), tmp_path / "other.csv", library, on_invalid="nan", overwrite=True)
    with pytest.raises(DataError, match="is of another library"):
        find_neighbors("CCO", library)
    assert len(find_neighbors("CCO", library, 2, exact=True)) == 2


def test_other_models_and_other_files_are_refused(library: Path, model_file: Path, source: Path, tmp_path: Path) -> None:
    write_model_file(tmp_path / "other.nemo", random_model(3))
    with pytest.raises(
        CheckpointError, match=r"was embedded with the model .*random\.nemo: the fingerprint .* but that of .*other\.nemo"
    ):
        find_neighbors("CCO", library, model=tmp_path / "other.nemo")
    with pytest.raises(InvalidSmilesError, match=r"query at index 0 cannot be used: .*unclosed ring\. Correct or remove it"):
        find_neighbors("C1CC", library)
    with pytest.raises(InvalidSmilesError, match=r"query at index 1 cannot be used: the SMILES must be text, found None"):
        find_neighbors(["CCO", None], library)  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="k must be"):
        find_neighbors("CCO", library, 0)
    with pytest.raises(DataError, match=r"missing\.parquet is missing\. Name a folder"):
        find_neighbors("CCO", tmp_path / "missing.parquet")
    with pytest.raises(DataError, match=r"no manifest\.json"):
        find_neighbors("CCO", tmp_path)
    pyarrow.parquet.write_table(pa.table({"smiles": ["C"]}), tmp_path / "plain.parquet")
    with pytest.raises(DataError, match="does not say how it was embedded"):
        find_neighbors("CCO", tmp_path / "plain.parquet")
    with pytest.raises(DataError, match=r"in\.csv"):
        find_neighbors("CCO", source)
    with pytest.raises(ConfigError, match="a URL cannot be"):
        build_index("memory://library")


def test_a_package_that_is_missing_is_named(
    library: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = builtins.__import__

    def no_usearch(name: str, *arguments: Any, **more: Any) -> Any:
        if name.startswith("usearch"):
            raise ModuleNotFoundError("No module named 'usearch'", name="usearch")
        return original(name, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "__import__", no_usearch)
        with pytest.raises(ConfigError, match=r"requires usearch, which is not installed: pip install 'nemo_cmim\[search\]'"):
            build_index(library)
        assert len(find_neighbors("CCO", library, 2)) == 2
    build_index(library)
    monkeypatch.setattr(builtins, "__import__", no_usearch)
    assert main(["neighbors", "CCO", str(library)]) == 2
    assert "pass --exact to search without it" in capsys.readouterr().err
    assert len(find_neighbors("CCO", library, 2, exact=True)) == 2


def test_the_commands(library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: str) -> tuple[int, str, str]:
        status = main(list(words))
        said = capsys.readouterr()
        return status, said.out, said.err

    status, out, err = run("neighbors", "CCCO", str(library), "-k", "2")
    assert status == 0 and "exact search" in err
    assert out.splitlines()[0] == '"smiles","rank","similarity","library_id","library_smiles"' and len(out.splitlines()) == 3
    status, out, _ = run("index", str(library))
    assert status == 0 and "index of 298 vectors" in out and "recall@10 " in out
    (tmp_path / "queries.csv").write_text("name,smiles\na,CCCO\nb,C1CC\nc,CCN\n")
    status, out, err = run("neighbors", str(tmp_path / "queries.csv"), str(library), "-o", str(tmp_path / "found.csv"))
    assert status == 2 and "queries.csv, line 3" in err and "--on-invalid nan" in err
    status, out, err = run(
        "neighbors", str(tmp_path / "queries.csv"), str(library), "-o", str(tmp_path / "found.csv"), "--on-invalid", "nan"
    )
    assert status == 0 and "searched the index" in err and "21 rows from 3" in out
    frame = pd.read_csv(tmp_path / "found.csv")
    assert frame.groupby("name").size().to_dict() == {"a": 10, "b": 1, "c": 10}
    assert frame["rank"].tolist()[:10] == list(range(1, 11)) and frame["library_id"].isna().sum() == 1
