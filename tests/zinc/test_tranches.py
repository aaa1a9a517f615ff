from __future__ import annotations

import gzip
import itertools
import math
import subprocess
import sys
from pathlib import Path

import pytest

from nemo_cmim.cli import main
from nemo_cmim.errors import ConfigError
from nemo_cmim.zinc.tranches import PAPER, Tranche, describe, select
from tests.shipped_names import DEFAULT


def codes(conditions: str, *, include_absent: bool = True) -> list[str]:
    return [tranche.code for tranche in select(conditions, include_absent=include_absent)]


def letters(place: int, conditions: str) -> str:
    return "".join(sorted({code[place] for code in codes(conditions)}))


@pytest.mark.parametrize(
    ("code", "molecular_weight", "logp"),
    [
        ("AAAA", (0, 200), (-math.inf, -1)),
        ("BDAA", (200, 250), (1, 2)),
        ("DECB", (300, 325), (2, 2.5)),
        ("JJGF", (450, 500), (4.5, 5)),
        ("KKIF", (500, math.inf), (5, math.inf)),
    ],
)
def test_bins_of_a_code(code: str, molecular_weight: tuple[float, float], logp: tuple[float, float]) -> None:
    assert (Tranche(code).molecular_weight, Tranche(code).logp) == (molecular_weight, logp)


def test_bins_cover_everything_once() -> None:
    for place, property_name in enumerate(("molecular_weight", "logp")):
        bins = [getattr(Tranche(("%sAAA", "A%sAA")[place] % letter), property_name) for letter in "ABCDEFGHIJK"]
        assert all(below[1] == above[0] for below, above in itertools.pairwise(bins))


@pytest.mark.parametrize("code", ["BAA", "BAAML", "LAAA", "ALAA", "AADA", "AAFA", "AAAG", "BA A"])
def test_invalid_codes(code: str) -> None:
    with pytest.raises(ConfigError, match=code):
        Tranche(code)


@pytest.mark.parametrize("name", ["BAAA.smi", "BAAA.txt", "BAAA.smi.gz", "BAAA.txt.xz", "some/where/BAAA.smi"])
def test_files_of_tranches(name: str) -> None:
    assert Tranche.of_file(name) == Tranche("BAAA")


@pytest.mark.parametrize(
    "name", ["baaa.smi", "BAAA", "BAAAML.smi", "XBAAA.smi", "BADA.smi", "BAAA.csv", "BAAA.smi.bz2", "BAAA/x.smi", "BAAA.smi.part"]
)
def test_files_of_other_names(name: str) -> None:
    assert Tranche.of_file(name) is None


def test_urls() -> None:
    assert Tranche("BAAA").url() == "http://files.docking.org/2D/BA/BAAA.smi"
    assert Tranche("JJGF").url("txt", "https://mirror/x/") == "https://mirror/x/JJ/JJGF.txt"


@pytest.mark.parametrize(
    ("conditions", "place", "expected"),
    [
        ("mw<=500", 0, "ABCDEFGHIJ"),
        ("mw>250", 0, "CDEFGHIJK"),
        ("MW > 250 mw <= 325", 0, "CD"),
        ("mw=a,K", 0, "AK"),
        ("logp<=5", 1, "ABCDEFGHIJ"),
        ("logp>-1", 1, "BCDEFGHIJK"),
        ("logp>=2.50 logp<3", 1, "F"),
        ("reactivity=anodyne", 2, "A"),
        ("reactivity=clean", 2, "ABC"),
        ("reactivity=standard", 2, "ABCE"),
        ("reactivity=reactive", 2, "ABCEG"),
        ("reactivity=hot", 2, "ABCEGI"),
        ("reactivity=A,C", 2, "AC"),
        ("purchasability=in-stock", 3, "AB"),
        ("purchasability=agent", 3, "ABC"),
        ("purchasability=wait-ok", 3, "ABCD"),
        ("purchasability=boutique", 3, "ABCDE"),
        ("purchasability=Annotated", 3, "ABCDEF"),
        ("subset=drug-like", 0, "BCDEFGHIJ"),
        ("subset=drug-like", 1, "ABCDEFGHIJ"),
        ("subset=lead-like", 1, "ABCDEFG"),
        ("subset=shards", 1, "ABCDEFGHIJK"),
        ("subset=goldilocks logp<=2.5", 1, "DE"),
        ("subset=drug-like subset=big-n-greasy", 0, "J"),
    ],
)
def test_conditions(conditions: str, place: int, expected: str) -> None:
    assert letters(place, conditions) == expected


def test_a_property_without_a_condition_can_have_any_value() -> None:
    assert len(codes("mw<=200")) == 11 * 6 * 6


