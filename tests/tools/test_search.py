"""The search for recipes, with complete training runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

pytest.importorskip("nemo.core", reason="needs the [train] extra")

from nemo_cmim.errors import ConfigError
from tests.training.runs import TINY
from tools import search
from tools.folders import folders_of
from tools.validation import validation_scores

SETS = ("size RMSE", "polar ROC-AUC")


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two properties of 90 molecules that any embedding shows: the number of carbons, and whether there is a nitrogen."""
    folder = tmp_path_factory.mktemp("sets")
    smiles = [f"{head}{'C' * n}{tail}" for head in ("C", "CC(C)", "NC") for n in range(1, 16) for tail in ("O", "F")]
    pd.DataFrame({"smiles": smiles, "target": [s.count("C") for s in smiles]}).to_csv(folder / "size.csv", index=False)
    labels = {"has_nitrogen": [int("N" in s) for s in smiles], "rare": [1, *[0] * 89]}
    pd.DataFrame({"smiles": smiles, **labels}).to_csv(folder / "polar.csv", index=False)
    return folder


class Counts:
    """Stands in for a model: its vectors count letters."""

    def invalid_reason(self, smiles: str) -> str | None:
        return "too long" if smiles.endswith("C" * 10 + "F") else None

    def width(self, kind: str) -> int:
        return 3

    def embed(self, smiles: pd.Series, kind: str) -> np.ndarray:
        return np.array([[s.count(letter) for letter in "CNO"] for s in smiles], np.float32)


def test_scores_of_vectors_that_determine_the_targets(sets: Path) -> None:
    """A column with one molecule of a class is left out, and a molecule without vector counts as an average one."""
    scores = validation_scores(Counts(), sets)  # type: ignore[arg-type]
    assert sorted(scores) == sorted(SETS)
    assert scores["polar ROC-AUC"] > 0.95
    assert scores["size RMSE"] < 1.5


def test_recipes_have_different_folders() -> None:
    assert folders_of(["Muon", "Muon, lr 0.1"]) == {"Muon": "muon", "Muon, lr 0.1": "muon-lr-0.1"}
    with pytest.raises(ConfigError, match=r"Two names have the same folder; rename one: {'lr 0.1': 'lr-0.1', 'LR, 0.1': 'lr-0.1'}"):
        folders_of(["lr 0.1", "LR, 0.1"])


def test_recipes_are_ranked_by_all_scores() -> None:
    one = {"molecules": 8, "hours": 1.0, "validity": 0.0, "token_accuracy": 0.5, "size RMSE": 1.0, "polar ROC-AUC": 0.7}
    worse = one | {"recipe": "worse", "token_accuracy": 0.4, "size RMSE": 2.0, "polar ROC-AUC": 0.6, "validity": 1.0, "hours": 0.1}
    table = search.ranked([worse, one | {"recipe": "better"}])
    assert table["recipe"].tolist() == ["better", "worse"]
    assert table["mean rank"].tolist() == [1, 2]


def test_cpu_time_counts_over_interruptions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_PERIOD_S", 0.01)
    seconds, work = tmp_path / "run.seconds", "import time\nwhile time.process_time() < 0.5: pass\n"
    with (tmp_path / "log").open("ab") as log:
        assert search._run([sys.executable, "-c", work + "raise SystemExit(3)"], log, seconds) == 3
        first = float(seconds.read_text())
        assert search._run([sys.executable, "-c", work], log, seconds) == 0
    assert first >= 0.5 and float(seconds.read_text()) >= first + 0.5


@pytest.mark.filterwarnings("ignore:.* were truncated")  # a model of 320 molecules does not end its strings
@pytest.mark.slow
def test_a_search_halves_and_resumes(with_properties: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipes = {"slow": ["model.optim.lr=1e-4"], "fast": ["model.optim.lr=3e-3"]}
    common = [*TINY, "model.train_ds.folder={mix}", "model.validation.reconstruct=0"]
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump({"rungs": [320, 480], "common": common, "recipes": recipes}))
    command = ["search", str(tmp_path / "spec.yaml"), "--data", f"mix={with_properties}", "--held-out", str(with_properties)]
    command += ["--sets", str(sets), "--decoded", "10", "-o", str(tmp_path / "out")]

    def done() -> list[tuple[str, int]]:
        rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
        assert all(set(SETS) <= set(row) and row["hours"] > 0 for row in rows)
        return [(row["recipe"], row["molecules"]) for row in rows]

    monkeypatch.setattr("sys.argv", [*command, "--only", "fast", "320"])
    search.main()
    assert done() == [("fast", 320)]
    monkeypatch.setattr("sys.argv", command)
    search.main()
    table = (tmp_path / "out" / "table.md").read_text().splitlines()[2:]
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")[:2]) for line in table]
    assert done() == [("fast", 320), ("slow", 320), (rows[0][0], 480)]
    assert [molecules for _, molecules in rows] == ["320", "320", "480"]
