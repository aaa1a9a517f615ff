"""`nemo-cmim decode`: latents in every form, the other columns and the order of the rows are kept, and a row that cannot be decoded is
an error with its place or a row without SMILES."""

from __future__ import annotations

import dataclasses
import gzip
import io
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nemo_cmim.cli import main
from nemo_cmim.inference import CMIMModel
from nemo_cmim.inference.model_file import read_model_file, write_model_file
from nemo_cmim.streaming import rows

pytestmark = pytest.mark.filterwarnings("ignore:.*had not ended")
WIDTH = 16
LATENTS = np.random.default_rng(0).standard_normal((7, WIDTH)).astype(np.float32)
IDS = ["007", "b", "", "d e", 'f"g', "h,i", "ü"]


@pytest.fixture
def run(model_file: Path):
    def run(*arguments: object) -> int:
        return main(["decode", *map(str, arguments), "--model", str(model_file)])

    return run


@pytest.fixture(scope="module")
def expected(model: CMIMModel) -> list[str]:
    with pytest.warns(UserWarning, match="had not ended"):
        found = model.decode(LATENTS)
    assert len(set(found)) > 4, "rows in a wrong order would not be noticed"
    return found


def write(path: Path, latents: np.ndarray = LATENTS, **columns: list[str]) -> Path:
    name = path.name
    if name.endswith(".npy"):
        np.save(path, latents)
    elif name.endswith(".npz"):
        np.savez(path, embedding=latents, **{key: np.array(column) for key, column in columns.items()})
    elif name.endswith(".parquet"):
        pd.DataFrame({**columns, "embedding": list(latents)}).to_parquet(path)
    else:
        numbers = {f"e{i}": column for i, column in enumerate(latents.T)}
        pd.DataFrame({**columns, **numbers, "last": "x"}).to_csv(path, index=False, sep="\t" if ".tsv" in name else ",")
    return path


@pytest.mark.parametrize("name", ["in.npz", "in.parquet", "in.csv", "in.tsv", "in.csv.gz", "in.parquet.gz"])
@pytest.mark.parametrize("out", ["out.parquet", "out.csv"])
def test_other_columns_and_the_order_are_kept(tmp_path: Path, run, expected: list[str], name: str, out: str) -> None:
    source = write(tmp_path / name.replace(".parquet.gz", ".parquet"), id=IDS)
    if name == "in.parquet.gz":
        source = tmp_path / name
        source.write_bytes(gzip.compress((tmp_path / "in.parquet").read_bytes()))
    assert run(source, "-o", tmp_path / out) == 0
    table = (
        pd.read_parquet(tmp_path / out) if out == "out.parquet" else pd.read_csv(tmp_path / out, dtype=str, keep_default_na=False)
    )
    assert list(table) == (["id", "last", "smiles"] if "csv" in name or "tsv" in name else ["id", "smiles"])
    assert list(table["id"]) == IDS and list(table["smiles"]) == expected


@pytest.mark.parametrize("latents", [LATENTS, LATENTS[:, None], LATENTS.astype(np.float64)], ids=["N, D", "N, K, D", "float64"])
def test_npy(tmp_path: Path, run, expected: list[str], latents: np.ndarray) -> None:
    assert run(write(tmp_path / "in.npy", latents), "-o", tmp_path / "out.csv") == 0
    table = pd.read_csv(tmp_path / "out.csv", keep_default_na=False)
    assert list(table) == ["smiles"] and list(table["smiles"]) == expected


