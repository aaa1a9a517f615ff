"""Compares the overlap of molecules with prepared data with sets of canonical SMILES."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from nemo_cmim.cli import main
from nemo_cmim.errors import DataError, InvalidSmilesError
from nemo_cmim.molecules import canonical_smiles, parse, randomized_smiles, without_stereo
from nemo_cmim.prepare.prepare import prepare
from nemo_cmim.report import overlap
from nemo_cmim.report.overlap import Overlap, find_overlap
from nemo_cmim.store.token_store import SPLITS, TokenStore
from nemo_cmim.tokenizers import SmilesTokenizer
from tests.store.sharded import write_sharded

TAILS = [f"{'C' * i}N{'C' * j}F" for i in range(1, 7) for j in range(1, 7)]
KINDS = {
    "chiral": "C[C@H](O){}",
    "no stereo": "OC(Cl){}",
    "double bond": "C/C(Cl)=C/{}",
    "imine": r"[H]/N=C(/Br){}",
    "charged": "[NH3+]C(C(=O)[O-]){}",
    "salt": "[Na+].[O-]C(=O){}",
    "rings": "c1cc2c(cc1)[nH]c(C[C@@H]1CC1(F){})c2",
}
MOLECULES = [form.format(tail) for form in KINDS.values() for tail in TAILS]


def store(folder: Path, smiles: list[str], **settings: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "molecules.smi").write_text("\n".join(smiles) + "\n")
    prepare([folder / "molecules.smi"], folder / "store", processes=1, progress=False, **settings)
    return folder / "store"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two thirds of `MOLECULES` in shards of about 30."""
    known = [one for number, one in enumerate(MOLECULES) if number % 3]
    return store(tmp_path_factory.mktemp("overlap"), known, valid_fraction=0.2, test_fraction=0.2, shard_molecules=30)


def queries() -> list[str]:
    """Each molecule as a randomized SMILES, its mirror image and its form without stereochemistry, and some that are not there."""
    randomized = [randomized_smiles(one, 1, seed=number + 1)[0] for number, one in enumerate(MOLECULES)]
    mirrored = [one.replace("@@", "%").replace("@", "@@").replace("%", "@") for one in MOLECULES if "@" in one]
    return randomized + mirrored + [without_stereo(parse(one)) for one in MOLECULES] + ["C", "c1ccccc1", "[Cl-]", "[U+4]"]


def test_overlap_equals_that_of_sets_of_canonical_smiles(folder: Path) -> None:
    smiles = queries()
    found = find_overlap(folder, smiles)
    assert set(found.same) == set(found.without_stereo) == set(SPLITS)
    canonical, plain = [canonical_smiles(one) for one in smiles], [without_stereo(parse(one)) for one in smiles]
    for split in SPLITS:
        opened = TokenStore.open(folder, split)
        own = [SmilesTokenizer(opened.vocabulary).decode(opened.tokens(i)) for i in range(len(opened))]
        own_plain = {without_stereo(parse(one)) for one in own}
        np.testing.assert_array_equal(found.same[split], np.isin(canonical, own))
        np.testing.assert_array_equal(found.without_stereo[split], np.isin(plain, list(own_plain)))
        assert found.same[split].any() and (found.without_stereo[split] & ~found.same[split]).any()
        assert not (found.same[split] & ~found.without_stereo[split]).any()
    assert not Overlap.anywhere(found.without_stereo)[-4:].any()
    kept = sum(len(TokenStore.open(folder, split)) for split in SPLITS)
    assert Overlap.anywhere(found.same)[: len(MOLECULES)].sum() == kept > len(MOLECULES) / 2


