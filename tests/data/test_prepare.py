from __future__ import annotations

import csv
import gzip
import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import Crippen, Descriptors

from nemo_cmim import cli
from nemo_cmim.data.prepare import prepare
from nemo_cmim.data.store import SPLITS, TokenStore
from nemo_cmim.errors import ConfigError, DataError
from nemo_cmim.tokenizers import SmilesTokenizer, Vocabulary, shipped_vocabulary


def smiles_in(folder: Path, split: str) -> list[str]:
    if not json.loads((folder / "manifest.json").read_text())["splits"][split]["molecules"]:
        return []
    store = TokenStore.open(folder, split)
    tokenizer = SmilesTokenizer(store.vocabulary)
    return [tokenizer.decode(store.tokens(i)) for i in range(len(store))]


def rejected_in(folder: Path) -> list[dict[str, str]]:
    with gzip.open(folder / "rejected.tsv.gz", "rt", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def write_smi(path: Path, smiles: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in ["smiles zinc_id", *(f"{s} {i}" for i, s in enumerate(smiles))]))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_tranche_files_end_to_end(shared_data: Path, tmp_path: Path) -> None:
    """Against a loop over the same files: what is kept, what is rejected, and where it goes."""
    samples = shared_data / "zinc" / "tranche_samples"
    paths = [samples / name for name in ("GFAB_truncated_tail.smi", "JBAA.smi", "megamolbart_x000.csv", "BJAA.smi")]
    paths.append(Path(shutil.copy(paths[0], tmp_path / "again.smi")))
    manifest = prepare(paths, tmp_path / "out", valid_fraction=0.1, test_fraction=0.1, processes=1)

    expected, read = {}, 0
    for path in paths:
        for line in path.read_text().splitlines()[1:]:
            read += 1
            smiles = line.split(",")[1] if path.suffix == ".csv" else line.split()[0]
            mol = Chem.MolFromSmiles(smiles)
            if line != "CN(CC(=O)Nc1ccc(F)c(F)c1F)C(=O)NCC" and Descriptors.MolWt(mol) <= 500 and Crippen.MolLogP(mol) <= 5:
                expected[Chem.MolToSmiles(mol)] = True
    found = {split: smiles_in(tmp_path / "out", split) for split in SPLITS}
    assert sorted(s for split in SPLITS for s in found[split]) == sorted(expected)
    assert found["train"] == [s for s in expected if s in set(found["train"])]  # in the order of the inputs
    assert all(len(found[split]) > 50 for split in SPLITS)

    assert manifest.counts == {"read": read, "kept": len(expected), "rejected": read - len(expected)}
    assert sum(part["read"] for part in manifest.inputs) == read
    for part in manifest.inputs:
        assert part["read"] == part["kept"] + sum(part["rejected"].values())
    assert manifest.inputs[0]["rejected"]["line cut short"] == 1
    reasons = Counter(row["reason"].split(":")[0] for row in rejected_in(tmp_path / "out"))
    assert reasons == manifest.rejected
    assert set(reasons) == {"duplicate", "molecular weight above 500", "line cut short"}
    for split in SPLITS:
        lengths = Counter(np.asarray(TokenStore.open(tmp_path / "out", split).lengths).tolist())
        assert manifest.splits[split] == {
            "molecules": len(found[split]),
            "tokens": sum(k * n for k, n in lengths.items()),
            "lengths": {str(k): lengths[k] for k in sorted(lengths)},
            "shards": [{"name": f"{split}-00000", "molecules": len(found[split])}],
        }