def test_standard_input_and_output(
    tmp_path: Path, run, expected: list[str], monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    content = write(tmp_path / "in.csv", id=IDS).read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert run("-", "-o", "-") == 0
    printed = capfdbinary.readouterr()
    assert list(pd.read_csv(io.BytesIO(printed.out), keep_default_na=False)["smiles"]) == expected
    assert b"standard output: 7 rows from 7" in printed.err


@pytest.mark.parametrize("name", ["in.csv", "in.npz", "in.parquet"])
def test_what_embed_writes_is_decoded_to_reconstructions(
    tmp_path: Path, run, model_file: Path, model: CMIMModel, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    smiles = ["CCO", "c1ccccc1O", "CC(=O)N", "OCC"]
    pd.DataFrame({"SMILES": smiles, "id": range(4)}).to_csv(tmp_path / "molecules.csv", index=False)
    command = ["embed", str(tmp_path / "molecules.csv"), "-o", str(tmp_path / name), "--kind", "mean", "--model", str(model_file)]
    assert main(command) == 0
    assert run(tmp_path / name, "-o", tmp_path / "out.csv") == 0
    assert "the new column is called 'decoded'" in capsys.readouterr().err
    table = pd.read_csv(tmp_path / "out.csv", keep_default_na=False)
    assert list(table) == ["SMILES", "id", "decoded"] and list(table["SMILES"]) == smiles
    with pytest.warns(UserWarning, match="had not ended"):
        assert list(table["decoded"]) == model.reconstruct(smiles)


def test_embeddings_of_another_model_or_kind_are_an_error(
    tmp_path: Path, run, model_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Parquet file of `embed` says what its vectors are."""
    (tmp_path / "molecules.csv").write_text("smiles\nCCO\nCCN\n")
    copy = tmp_path / "copy.nemo"
    content = read_model_file(model_file)
    key = next(iter(content.weights))
    write_model_file(copy, dataclasses.replace(content, weights={**content.weights, key: content.weights[key] + 1}))
    for name, options in (("other", ["--kind", "mean", "--model", copy]), ("layers", ["--layers", "1", "--model", model_file])):
        command = ["embed", tmp_path / "molecules.csv", "-o", tmp_path / f"{name}.parquet", *options]
        assert main(list(map(str, command))) == 0
        capsys.readouterr()
        assert run(tmp_path / f"{name}.parquet", "-o", tmp_path / "out.csv", "--on-invalid", "nan") == 2
    assert 'layers.parquet holds embeddings with kind="informative", which cannot be decoded' in capsys.readouterr().err
    assert run(tmp_path / "other.parquet", "-o", tmp_path / "out.csv") == 2
    printed = capsys.readouterr().err
    assert f"other.parquet was embedded with the model {copy}, and " in printed and f"Pass --model {copy}" in printed
    assert not (tmp_path / "out.csv").exists()
    assert main(["decode", str(tmp_path / "other.parquet"), "-o", str(tmp_path / "out.csv"), "--model", str(copy)]) == 0


def test_several_for_each_latent_have_a_rank(tmp_path: Path, run, model: CMIMModel) -> None:
    write(tmp_path / "in.npz", id=IDS)
    assert (
        run(tmp_path / "in.npz", "-o", tmp_path / "out.csv", "--beam-size", 3, "--n-best", 2, "--grammar", "--max-tokens", 9) == 0
    )
    table = pd.read_csv(tmp_path / "out.csv", keep_default_na=False, dtype={"id": str})
    with pytest.warns(UserWarning, match="had not ended"):
        found = model.decode(LATENTS, beam_size=3, n_best=2, grammar=True, max_tokens=9)
    rows = [(name, text, rank) for name, texts in zip(IDS, found) for rank, text in enumerate(texts, 1)]
    assert [tuple(row) for row in table[["id", "smiles", "rank"]].itertuples(index=False)] == rows


def test_draws_do_not_depend_on_the_size_of_blocks(tmp_path: Path, run, model: CMIMModel, monkeypatch: pytest.MonkeyPatch) -> None:
    latents = np.tile(LATENTS, (3, 1))
    latents[4] = np.nan
    write(tmp_path / "in.npy", latents)
    options = ("--temperature", "1.3", "--top-k", 50, "--top-p", 0.99, "--n-best", 3, "--seed", 5, "--on-invalid", "nan")
    written = []
    for size in (1000, 4, 1):
        monkeypatch.setattr(rows, "ROWS_AT_ONCE", size)
        assert run(tmp_path / "in.npy", "-o", tmp_path / f"{size}.csv", *options) == 0
        written.append((tmp_path / f"{size}.csv").read_text())
    assert written[0] == written[1] == written[2]
    with pytest.warns(UserWarning, match="had not ended"):
        found = model.decode(latents[:4], temperature=1.3, top_k=50, top_p=0.99, n_best=3, seed=5)
    table = pd.read_csv(tmp_path / "4.csv", keep_default_na=False)
    assert list(table["smiles"][:12]) == [text for texts in found for text in texts] and table["smiles"][12] == ""
    assert run(tmp_path / "in.npy", "-o", tmp_path / "other.csv", *options, "--seed", 6) == 0
    assert (tmp_path / "other.csv").read_text() != written[0]


def test_rows_that_cannot_be_decoded(tmp_path: Path, run, expected: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    bad = LATENTS.copy()
    bad[1], bad[3, 2], bad[5, 0] = np.nan, np.inf, 1e6
    write(tmp_path / "in.parquet", bad, id=IDS, smiles=list("CNOFIPS"))
    assert run(tmp_path / "in.parquet", "-o", tmp_path / "out.csv") == 2
    assert (
        "in.parquet, row 2: the latent contains NaN or infinity" in (printed := capsys.readouterr().err)
        and "--on-invalid nan" in printed
    )
    assert not (tmp_path / "out.csv").exists()
    command = (tmp_path / "in.parquet", "-o", tmp_path / "out.csv", "--on-invalid", "nan", "--rejects", tmp_path / "bad.csv")
    assert run(*command) == 0
    assert "3 rows are invalid and have no result" in capsys.readouterr().err
    table = pd.read_csv(tmp_path / "out.csv", keep_default_na=False)
    assert (
        list(table["decoded"]) == ["" if i in (1, 3, 5) else text for i, text in enumerate(expected)] and list(table["id"]) == IDS
    )
    rejects = pd.read_csv(tmp_path / "bad.csv")
    assert list(rejects["row"]) == [2, 4, 6] and list(rejects["smiles"]) == ["N", "F", "P"]
    assert "1e+06, but latents are numbers of the order of 1" in rejects["reason"][2]


def test_cells_of_text_that_are_not_numbers(tmp_path: Path, run, expected: list[str]) -> None:
    lines = write(tmp_path / "in.csv", id=IDS).read_text().splitlines()
    for number, cell in {2: "abc", 4: "", 6: " 1.5 "}.items():
        fields = lines[number].split(",")
        lines[number] = ",".join([*fields[:3], cell, *fields[4:]])
    lines[5] = ""
    (tmp_path / "in.csv").write_text("\n".join(lines) + "\n")
    command = (tmp_path / "in.csv", "-o", tmp_path / "out.csv", "--on-invalid", "nan", "--rejects", tmp_path / "bad.csv")
    assert run(*command) == 0
    rejects = pd.read_csv(tmp_path / "bad.csv")
    assert list(rejects["row"]) == [3, 5, 6]
    assert list(rejects["reason"]) == ["the column 'e2' contains 'abc', not a number", "no number in 'e2'", "no number in 'e0'"]
    found = list(pd.read_csv(tmp_path / "out.csv", keep_default_na=False)["smiles"])
    assert len(found) == 7 and found[0] == expected[0] and found[1] == found[3] == found[4] == "" and found[5] != ""


def test_lists_of_parquet_that_are_not_latents(tmp_path: Path, run, expected: list[str]) -> None:
    lists = [list(map(float, row)) for row in LATENTS]
    lists[1], lists[2], lists[4] = None, lists[2][:-1], [None, *lists[4][1:]]
    pd.DataFrame({"embedding": lists, "id": IDS}).to_parquet(tmp_path / "in.parquet")
    command = (tmp_path / "in.parquet", "-o", tmp_path / "out.csv", "--on-invalid", "nan", "--rejects", tmp_path / "bad.csv")
    assert run(*command) == 0
    found = list(pd.read_csv(tmp_path / "out.csv", keep_default_na=False)["smiles"])
    assert found == ["" if i in (1, 2, 4) else text for i, text in enumerate(expected)]
    first, second, third = pd.read_csv(tmp_path / "bad.csv")["reason"]
    assert first == "no latent" and second == "the latent has 15 numbers, but those of this model have 16" and "NaN" in third


def test_parquet_with_a_column_for_each_number(tmp_path: Path, run, expected: list[str]) -> None:
    numbers = {f"e{i}": column for i, column in enumerate(LATENTS.T)}
    pd.DataFrame({"id": IDS, **numbers, "e99": 1}).to_parquet(tmp_path / "in.parquet")
    assert run(tmp_path / "in.parquet", "-o", tmp_path / "out.parquet") == 0
    table = pd.read_parquet(tmp_path / "out.parquet")
    assert list(table) == ["id", "e99", "smiles"] and list(table["smiles"]) == expected


def wrong_files(folder: Path) -> dict[str, str]:
    """Files that are not latents of this model, with parts of the messages."""
    write(folder / "wide.npy", np.zeros((2, 32), np.float32))
    write(folder / "wide.csv", np.zeros((2, 32), np.float32))
    np.save(folder / "one.npy", np.zeros(WIDTH, np.float32))
    np.save(folder / "text.npy", np.array([["a", "b"]]))
    np.save(folder / "objects.npy", np.array([[{}]]), allow_pickle=True)
    np.save(folder / "columns.npy", np.asfortranarray(LATENTS))
    np.savez(folder / "names.npz", a=LATENTS, b=LATENTS)
    np.save(folder / "whole.npy", LATENTS)
    (folder / "cut.npy").write_bytes((folder / "whole.npy").read_bytes()[:-20])
    (folder / "empty.npy").write_bytes(b"")
    (folder / "blank.csv").write_text("\n")
    (folder / "cut.npz").write_bytes(write(folder / "whole.npz").read_bytes()[:-30])
    pd.DataFrame({"smiles": ["C"]}).to_parquet(folder / "smiles.parquet")
    pd.DataFrame({"embedding": ["C"]}).to_parquet(folder / "text.parquet")
    (folder / "smiles.csv").write_text("smiles,id\nC,1\n")
    np.savetxt(folder / "numbers.csv", LATENTS, delimiter=",")
    write(folder / "header.csv", LATENTS[:0])
    np.save(folder / "none.npy", LATENTS[:0])
    (folder / "ragged.csv").write_text((write(folder / "good.csv").read_text()) + "1,2\n")
    (folder / "twice.csv").write_text("id,id,e0\n1,2,3\n")
    return {
        "wide.npy": "latents of 32 numbers, but those of this model have 16",
        "wide.csv": "latents of 32 numbers, but those of this model have 16",
        "one.npy": "latents must be numbers [N, K * D], found float32 [16]",
        "text.npy": "latents must be numbers [N, K * D]",
        "objects.npy": "holds object, not numbers or text",
        "columns.npy": "is stored by columns. Save numpy.ascontiguousarray(array)",
        "names.npz": "has the arrays 'a', 'b', none of which is called 'embedding'",
        "cut.npy": "cannot be read after row 0: the array ends before row 7",
        "empty.npy": "empty.npy is empty. Latents are an array",
        "blank.csv": "blank.csv is empty",
        "cut.npz": "is damaged, truncated",
        "smiles.parquet": "has no column 'embedding'; its columns are 'smiles'",
        "text.parquet": "the column 'embedding' holds",
        "smiles.csv": "has no column 'e0'; its first line is 'smiles,id'",
        "numbers.csv": "has no column 'e0'; its first line is '1.2573",
        "header.csv": "holds no rows",
        "none.npy": "holds no rows",
        "ragged.csv": "line 9: it has 2 columns, but the file has 17",
        "twice.csv": "has 2 columns 'id'",
        "missing.npy": "is missing; check the path",
    }


def test_wrong_files_are_one_line_and_leave_no_output(tmp_path: Path, run, capsys: pytest.CaptureFixture[str]) -> None:
    messages = wrong_files(tmp_path)
    before = sorted(tmp_path.iterdir())
    for name, message in messages.items():
        assert run(tmp_path / name, "-o", tmp_path / "out.csv", "--on-invalid", "nan") == 2, name
        printed = capsys.readouterr().err.split("\n")[-2]
        assert printed.startswith("nemo-cmim decode: ") and name in printed and message in printed, printed
    assert sorted(tmp_path.iterdir()) == before


def test_informative_embeddings_are_an_error(tmp_path: Path, run, model: CMIMModel, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "in.npy", model.embed(["CCO", "c1ccccc1O", "CC(=O)N"]))
    assert run(tmp_path / "in.npy", "-o", tmp_path / "out.csv", "--on-invalid", "nan") == 2
    assert (
        "in.npy, row 1: this is an informative embedding" in (printed := capsys.readouterr().err) and "3 of the 3 rows" in printed
    )


@pytest.mark.parametrize(("name", "place"), [("in.npy", "in.npy, row 6:"), ("in.csv", "in.csv, line 7:")])
def test_the_row_of_an_informative_embedding_is_that_of_the_file(
    tmp_path: Path,
    run,
    model: CMIMModel,
    name: str,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(rows, "ROWS_AT_ONCE", 4)
    latents = LATENTS.copy()
    latents[0], latents[5:] = np.nan, model.embed(["CCO", "c1ccccc1O"])
    write(tmp_path / name, latents)
    assert run(tmp_path / name, "-o", tmp_path / "out.csv", "--on-invalid", "nan") == 2
    assert f"{place} this is an informative embedding" in (printed := capsys.readouterr().err) and "2 of the 3 rows" in printed
    assert not (tmp_path / "out.csv").exists()


def test_an_array_that_is_not_a_column_is_left_out_with_a_warning(tmp_path: Path, run, expected: list[str]) -> None:
    np.savez(tmp_path / "in.npz", embedding=LATENTS, variance=LATENTS, names=np.array(["a", "b"]), id=np.arange(7))
    with pytest.warns(UserWarning) as caught:
        assert run(tmp_path / "in.npz", "-o", tmp_path / "out.parquet") == 0
    left_out = [str(one.message) for one in caught if "left out" in str(one.message)]
    assert len(left_out) == 2 and "'variance'" in "".join(left_out) and "'names'" in "".join(left_out)
    table = pd.read_parquet(tmp_path / "out.parquet")
    assert list(table["id"]) == list(range(7)) and list(table["smiles"]) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--beam-size", 11), "--beam-size must be at most 10, found 11"),
        (("--n-best", 0), "--n-best must be at least 1, found 0"),
        (("--n-best", 2), "--n-best 2 is more than --beam-size 1. Pass --beam-size 2, or draw sequences with --temperature 1.0"),
        (("--top-k", 0, "--temperature", 1), "--top-k must be at least 1, found 0"),
        (("--top-k", 3), "--top-k 3 has no effect without a temperature"),
        (("--max-tokens", -1), "--max-tokens must be at least 1, found -1"),
        (("--seed", -1, "--temperature", 1), "--seed must be at least 0, found -1"),
        (("--temperature", 1, "--beam-size", 4), "--temperature 1.0 draws tokens, and --beam-size 4 searches"),
        (("--seed", 1), "--seed 1 has no effect without a temperature. Pass --temperature 1.0"),
        (("--temperature", 0), "--temperature must be a number above 0, found 0"),
        (("--temperature", "nan"), "--temperature must be a number above 0, found nan"),
        (("--top-p", 2, "--temperature", 1), "--top-p must be a number above 0 and at most 1, found 2"),
    ],
)
def test_wrong_options(tmp_path: Path, run, options: tuple[object, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "in.npy")
    assert run(tmp_path / "in.npy", "-o", tmp_path / "out.csv", *options) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out.csv").exists()
