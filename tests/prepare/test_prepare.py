from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import Crippen, Descriptors

from nemo_cmim import cli
from nemo_cmim.errors import ConfigError, DataError
from nemo_cmim.prepare.prepare import prepare
from nemo_cmim.report.overlap import find_overlap
from nemo_cmim.store.token_store import SPLITS, TokenStore
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


def test_tranche_files_end_to_end(tranche_files: Path, tmp_path: Path) -> None:
    """Compares molecules, rejected lines and splits with a plain loop over the same files."""
    paths = [tranche_files / name for name in ("truncated.smi", "2020.smi", "megamolbart.csv", "2018.smi")]
    paths.append(Path(shutil.copy(paths[0], tmp_path / "again.smi")))
    manifest = prepare(paths, tmp_path / "out", valid_fraction=0.1, test_fraction=0.1, processes=1)

    tokenizer, expected, read = SmilesTokenizer(), {}, 0
    for path in paths:
        for line in path.read_text().splitlines()[1:]:
            read += 1
            smiles = line.split(",")[1] if path.suffix == ".csv" else line.split()[0]
            mol = Chem.MolFromSmiles(smiles)
            known = set(tokenizer.tokenize(Chem.MolToSmiles(mol))) <= tokenizer.vocab.keys()
            passes = known and Descriptors.MolWt(mol) <= 500 and Crippen.MolLogP(mol) <= 5
            if passes and line != "CN(CC(=O)Nc1ccc(F)c(F)c1F)C(=O)NCC":
                expected[Chem.MolToSmiles(mol)] = True
    found = {split: smiles_in(tmp_path / "out", split) for split in SPLITS}
    assert sorted(s for split in SPLITS for s in found[split]) == sorted(expected)
    in_order = sorted(found["train"], key=lambda s: hashlib.blake2b(s.encode(), digest_size=16).digest()[7::-1])
    assert found["train"] == in_order  # sorted by hash, whatever the order of the inputs
    assert all(len(found[split]) > 50 for split in SPLITS)

    assert manifest.counts == {"read": read, "kept": len(expected), "rejected": read - len(expected)}
    assert sum(one["read"] for one in manifest.inputs) == read
    for one in manifest.inputs:
        assert one["read"] == one["kept"] + sum(one["rejected"].values())
    assert manifest.inputs[0]["rejected"]["line cut short"] == 1
    reasons = Counter(row["reason"].split(":")[0] for row in rejected_in(tmp_path / "out"))
    assert reasons == manifest.rejected
    assert set(reasons) == {"duplicate", "molecular weight above 500", "logP above 5", "unknown token", "line cut short"}
    for split in SPLITS:
        lengths = Counter(np.asarray(TokenStore.open(tmp_path / "out", split).lengths).tolist())
        assert manifest.splits[split] == {
            "molecules": len(found[split]),
            "tokens": sum(k * n for k, n in lengths.items()),
            "lengths": {str(k): lengths[k] for k in sorted(lengths)},
            "shards": [{"name": f"{split}-00000", "molecules": len(found[split])}],
        }


def test_the_2018_style_loses_no_molecule(tranche_files: Path, tmp_path: Path) -> None:
    path = tranche_files / "2018.smi"
    manifest = prepare([path], tmp_path / "out", limit=300, processes=1, max_molecular_weight=5000.0, max_logp=50.0)
    expected = {Chem.CanonSmiles(line.split()[0]) for line in path.read_text().splitlines()[1:301]}
    assert {s for split in SPLITS for s in smiles_in(tmp_path / "out", split)} == expected
    assert manifest.counts["read"] == 300