def test_the_2018_style_loses_no_molecule(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "zinc" / "tranche_samples" / "AAAA_2018_crlf_paddedids.smi"
    manifest = prepare([path], tmp_path / "out", limit=300, processes=1)
    expected = {Chem.CanonSmiles(line.split()[0]) for line in path.read_text().splitlines()[1:301]}
    assert {s for split in SPLITS for s in smiles_in(tmp_path / "out", split)} == expected
    assert manifest.counts["read"] == 300


def test_every_rejected_line_is_kept_with_its_reason(tmp_path: Path) -> None:
    heavy, greasy = "C" * 36, "CCCCCCCCCCCCCCCC(=O)O"
    lines = ["smiles,name", "CCO,a", "OCC,b", "C1CC,c", ",d", '"CC[Og]","tab\there"', f"{heavy},e", f"{greasy},f", "C,g,h"]
    (tmp_path / "in.csv").write_text("\n".join(lines) + "\n")
    manifest = prepare([tmp_path / "in.csv"], tmp_path / "out", max_molecular_weight=400.0, processes=1)
    rows = rejected_in(tmp_path / "out")
    assert [(int(row["line"]), row["reason"]) for row in rows] == [
        (3, "duplicate"),
        (4, "not a molecule to RDKit"),
        (5, "no SMILES"),
        (6, "unknown token: [Og]"),
        (7, "molecular weight above 400: 506.99"),
        (8, "logP above 5: 5.552"),
        (9, "wrong number of columns"),
    ]
    assert [row["text"] for row in rows] == lines[2:]
    assert {row["file"] for row in rows} == {str(tmp_path / "in.csv")}
    assert manifest.unknown_tokens == {"[Og]": 1}
    assert manifest.counts == {"read": 8, "kept": 1, "rejected": 7}


def test_any_number_of_processes_gives_the_same_bytes(
    tmp_path: Path, made_up_smiles: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nemo_cmim.data.prepare._CHUNK", 20)
    path = write_smi(tmp_path / "in.smi", [*made_up_smiles, "C1CC", *made_up_smiles[:100]])
    for processes in (1, 2):
        prepare([path], tmp_path / f"out{processes}", valid_fraction=0.2, processes=processes)
    assert contents(tmp_path / "out1") == contents(tmp_path / "out2")
    assert len(contents(tmp_path / "out1")) == 9


def test_a_molecule_is_in_one_split_whatever_the_run(tmp_path: Path, made_up_smiles: list[str], prepared: Path) -> None:
    """Other files, another order, another spelling: the same split, and never two."""
    respelled = [Chem.MolToSmiles(Chem.MolFromSmiles(s), doRandom=True) for s in made_up_smiles[300:0:-1]]
    path = write_smi(tmp_path / "in.smi", respelled)
    prepare([path], tmp_path / "out", valid_fraction=0.1, test_fraction=0.1, processes=1)
    splits = {smiles: split for split in SPLITS for smiles in smiles_in(prepared, split)}
    assert len(splits) == sum(len(smiles_in(prepared, split)) for split in SPLITS) == len(made_up_smiles)
    again = {smiles: split for split in SPLITS for smiles in smiles_in(tmp_path / "out", split)}
    assert len(again) == 300
    assert again.items() <= splits.items()


def test_the_limit_counts_lines_over_all_inputs(tmp_path: Path) -> None:
    first, second = write_smi(tmp_path / "a.smi", ["C", "C", "CC"]), write_smi(tmp_path / "b.smi", ["CCC", "CCCC"])
    manifest = prepare([first, second], tmp_path / "out", limit=4, processes=1)
    assert manifest.counts == {"read": 4, "kept": 3, "rejected": 1}
    assert [part["read"] for part in manifest.inputs] == [3, 1]


def test_an_input_named_twice_is_read_once(tmp_path: Path) -> None:
    path = write_smi(tmp_path / "a.smi", ["C", "CC"])
    assert prepare([path, str(path)], tmp_path / "out", processes=1).counts == {"read": 2, "kept": 2, "rejected": 0}


def test_another_vocabulary(tmp_path: Path) -> None:
    tokens = [token for token in shipped_vocabulary().tokens if token != "O"]
    Vocabulary(tuple(tokens)).save(tmp_path / "no_oxygen.txt")
    path = write_smi(tmp_path / "a.smi", ["CCO", "CCN", "OCO"])
    manifest = prepare([path], tmp_path / "out", vocabulary=tmp_path / "no_oxygen.txt", processes=1)
    assert manifest.rejected == {"unknown token": 2}
    assert manifest.unknown_tokens == {"O": 2}
    assert TokenStore.open(tmp_path / "out", "train").vocabulary == Vocabulary(tuple(tokens))


def test_checksums_are_those_of_the_files(prepared: Path) -> None:
    manifest = json.loads((prepared / "manifest.json").read_text())
    found = {name: hashlib.sha256(content).hexdigest() for name, content in contents(prepared).items() if name != "manifest.json"}
    assert {name: file["sha256"] for name, file in manifest["files"].items()} == found
    source = Path(manifest["inputs"][0]["file"])
    assert manifest["inputs"][0]["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()


@pytest.mark.parametrize("bad", ["truncated.smi.gz", "latin.smi", "page.smi", "missing.smi", "no_column.csv", "empty.txt"])
def test_a_bad_input_leaves_nothing_behind(bad: str, tmp_path: Path, made_up_smiles: list[str]) -> None:
    good = write_smi(tmp_path / "good.smi", made_up_smiles[:20])
    content = {
        "truncated.smi.gz": gzip.compress("".join(f"{s} {hash(s)}\n" for s in made_up_smiles).encode())[:-50],
        "latin.smi": b"CCO 1\nCCN \xe9\n",
        "page.smi": b"<html>404 Not Found</html>",
        "no_column.csv": b"a,b\n1,2\n",
        "empty.txt": b"",
    }.get(bad)
    if content is not None:
        (tmp_path / bad).write_bytes(content)
    before = set(tmp_path.iterdir())
    with pytest.raises(DataError, match=bad):
        prepare([good, tmp_path / bad], tmp_path / "out", processes=1)
    assert set(tmp_path.iterdir()) == before


def test_nothing_left_is_an_error_that_says_why(tmp_path: Path) -> None:
    path = write_smi(tmp_path / "a.smi", ["C1CC", "xyz"])
    with pytest.raises(DataError, match=r"No molecule is left of 2 lines \(2 not a molecule to RDKit\)"):
        prepare([path], tmp_path / "out", processes=1)
    assert not (tmp_path / "out").exists()


def test_no_input_and_impossible_settings(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="name at least one"):
        prepare([], tmp_path / "out")
    path = write_smi(tmp_path / "a.smi", ["C"])
    with pytest.raises(ConfigError, match="limit must be at least 1, found 0"):
        prepare([path], tmp_path / "out", limit=0)
    with pytest.raises(ConfigError, match="processes must be at least 1, found -1"):
        prepare([path], tmp_path / "out", processes=-1)


def test_a_folder_in_use_is_kept_unless_overwritten(tmp_path: Path) -> None:
    first, second = write_smi(tmp_path / "a.smi", ["CCO"]), write_smi(tmp_path / "b.smi", ["CCN"])
    out = tmp_path / "out"
    out.mkdir()
    prepare([first], out, processes=1)  # an empty folder is free
    with pytest.raises(DataError, match=r"out exists already.*--overwrite"):
        prepare([second], out, processes=1)
    assert smiles_in(out, "train") == ["CCO"]
    with pytest.raises(DataError, match="No molecule is left"):
        prepare([second], out, max_tokens=1, overwrite=True, processes=1)
    assert smiles_in(out, "train") == ["CCO"]
    prepare([second], out, overwrite=True, processes=1)
    assert smiles_in(out, "train") == ["CCN"]
    assert {path.name for path in tmp_path.iterdir()} == {"a.smi", "b.smi", "out"}


def test_a_foreign_folder_is_never_overwritten(tmp_path: Path) -> None:
    path = write_smi(tmp_path / "a.smi", ["CCO"])
    with pytest.raises(DataError, match=r"holds no manifest\.json.*not overwritten"):
        prepare([path], tmp_path, overwrite=True)
    assert path.exists()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_smi(tmp_path / "a.smi", ["CCO", "OCC", "C1CC", "CCCCCC"])
    arguments = ["prepare", str(path), "-o", str(tmp_path / "out"), "--processes", "1", "--max-tokens", "5", "--max-logp", "inf"]
    assert cli.main(arguments) == 0
    shown = capsys.readouterr()
    assert "kept 1 of 4" in shown.out
    assert "rejected 1: more than 5 tokens" in shown.out
    assert "100%" in shown.err or "4 lines" in shown.err  # the bar
    settings = json.loads((tmp_path / "out" / "manifest.json").read_text())["settings"]
    assert (settings["max_tokens"], settings["max_logp"]) == (5, None)
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("nemo-cmim prepare: ")
