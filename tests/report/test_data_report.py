from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import Crippen, Descriptors

from nemo_cmim import cli, molecules
from nemo_cmim.errors import ConfigError, DataError
from nemo_cmim.prepare.prepare import prepare
from nemo_cmim.report import report
from nemo_cmim.report.charts import HeatCell, compact, depths, histogram, percent
from nemo_cmim.report.pages import templates
from nemo_cmim.report.report import data_report, write_data_report
from nemo_cmim.report.tranche_charts import tranche_charts
from nemo_cmim.store.manifest import StoreManifest
from nemo_cmim.store.token_store import TokenStore
from nemo_cmim.tokenizers import SmilesTokenizer
from tests.report.page import HOSTILE, Page, check_offline


def write_smi(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in ["smiles zinc_id", *lines]))
    return path


@pytest.fixture(scope="module")
def folder(made_up_smiles: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tranches and a file with a hostile name; every reason that a line of a .smi file can have; a hostile line."""
    top = tmp_path_factory.mktemp("report")
    numbered = [f"{smiles} {i}" for i, smiles in enumerate(made_up_smiles)]
    bad = ["C1CC CO", f"C{HOSTILE} 5", "C" * 36 + " 6", "CC[Og] 7", "C" * 16 + "C(=O)O 8", "N" + "C" * 40 + "(=O) 9"]
    inputs = [
        write_smi(top / "BAAA.smi", numbered[:100]),
        write_smi(top / "CBEB.smi", [*numbered[100:250], *numbered[:6]]),
        write_smi(top / "<b>&amp;.smi", [*numbered[250:], *bad]),
    ]
    prepare(inputs, top / "out", valid_fraction=0.1, test_fraction=0.1, processes=1)
    return top / "out"


def changed(folder: Path, target: Path, **fields: object) -> Path:
    """A copy of a prepared folder with changed contents of its manifest, which match rejected.tsv.gz."""
    shutil.copytree(folder, target)
    content = json.loads((folder / "manifest.json").read_text()) | fields
    compressed = (target / "rejected.tsv.gz").read_bytes()
    content["files"]["rejected.tsv.gz"] = {"bytes": len(compressed), "sha256": hashlib.sha256(compressed).hexdigest()}
    (target / "manifest.json").write_text(json.dumps(content))
    return target


def test_records_of_an_sdf_are_counted_by_reason_and_drawn(tmp_path: Path, made_up_smiles: list[str]) -> None:
    records = [Chem.MolToMolBlock(Chem.MolFromSmiles(smiles)) + "$$$$\n" for smiles in made_up_smiles[:20]]
    carbon = Chem.MolToMolBlock(Chem.MolFromSmiles("CC(C)(C)C"))
    five_bonds = carbon.replace("  1  2  1  0", "  1  2  2  0")  # a carbon with five bonds
    heavy = Chem.MolToMolBlock(Chem.MolFromSmiles("N" + "C" * 40))
    two_blocks = carbon + carbon
    no_block = "name\n\n\nnothing\n"
    bad = [f"{record}$$$$\n" for record in (five_bonds, heavy, two_blocks, no_block)]
    (tmp_path / "in.sdf").write_text("".join(records + bad))
    prepare([tmp_path / "in.sdf"], tmp_path / "out", processes=1, valid_fraction=0.1, test_fraction=0.1)
    rejected = StoreManifest.load(tmp_path / "out").rejected
    assert rejected == {
        "the mol block could not be parsed": 2,
        "two mol blocks in one record": 1,
        "molecular weight above 500": 1,
    }
    figures = [figure for figure in Page(data_report(tmp_path / "out")).figures if ", line " in figure]
    assert len(figures) == 4
    assert all(figure.startswith("drawn ") == ("molecular weight above" in figure) for figure in figures)


def test_the_page_loads_nothing_and_has_no_date(folder: Path) -> None:
    check_offline(data_report(folder))


def test_equal_folders_give_equal_pages_and_a_different_seed_a_different_sample(folder: Path, tmp_path: Path) -> None:
    again = Path(shutil.copytree(folder, tmp_path / "elsewhere" / "out"))
    assert data_report(folder, sample=50) == data_report(again, sample=50)
    assert Page(data_report(folder, sample=50)).figures[-8:] != Page(data_report(folder, sample=50, seed=1)).figures[-8:]


def test_counts_are_those_of_the_manifest(folder: Path) -> None:
    manifest = StoreManifest.load(folder)
    page = Page(data_report(folder))
    overview = page.sections["Overview"]
    for name, label in (("read", "lines read"), ("kept", "molecules kept"), ("rejected", "lines rejected")):
        assert f"{manifest.counts[name]:,}{label}" in overview
    assert "6rejected duplicates" in overview
    for split, numbers in manifest.splits.items():
        assert page.row(split) == [split, f"{numbers['molecules']:,}", f"{numbers['tokens']:,}"]
    for reason, count in manifest.rejected.items():
        assert page.row(reason) == [reason, "", f"{count:,}", percent(count, manifest.counts["read"])]
    total = sum(split["tokens"] for split in manifest.splits.values())
    assert sum(manifest.tokens.values()) == total
    for token, count in manifest.tokens.items():
        assert page.row(token) == [token, "", f"{count:,}", percent(count, total)]
    assert f"{len(manifest.tokens)} tokens occur" in page.sections["Tokens"]
    assert (
        f"Of the 517 tokens of the vocabulary that can be part of a SMILES, {517 - len(manifest.tokens)} never"
        in page.sections["Tokens"]
    )
    assert page.row("[Og]") == ["[Og]", "", "1", percent(1, manifest.counts["read"])]
    assert page.row("fingerprint") == ["fingerprint", manifest.vocabulary["fingerprint"]]
    assert page.row("rdkit") == ["rdkit", manifest.versions["rdkit"]]
    assert page.row("max_molecular_weight") == ["max_molecular_weight", "500.0"]
    assert page.row("limit") == ["limit", "none"]


def test_tranches_by_letter_and_the_other_files_in_a_table(folder: Path) -> None:
    page = Page(data_report(folder))
    tips = [value for name, value in page.attributes if name == "title"]
    assert tips == [
        "BA: 200 to 250 Da, logP ≤ -1: 100 kept of 100 lines, 0 rejected",
        "CB: 250 to 300 Da, logP -1 to 0: 150 kept of 156 lines, 6 rejected",
    ]
    assert page.row("A anodyne") == ["A anodyne", "", "100", percent(100, 250)]
    assert page.row("E mild") == ["E mild", "", "150", percent(150, 250)]
    assert [row[2] for row in page.rows if row[0].endswith("in stock")] == ["100", "150"]
    (other,) = [row for row in page.rows if row[0].endswith(".smi")]
    assert other == [str(folder.parent / "<b>&amp;.smi"), "116", "110", "6"]


def test_without_tranches_there_is_a_table_of_the_largest_files(prepared: Path, tmp_path: Path) -> None:
    assert "ZINC tranches" not in Page(data_report(prepared)).sections
    inputs = [
        {"file": f"f{i}.smi", "bytes": 1, "sha256": "", "read": 3 * i, "kept": 2 * i, "rejected": {"no SMILES": i}}
        for i in range(30)
    ]
    page = Page(data_report(changed(prepared, tmp_path / "many", inputs=inputs, tranches={})))
    assert [row[0] for row in page.rows if re.fullmatch(r"f\d+\.smi", row[0])] == [f"f{i}.smi" for i in range(29, 9, -1)]
    assert page.row("10 further files") == ["10 further files", "135", "90", "45"]
    assert "The 20 files with the most lines, and the sum of the others." in page.sections["Input files"]


def test_rejected_lines_are_drawn_or_shown_as_text(folder: Path) -> None:
    page = Page(data_report(folder))
    shown = {figure.removeprefix("drawn "): figure.startswith("drawn ") for figure in page.figures if ", line " in figure}
    first, other = folder.parent / "CBEB.smi", folder.parent / "<b>&amp;.smi"
    assert shown[f"{other}, line 112: not a molecule to RDKit: unclosed ringC1CC CO"] is False  # CO is the name of the molecule
    (hostile,) = (
        text
        for text in shown
        if text.startswith(f"{other}, line 113: not a molecule to RDKit: ") and text.endswith(f"C{HOSTILE} 5")
    )
    assert shown[hostile] is False
    assert shown[f"{other}, line 114: molecular weight above 500: 506.99{'C' * 36} 6"] is True
    assert shown[f"{other}, line 115: unknown token: [Og]CC[Og] 7"] is True
    assert sum(text.startswith(str(first)) and drawn for text, drawn in shown.items()) == 4  # of 6 duplicates
    assert "duplicate (6)" in page.sections["Rejected lines"]


def test_hostile_names_and_lines_stay_text(folder: Path, tmp_path: Path) -> None:
    fields = {"settings": {"column": HOSTILE}, "versions": {HOSTILE: '"'}, "tokens": {HOSTILE: 1}, "unknown_tokens": {HOSTILE: 1}}
    hostile = changed(folder, tmp_path / "<i>$body", **fields)
    html = data_report(hostile)
    page = Page(html)
    assert HOSTILE not in html and "<b>&amp;.smi" not in html
    assert page.tags["script"] == 1 and page.tags["i"] == 0
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 5
    assert page.sections[""].strip().startswith("Data report: <i>$body")


def test_the_page_says_if_not_all_rejected_lines_were_searched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "were searched" not in data_report(folder)
    monkeypatch.setattr(report, "_LINES_SEARCHED", 7)
    page = Page(data_report(folder))
    assert "Only the first 7 rejected lines were searched." in page.sections["Rejected lines"]
    assert len([figure for figure in page.figures if ", line " in figure]) == 5


def test_a_rejected_line_of_any_length(folder: Path, tmp_path: Path) -> None:
    long = Path(shutil.copytree(folder, tmp_path / "source"))
    with gzip.open(long / "rejected.tsv.gz", "wt", newline="") as stream:
        stream.write(f"file\tline\treason\ttext\na.smi\t2\tduplicate\t{'C' * 300_000}\n")
    page = Page(data_report(changed(long, tmp_path / "long", rejected={"duplicate": 1})))
    (figure,) = [figure for figure in page.figures if ", line " in figure]
    assert figure == f"a.smi, line 2: duplicate{'C' * 400}… (300,000 characters)"


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("CCO ZINC000000001084", "CCO"),
        ("ZINC000000001084,CCO", "CCO"),
        ('b,"CC[Og]"', "CC[Og]"),
        ("xyz 5", ""),
        ("", ""),
        (f"{'C' * 301} CO", ""),
    ],
)
def test_which_word_of_a_line_is_drawn(text: str, drawn: str) -> None:
    assert report._molecule_in(text) == drawn


def test_no_rejected_line_and_an_empty_train_split(tmp_path: Path, made_up_smiles: list[str]) -> None:
    path = write_smi(tmp_path / "all.smi", made_up_smiles[:40])
    prepare([path], tmp_path / "out", valid_fraction=0.999, test_fraction=0.0, processes=1)
    page = Page(data_report(tmp_path / "out"))
    assert page.row("train") == ["train", "0", "0"]
    assert "No line was rejected." in page.sections["Rejected"]
    assert "Rejected lines" not in page.sections
    assert "all 40 molecules of the valid split" in page.sections["Properties of kept molecules"]


def test_properties_are_those_of_the_sample(prepared: Path, made_up_smiles: list[str]) -> None:
    manifest = StoreManifest.load(prepared)
    everything = Page(data_report(prepared))
    store = TokenStore.open(prepared, "train")
    mols = [Chem.MolFromSmiles(SmilesTokenizer(store.vocabulary).decode(store.tokens(i))) for i in range(len(store))]
    weights, logps = np.array([Descriptors.MolWt(mol) for mol in mols]), np.array([Crippen.MolLogP(mol) for mol in mols])
    text = everything.sections["Properties of kept molecules"]
    assert f"all {manifest.splits['train']['molecules']} molecules of the train split" in text
    for name, values, unit, digits in (("molecular weight", weights, " Da", 1), ("Crippen logP", logps, "", 2)):
        low, median, high = (f"{q:.{digits}f}" for q in np.quantile(values, (0.05, 0.5, 0.95), method="inverted_cdf"))
        assert f"{name}: median {median}{unit}; 5 % are at or below {low}, 95 % at or below {high} (dashed lines)" in text
    lengths = sorted(int(n) for split in manifest.splits.values() for n, count in split["lengths"].items() for _ in range(count))
    low, median, high = np.quantile(lengths, (0.05, 0.5, 0.95), method="inverted_cdf")
    assert f"length: median {median} tokens; 5 % are at or below {low}, 95 % at or below {high}" in text
    some = Page(data_report(prepared, sample=20, seed=3))
    assert (
        f"20 of the {manifest.splits['train']['molecules']} molecules of the train split, drawn at random with seed 3"
        in (some.sections["Properties of kept molecules"])
    )
    kept = [figure for figure in some.figures if figure.startswith("drawn ") and " Da, logP " in figure]
    assert len(kept) == 8 and all(re.search(r"tokens(\S+)$", figure)[1] in made_up_smiles for figure in kept)  # type: ignore[index]


def test_a_histogram_counts_all_values_except_outliers() -> None:
    values, counts = np.array([1, 2, 3, 500]), np.array([4000, 5000, 3000, 2])
    chart = histogram(values, counts, "length", "tokens", 0, 1.0)
    assert [bar.tip for bar in chart.bars] == [
        "1 to below 2 tokens: 4,000",
        "2 to below 3 tokens: 5,000",
        "3 to below 4 tokens: 3,000",
    ]
    assert "all lie from 1 to 500, 2 of them beyond the axis" in chart.caption
    alone = histogram(np.array([3.0]), np.array([1]), "x", "", 1)
    assert "median 3.0; 5 % are at or below 3.0, 95 % at or below 3.0" in alone.caption and "nan" not in str(alone)
    html = str(templates().get_template("charts.html").module.histogram(chart))  # type: ignore[attr-defined]
    assert re.findall(r"<title>(.*?)</title>", html) == [bar.tip for bar in chart.bars]


@pytest.mark.parametrize(("seed", "scale"), [(0, 1e-3), (1, 1.0), (2, 1e5)])
def test_a_histogram_counts_every_value_once(seed: int, scale: float) -> None:
    values = np.sort(np.random.default_rng(seed).normal(size=5000)) * scale
    chart = histogram(values, np.ones(5000, dtype=np.int64), "x", "", 1)
    inside = sum(int(bar.tip.split(": ")[1].replace(",", "")) for bar in chart.bars)
    beyond = int(re.search(r"(\d+) of them beyond", chart.caption)[1])  # type: ignore[index]
    assert inside + beyond == 5000 and 0 < beyond <= 10
    assert 20 < len(chart.bars) <= 62


def test_small_numbers() -> None:
    assert [compact(n) for n in (0, 999, 1000, 9949, 34_000, 5_600_000, 2 * 10**9)] == [
        "0",
        "999",
        "1.0k",
        "9.9k",
        "34k",
        "5.6M",
        "2.0G",
    ]
    assert [percent(0, 5), percent(0, 0), percent(1, 3), percent(1, 10**6)] == [
        "0.00\u00a0%",
        "0.00\u00a0%",
        "33.33\u00a0%",
        "<\u00a00.01\u00a0%",
    ]


def test_the_colours_of_a_heat_map_follow_the_counts() -> None:
    depth = depths({"AC": 0, "BC": 1200})
    cells = {"AC": HeatCell(0, depth["AC"], "none"), "BC": HeatCell(1200, depth["BC"], "many")}
    heat_map = templates().get_template("charts.html").module.heat_map  # type: ignore[attr-defined]
    html = str(heat_map({"A": "a", "B": "b"}, {"C": "c"}, cells, "corner"))
    assert re.findall(r'--depth:([\d.]+)" title="(\w+)">([\d.k]+)<', html) == [("0.000", "none", "0"), ("1.000", "many", "1.2k")]
    one = tranche_charts({"AKIF": {"read": 1, "kept": 1, "rejected": {}}})
    assert one.cells == {"AK": HeatCell(1, 1.0, "AK: ≤ 200 Da, logP > 5: 1 kept of 1 lines, 0 rejected")}
    assert [rows[0][0][:11] for _, rows in one.by_letter] == ["I hot", "F annotated"]


@pytest.mark.parametrize("smiles", ["C[C@H](N)C(=O)Oc1ccc(Cl)cc1[N+](=O)[O-]", "[13CH4]", "[Cs+].[I-]", "C", "*"])
def test_a_drawing_has_the_colour_of_the_text(smiles: str) -> None:
    svg = molecules.drawing(smiles)
    assert svg.startswith('<svg viewBox="0 0 220 150">') and svg.rstrip().endswith("</svg>")
    assert "currentColor" in svg and not re.search("#000000|#FFFFFF|xmlns|http|class=|<!--", svg)
    assert svg == molecules.drawing(smiles)


def test_a_missing_or_damaged_folder_is_an_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"contains no manifest\.json"):
        data_report(tmp_path / "missing")
    with pytest.raises(ConfigError, match="sample must be at least 1, found 0"):
        data_report(folder, sample=0)
    cut = Path(shutil.copytree(folder, tmp_path / "cut"))
    compressed = (cut / "rejected.tsv.gz").read_bytes()
    (cut / "rejected.tsv.gz").write_bytes(compressed[:-10])
    with pytest.raises(DataError, match=r"rejected\.tsv\.gz has \d+ bytes"):
        data_report(cut)
    (cut / "rejected.tsv.gz").write_bytes(b"\0" * len(compressed))
    with pytest.raises(DataError, match=r"rejected\.tsv\.gz is damaged"):
        data_report(cut)


def test_an_existing_file_is_kept_unless_overwritten(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("existing")
    with pytest.raises(DataError, match=r"page\.html already exists.*overwrite=True"):
        write_data_report(folder, page)
    assert page.read_text() == "existing"
    write_data_report(folder, page, overwrite=True)
    assert page.read_text(encoding="utf-8") == data_report(folder)
    with pytest.raises(DataError, match=r"page\.html cannot be written"):
        write_data_report(folder, tmp_path / "no" / "page.html")


def test_the_report_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["data-report", str(folder), "-o", str(tmp_path / "page.html"), "--sample", "30", "--seed", "2"]
    assert cli.main(arguments) == 0
    assert "page.html" in capsys.readouterr().out
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == data_report(folder, sample=30, seed=2)
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err.startswith("nemo-cmim data-report: ")