def test_the_same_molecule_always_counts_without_stereo(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if RDKit writes a SMILES without stereochemistry that differs from the one in the data."""
    monkeypatch.setattr(overlap, "without_stereo", lambda mol: "C")
    found = find_overlap(folder, queries())
    for split in SPLITS:
        assert found.same[split].any()
        np.testing.assert_array_equal(found.without_stereo[split], found.same[split])


def test_an_exact_search_does_not_read_all_tokens(folder: Path) -> None:
    read: list[int] = []
    smiles = queries()
    exact = find_overlap(folder, smiles, stereo=False, progress=read.append)
    assert exact.without_stereo == {} and read == []
    full = find_overlap(folder, smiles, progress=read.append)
    assert sum(read) == sum(len(TokenStore.open(folder, split)) for split in SPLITS)
    for split in SPLITS:
        np.testing.assert_array_equal(exact.same[split], full.same[split])


def test_molecules_are_standardised_with_the_settings_of_the_folder(tmp_path: Path) -> None:
    salts = [f"[Na+].[O-]C(=O){tail}" for tail in TAILS]
    desalted = store(tmp_path / "desalted", salts, desalt=True, neutralise=True)
    plain = store(tmp_path / "plain", salts)
    for folder, neutral in ((desalted, True), (plain, False)):
        same = find_overlap(folder, [salts[0], f"OC(=O){TAILS[0]}", f"[O-]C(=O){TAILS[1]}"], stereo=False).same
        assert Overlap.anywhere(same).tolist() == [True, neutral, neutral]


def test_an_invalid_smiles_or_an_unusable_folder_is_an_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidSmilesError, match=r"SMILES at index 1 \('C1CC'\) could not be parsed"):
        find_overlap(folder, ["CC", "C1CC"])
    with pytest.raises(DataError, match="not a folder of prepared data"):
        find_overlap(tmp_path, ["CC"])
    write_sharded(tmp_path / "unordered")
    with pytest.warns(UserWarning, match="prepared with RDKit None"), pytest.raises(DataError, match="are not sorted by hash"):
        find_overlap(tmp_path / "unordered", MOLECULES)


def test_the_command_counts_and_lists(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    smiles = [randomized_smiles(MOLECULES[1], 1, seed=5)[0], MOLECULES[1].replace("@", "@@"), "CCO"]
    (tmp_path / "test.csv").write_text("id,structure\n" + "".join(f"{i},{one}\n" for i, one in enumerate(smiles)))
    command = ["overlap", str(folder), str(tmp_path / "test.csv"), "--column", "structure"]
    assert main([*command, "-o", str(tmp_path / "found.csv")]) == 0
    printed = capsys.readouterr().out
    assert "Of 3 molecules" in printed and "any split: 1 exact, 2 without stereochemistry" in printed
    rows = list(csv.reader((tmp_path / "found.csv").read_text().splitlines()))
    assert [row[:2] + row[3:] for row in rows] == [
        ["line", "smiles", "match"],
        ["2", smiles[0], "same"],
        ["3", smiles[1], "stereo"],
    ]
    assert main([*command, "--exact", "-o", str(tmp_path / "found.csv"), "--overwrite"]) == 0
    assert "any split: 1 exact\n" in capsys.readouterr().out
    assert len((tmp_path / "found.csv").read_text().splitlines()) == 2


@pytest.mark.parametrize(("bad", "message"), [("C1CC", "('C1CC') could not be parsed"), ("", "no SMILES"), ("C C", "white space")])
def test_the_command_names_the_line_of_a_bad_smiles(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], bad: str, message: str
) -> None:
    (tmp_path / "test.csv").write_text(f"smiles,target\nCCO,1\n{bad},2\n")
    assert main(["overlap", str(folder), str(tmp_path / "test.csv")]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / 'test.csv'}, line 3: " in error and message in error


def test_rows_that_cannot_be_used_are_left_out_on_request(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "in.csv"
    command = ["overlap", str(folder), str(path), "--exact"]
    drop = [*command, "--on-invalid", "drop", "--standardise", "extras,atom-maps"]
    for bad, hint in (
        ("C~C", "is a query"),
        ("C name", "--standardise extras removes it"),
        ("[CH3:1]O", "--standardise atom-maps"),
    ):
        path.write_text(f"smiles\nC\n{bad}\n")
        assert main(command) == 2
        error = capsys.readouterr().err
        assert "in.csv, line 3: " in error and hint in error and "pass --on-invalid drop to leave out" in error
    path.write_text(f"smiles\nC~C\n{MOLECULES[1]} a name\n[CH3:1]O\nC1C\n")
    with pytest.warns(UserWarning, match=r"left out 2 of 4 rows\. The first: .*line 2: the SMILES \('C~C'\) is a query"):
        assert main(drop) == 0
    printed = capsys.readouterr().out
    assert "Of 2 molecules of" in printed and "any split: 1 exact" in printed
    path.write_text("smiles\nC~C\n")
    assert main(drop) == 2
    assert "holds no usable molecules. The first: " in capsys.readouterr().err


def test_steps_of_the_folder_apply_to_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepared = store(tmp_path / "a", ["CCO name", "[CH3:1]N"], extras=True, atom_maps=True, valid_fraction=0, test_fraction=0)
    (tmp_path / "in.smi").write_text("smiles\tid\nCCO |&1:1|\tx\n[CH3:2][NH2:1]\ty\n")
    assert main(["overlap", str(prepared), str(tmp_path / "in.smi"), "--exact"]) == 0
    assert "any split: 2 exact" in capsys.readouterr().out
    with pytest.raises(InvalidSmilesError, match=r'SMILES at index 0 .* contains atom maps.*standardise="atom-maps"'):
        find_overlap(store(tmp_path / "b", ["CN"], valid_fraction=0, test_fraction=0), ["[CH3:1]N"])