def test_every_rejected_line_is_written_with_its_reason(tmp_path: Path) -> None:
    heavy, greasy = "C" * 36, "CCCCCCCCCCCCCCCC(=O)O"
    lines = ["smiles,name", "CCO,a", "OCC,b", "C1CC,c", ",d", '"CC[Og]","tab\there"', f"{heavy},e", f"{greasy},f", "C,g,h"]
    (tmp_path / "in.csv").write_text("\n".join(lines) + "\n")
    manifest = prepare([tmp_path / "in.csv"], tmp_path / "out", max_molecular_weight=400.0, processes=1)
    rows = rejected_in(tmp_path / "out")
    assert [(int(row["line"]), row["reason"]) for row in rows] == [
        (3, f"duplicate: of {tmp_path / 'in.csv'}, line 2"),
        (4, "not a molecule to RDKit: unclosed ring"),
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


def test_any_number_of_processes_gives_the_same_bytes(tmp_path: Path, made_up_smiles: list[str]) -> None:
    path = write_smi(tmp_path / "in.smi", [*made_up_smiles, "C1CC", *made_up_smiles[:100]])
    for processes in (1, 2):
        out = tmp_path / f"out{processes}"
        prepare([path], out, valid_fraction=0.2, processes=processes, piece_lines=50, shard_molecules=150)
    assert contents(tmp_path / "out1") == contents(tmp_path / "out2")
    names = set(contents(tmp_path / "out1"))
    assert {"train-00000.bin", "train-00003.idx", "valid-00003.bin", "test-00000.idx", "manifest.json"} <= names


def test_shards_depend_on_the_molecules_and_not_on_their_files(tmp_path: Path, made_up_smiles: list[str]) -> None:
    one = write_smi(tmp_path / "one.smi", made_up_smiles)
    halves = [write_smi(tmp_path / f"{start}.smi", made_up_smiles[start::2]) for start in (1, 0)]
    for name, inputs, piece_lines in (("a", [one], 1000), ("b", halves, 37)):
        prepare(inputs, tmp_path / name, processes=1, piece_lines=piece_lines, shard_molecules=100)
    a, b = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert set(a) == set(b)
    assert {name for name in a if a[name] != b[name]} <= {"manifest.json", "rejected.tsv.gz"}  # which name the files


def test_a_folder_stands_for_the_files_in_it(tmp_path: Path) -> None:
    (tmp_path / "zinc" / "BA").mkdir(parents=True)
    for name, smiles in (("BA/BAAA.smi", "CCO"), ("b.csv.gz", "CCN"), ("BA/BAAB.smi.part", "CCC"), ("downloads.json", "CCF")):
        content = f"smiles\n{smiles}\n".encode()
        (tmp_path / "zinc" / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    manifest = prepare([tmp_path / "zinc"], tmp_path / "out", processes=1)
    assert [Path(one["file"]).name for one in manifest.inputs] == ["BAAA.smi", "b.csv.gz"]
    again = prepare([tmp_path], tmp_path / "again", processes=1)  # prepared data and unfinished work are skipped
    assert again.inputs == manifest.inputs
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty contains no input file"):
        prepare([tmp_path / "empty"], tmp_path / "other", processes=1)


def test_counts_by_tranche_and_by_token(tmp_path: Path) -> None:
    first, second = write_smi(tmp_path / "BAAA.smi", ["CCO", "CCO", "x"]), write_smi(tmp_path / "free.smi", ["CCCl", "OCC"])
    manifest = prepare([first, second], tmp_path / "out", processes=1)
    assert manifest.tranches == {"BAAA": {"read": 3, "kept": 1, "rejected": {"not a molecule to RDKit": 1, "duplicate": 1}}}
    assert manifest.tokens == {"C": 4, "O": 1, "Cl": 1} == dict(sorted(manifest.tokens.items(), key=lambda item: -item[1]))
    assert [one["kept"] for one in manifest.inputs] == [1, 1]


def test_a_carriage_return_inside_a_line_stays_in_its_row(tmp_path: Path) -> None:
    (tmp_path / "a.smi").write_bytes(b"CCO 1\nC1CC\r 4\nC1CD 5\n")
    prepare([tmp_path / "a.smi"], tmp_path / "out", processes=1)
    assert [(row["line"], row["text"]) for row in rejected_in(tmp_path / "out")] == [("2", "C1CC\r 4"), ("3", "C1CD 5")]


def test_a_file_with_only_a_header_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "BAAA.smi").write_text("smiles zinc_id\n")
    write_smi(tmp_path / "BBAA.smi", ["CCO"])
    assert cli.main(["prepare", str(tmp_path), "-o", str(tmp_path / "out"), "--processes", "1"]) == 0
    assert f"1 files contain only a header, for example {tmp_path / 'BAAA.smi'}" in capsys.readouterr().out
    with pytest.raises(DataError, match="contain only a header and no molecules"):
        prepare([tmp_path / "BAAA.smi"], tmp_path / "other", processes=1)


def test_a_molecule_that_cannot_be_standardised_is_rejected(tmp_path: Path) -> None:
    path = write_smi(tmp_path / "a.smi", ["[Fe+2].c1cc[cH-]c1.c1cc[cH-]c1", "CCO"])
    manifest = prepare([path], tmp_path / "out", processes=1, desalt=True, neutralise=True)
    assert manifest.rejected == {"cannot be standardised": 1}


def test_the_limit_may_end_inside_a_chunk(tmp_path: Path, made_up_smiles: list[str]) -> None:
    first, second = write_smi(tmp_path / "a.smi", made_up_smiles[:55]), write_smi(tmp_path / "b.smi", made_up_smiles[55:])
    manifest = prepare([first, second], tmp_path / "out", processes=1, limit=77, piece_lines=10)
    assert manifest.counts == {"read": 77, "kept": 77, "rejected": 0}
    assert {s for split in SPLITS for s in smiles_in(tmp_path / "out", split)} == set(map(Chem.CanonSmiles, made_up_smiles[:77]))


def test_rejected_lines_of_many_chunks_are_in_order(tmp_path: Path, made_up_smiles: list[str]) -> None:
    path = write_smi(tmp_path / "a.smi", [text for smiles in made_up_smiles[:60] for text in (smiles, "x", smiles)])
    prepare([path], tmp_path / "out", processes=1, piece_lines=7)
    rows = rejected_in(tmp_path / "out")
    assert [int(row["line"]) for row in rows] == [line for line in range(2, 182) if line % 3 != 2]
    duplicates = [row for row in rows if row["reason"].startswith("duplicate")]
    assert all(row["reason"].endswith(f", line {int(row['line']) - 2}") for row in duplicates) and len(duplicates) == 60


PALMITATE = "CCCCCCCCCCCCCCCC(=O)O"  # logP 5.55


@pytest.mark.parametrize(
    ("name", "settings", "kept"),
    [
        ("BIAA.smi", {}, True),  # the letter says up to 4.5: it is trusted
        ("BJAA.smi", {}, False),  # up to 5, and some molecules are above
        ("BIAA.smi", {"trust_tranches": False}, False),
        ("BIAA.smi", {"max_logp": 4.5}, False),
        ("BIAA.smi", {"neutralise": True}, False),  # not the molecule of ZINC's letter
        ("fatty.smi", {}, False),
    ],
)
def test_when_a_tranche_is_trusted(name: str, settings: dict[str, Any], kept: bool, tmp_path: Path) -> None:
    path = write_smi(tmp_path / name, [PALMITATE, "CCO"])
    assert prepare([path], tmp_path / "out", processes=1, **settings).counts["kept"] == 1 + kept


def test_trusting_real_tranches_changes_nothing(shared_data: Path, tmp_path: Path) -> None:
    paths = [shared_data / "zinc" / "tranche_samples" / name for name in ("BJAA.smi", "JBAA.smi", "FAAA.smi")]
    for trust in (True, False):
        prepare(paths, tmp_path / str(trust), processes=1, trust_tranches=trust)
    a, b = contents(tmp_path / "True"), contents(tmp_path / "False")
    assert {name for name in a if a[name] != b[name]} == {"manifest.json"}  # which contains the setting


def test_desalting_and_neutralising(tmp_path: Path) -> None:
    path = write_smi(tmp_path / "a.smi", ["CC(=O)[O-].[Na+]", "C[NH3+].[Cl-]", "C[N+](C)(C)C", "CC(=O)O"])
    for number, (settings, expected) in enumerate(
        [
            ({}, {"CC(=O)[O-].[Na+]", "C[NH3+].[Cl-]", "C[N+](C)(C)C", "CC(=O)O"}),
            ({"desalt": True}, {"CC(=O)[O-]", "C[NH3+]", "C[N+](C)(C)C", "CC(=O)O"}),
            ({"desalt": True, "neutralise": True}, {"CN", "C[N+](C)(C)C", "CC(=O)O"}),
        ]
    ):
        out = tmp_path / str(number)
        prepare([path], out, processes=1, **settings)
        assert {s for split in SPLITS for s in smiles_in(out, split)} == expected


def test_exact_sizes_of_splits(tmp_path: Path, made_up_smiles: list[str]) -> None:
    path = write_smi(tmp_path / "in.smi", [*made_up_smiles, *made_up_smiles[:50]])
    sizes = {"valid_molecules": 37, "test_molecules": 101}
    found = {}
    for shard_molecules in (60, 10_000):
        out = tmp_path / str(shard_molecules)
        manifest = prepare([path], out, processes=1, shard_molecules=shard_molecules, piece_lines=90, **sizes)
        assert {split: manifest.splits[split]["molecules"] for split in SPLITS} == {"train": 222, "valid": 37, "test": 101}
        found[shard_molecules] = {split: smiles_in(out, split) for split in SPLITS}
    assert found[60] == found[10_000]
    with pytest.raises(DataError, match="400 molecules are requested for validation and test, but only 360 are left"):
        prepare([path], tmp_path / "out", processes=1, valid_molecules=200, test_molecules=200)


def test_the_papers_fractions_are_the_default(tmp_path: Path, made_up_smiles: list[str]) -> None:
    settings = prepare([write_smi(tmp_path / "in.smi", made_up_smiles)], tmp_path / "out", processes=1).settings
    assert settings["valid_fraction"] * 730e6 == pytest.approx(100_000)
    assert settings["test_fraction"] * 730e6 == pytest.approx(7_000_000)


def test_a_bad_line_does_not_affect_other_lines(tmp_path: Path) -> None:
    (tmp_path / "a.smi").write_bytes(b"smiles zinc_id\nCCO 1\nCC\xe9 2\n\nCCN 3\n")
    (tmp_path / "a.csv").write_bytes(b'smiles,name\nCCF,1\nCCC,"2\nCCBr,3\nCCCl,4\n')
    manifest = prepare([tmp_path / "a.smi", tmp_path / "a.csv"], tmp_path / "out", processes=1)
    assert {s for split in SPLITS for s in smiles_in(tmp_path / "out", split)} == {"CCO", "CCN", "CCF", "CCBr", "CCCl"}
    reasons = {(row["line"], row["reason"], row["text"]) for row in rejected_in(tmp_path / "out")}
    assert {("3", "not UTF-8 text", "CC\\xe9 2"), ("4", "empty line", "")} <= reasons
    assert any(line == "3" and reason.startswith("not CSV") and text == 'CCC,"2' for line, reason, text in reasons)
    assert manifest.counts == {"read": 8, "kept": 5, "rejected": 3}


def test_a_molecule_is_in_the_same_split_in_every_run(tmp_path: Path, made_up_smiles: list[str], prepared: Path) -> None:
    """With different files, order and SMILES, each molecule is in the same split, and only in one."""
    randomized = [Chem.MolToSmiles(Chem.MolFromSmiles(s), doRandom=True) for s in made_up_smiles[300:0:-1]]
    path = write_smi(tmp_path / "in.smi", randomized)
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
    assert [one["read"] for one in manifest.inputs] == [3, 1]


def test_an_input_named_twice_is_read_once(tmp_path: Path) -> None:
    path = write_smi(tmp_path / "a.smi", ["C", "CC"])
    assert prepare([path, str(path)], tmp_path / "out", processes=1).counts == {"read": 2, "kept": 2, "rejected": 0}


def test_a_vocabulary_of_the_user(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("bad", ["truncated.smi.gz", "page.smi", "missing.smi", "no_column.csv", "empty.txt"])
def test_a_bad_input_leaves_nothing_behind(bad: str, tmp_path: Path, made_up_smiles: list[str]) -> None:
    good = write_smi(tmp_path / "good.smi", made_up_smiles[:20])
    content = {
        "truncated.smi.gz": gzip.compress("".join(f"{s} {hash(s)}\n" for s in made_up_smiles).encode())[:-50],
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


def test_an_error_says_why_all_lines_were_rejected(tmp_path: Path) -> None:
    path = write_smi(tmp_path / "a.smi", ["C1CC", "xyz"])
    with pytest.raises(DataError, match=r"All 2 lines were rejected \(2 not a molecule to RDKit\)"):
        prepare([path], tmp_path / "out", processes=1)
    assert not (tmp_path / "out").exists()


def test_no_input_and_impossible_settings(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Name at least one"):
        prepare([], tmp_path / "out")
    path = write_smi(tmp_path / "a.smi", ["C"])
    with pytest.raises(ConfigError, match="limit must be at least 1, found 0"):
        prepare([path], tmp_path / "out", limit=0)
    with pytest.raises(ConfigError, match="processes must be at least 1, found -1"):
        prepare([path], tmp_path / "out", processes=-1)


def test_an_existing_folder_is_kept_unless_overwritten(tmp_path: Path) -> None:
    first, second = write_smi(tmp_path / "a.smi", ["CCO"]), write_smi(tmp_path / "b.smi", ["CCN"])
    out = tmp_path / "out"
    out.mkdir()
    prepare([first], out, processes=1)  # an empty folder is replaced
    with pytest.raises(DataError, match=r"out already exists.*overwrite=True"):
        prepare([second], out, processes=1)
    assert smiles_in(out, "train") == ["CCO"]
    with pytest.raises(DataError, match="All 1 lines were rejected"):
        prepare([second], out, max_tokens=1, overwrite=True, processes=1)
    assert smiles_in(out, "train") == ["CCO"]
    prepare([second], out, overwrite=True, processes=1)
    assert smiles_in(out, "train") == ["CCN"]
    assert {path.name for path in tmp_path.iterdir()} == {"a.smi", "b.smi", "out"}


def test_a_folder_without_a_manifest_is_never_overwritten(tmp_path: Path) -> None:
    path = write_smi(tmp_path / "a.smi", ["CCO"])
    with pytest.raises(DataError, match=r"has no manifest\.json.*not overwritten"):
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


def test_one_copy_of_a_molecule_with_several_canonical_smiles(tmp_path: Path) -> None:
    """rdkit#8721. Characters that RDKit would remove in silence are a reason of their own."""
    mol = Chem.MolFromSmiles("O=C(c1ccccc1C(=O)N1C(=O)c2ccccc2C1=O)N1C(=O)c2ccccc2C1=O")
    lines = [*Chem.MolToRandomSmilesVect(mol, 20, randomSeed=7), "CC(=O)\u041e", "CCO"]
    (tmp_path / "in.smi").write_text("\n".join(lines) + "\n", encoding="utf-8")
    manifest = prepare([tmp_path / "in.smi"], tmp_path / "out", processes=1, progress=False)
    assert manifest.counts["kept"] == 2
    assert manifest.rejected == {"duplicate": 19, "forbidden character": 1}
    found = find_overlap(tmp_path / "out", lines[:5], stereo=True)
    assert sum(hits.sum() for hits in found.same.values()) == 5


@pytest.mark.parametrize("what", ["-", "https://example.org/a.smi", "fifo"])
def test_what_cannot_be_read_twice_is_an_error(what: str, tmp_path: Path) -> None:
    if what == "fifo":
        os.mkfifo(tmp_path / what)
        what = str(tmp_path / what)
    with pytest.raises(DataError, match="inputs are read several times"):
        prepare([what], tmp_path / "out")