def test_codes_among_the_conditions() -> None:
    assert codes("BCAA baaa", include_absent=False) == ["BAAA", "BCAA"]
    assert codes("AJAC", include_absent=False) == [
        "AJAC"
    ]  # a tranche given by its code is included, although it is not in ZINC's list
    assert codes("BAAA KAAA mw<=500") == ["BAAA"]


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ("mw<=310", "'mw<=310'.*nearest: 300 and 325"),
        ("mw<=100", "nearest: 200"),
        ("logp<=6", "nearest: 5"),
        ("logp>2.25", "nearest: 2 and 2.5"),
        ("mw<=heavy", "'heavy' is not a number"),
        ("mw<=inf", "'inf' is not a number"),
        ("mw=500", "'500' is not a value of mw.*mw<=NUMBER"),
        ("logP2<=1", "no property 'logp2'. Did you mean logp"),
        ("reactivity=reactiv", "'reactiv'.*Did you mean reactive"),
        ("reactivity=D", "'D' is not a value of reactivity; its letters are A, B, C, E, G, I"),
        ("reactivity=", "'' is not a value"),
        ("reactivity<=E", "write reactivity=LETTERS or reactivity=LEVEL. Choices: anodyne"),
        ("purchasability=instock", "Did you mean in-stock"),
        ("subset=leadlike", "Did you mean lead-like"),
        ("mw500", "'mw500' is neither"),
        ("mw<=200 mw>200", "No tranche"),
    ],
)
def test_invalid_conditions(conditions: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        select(conditions)


def test_the_papers_list_has_2795_of_3000_tranches() -> None:
    assert len(codes(PAPER)) == 3000
    listed = codes(PAPER, include_absent=False)
    assert len(listed) == 2795 and listed == sorted(listed)
    assert listed == [code for code in codes(PAPER) if Tranche(code).exists]


def test_tranches_outside_the_papers_list_are_unknown_and_included() -> None:
    assert {Tranche(code).exists for code in ("KAAA", "AKAA", "AAIA")} == {None}
    assert len(codes("mw>500", include_absent=False)) == 11 * 6 * 6


def test_the_list_equals_that_of_megamolbart(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with gzip.open(shared_data / "zinc" / "url_lists" / "megamolbart_ZINC-downloader.txt.gz", "rt") as file:
        theirs = file.read().split()
    assert main(["tranches", "--extension", "txt", "-o", str(tmp_path / "list.uri")]) == 0
    ours = (tmp_path / "list.uri").read_text().splitlines()
    assert ours == sorted(theirs)  # theirs are in ZINC's order
    assert len(set(ours)) == len(theirs) == 2795
    assert capsys.readouterr().err == "2,795 tranches\n"


def test_a_different_list_of_zinc(shared_data: Path) -> None:
    theirs = (shared_data / "zinc" / "url_lists" / "ZINC-downloader-2D-smi_969.uri").read_text().split()
    conditions = "subset=drug-like reactivity=clean purchasability=wait-ok"
    ours = {tranche.url() for tranche in select(conditions)}
    later = {
        Tranche(code).url() for code in ["CBBC", "FBCC", "HAAC", "HDBC", "ICCC", "IIBC", "IICC", "JGBC"]
    }  # not in MegaMolBART's
    assert set(theirs) == ours | later and not ours & later
    assert set(theirs) <= {tranche.url() for tranche in select(conditions, include_absent=True)}


def test_the_table_shows_bins_and_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tranches", "AAAA", "BCBC", "KKIF", "--format", "table"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows == list(describe(map(Tranche, ["AAAA", "BCBC", "KKIF"])))
    assert rows[1].split() == ["AAAA", "<=200", "<=-1", "anodyne", "in", "stock", "yes"]
    assert rows[2].split() == ["BCBC", "200..250", "0..1", "bother", "in", "stock", "via", "agent", "yes"]
    assert rows[3].split() == ["KKIF", ">500", ">5", "hot", "annotated,", "not", "for", "sale", "not", "known"]
    assert main(["tranches", "AJBC", "--format", "table"]) == 0
    assert capsys.readouterr().out.split()[-1] == "no"


def test_an_error_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["tranches", "mw<=501"]) == 2
    assert main(["tranches", "-o", str(tmp_path)]) == 2
    assert [line[:21] for line in capsys.readouterr().err.splitlines()] == ["nemo-cmim tranches: '", "nemo-cmim tranches: /"]


@pytest.mark.parametrize(("command", "expected"), [("tranches", "2,795 tranches\n"), (f"models {DEFAULT}", "")])
def test_a_closed_pipe_is_not_an_error(command: str, expected: str) -> None:
    shell = f"set -o pipefail; {sys.executable} -m nemo_cmim.cli {command} | true"
    assert subprocess.run(["bash", "-c", shell], check=True, capture_output=True, text=True).stderr == expected
