"""examples/table1.py on tiny random models and made-up data."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import table1
import table1_models
import table1_published
import table1_report
import table1_sets
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nemo_cmim import molecules
from nemo_cmim.errors import ConfigError
from nemo_cmim.evaluation import blocks
from nemo_cmim.evaluation.features import read_vectors
from nemo_cmim.store.token_store import TokenStore
from nemo_cmim.tokenizers import SmilesTokenizer
from tests.evaluation.made_up import RINGS, made_up_predictions, write_model

SMALL = ["--seeds", "2", "--folds", "2", "--mlp-steps", "3", "--decoded", "4"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], models: dict[str, Path], data_folder: Path):
    """Runs the script; returns what it printed to stdout and to stderr."""

    def called(output: Path, *more: str, source: tuple[str, str] = ("--data", str(data_folder)), warned: str = "left out 2"):
        names = [f"{label}={path}" for label, path in models.items()]
        monkeypatch.setattr(sys, "argv", ["table1.py", *source, "--models", *names, *SMALL, "-o", str(output), *more])
        with pytest.warns(UserWarning, match=f"{warned} invalid rows"):
            table1.main()
        printed = capsys.readouterr()
        return printed.out, printed.err

    return called


@pytest.fixture
def sets_folder(tmp_path: Path) -> Path:
    """A regression set, of which one molecule is too long for all models, and a set of classes."""
    folder = tmp_path / "sets"
    folder.mkdir()
    rows = [f"{smiles}O,{len(smiles)}" for smiles in [*RINGS, "C" * 40]]
    (folder / "size.csv").write_text("smiles;target\n" + "\n".join(rows).replace(",", ";") + "\n")
    (folder / "classes.csv").write_text("smiles,toxic,active\nCCO,1,0\nCCN,0,\n")
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*SMILES had not ended")
def test_the_complete_table(run, tmp_path: Path, pretraining: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "measure", made_up_predictions)
    output = tmp_path / "out"
    printed, said = run(output, "--pretraining", str(pretraining), "--held-out", str(pretraining))
    assert (output / "table1.md").read_text() == printed.rstrip("\n") + "\n"
    assert "ESOL (30 rows; log10 mol/L), FreeSolv (30 rows, 2 left out for all rows of the table; kcal/mol)" in printed
    rows = [line.split(" | ")[0].strip("| ") for line in printed.split("## ")[1].splitlines() if line.startswith("| ")]
    all_layers = table1_models.ALL_LAYERS
    named = [f"{name}, {kind}" for name in ("cmim", "mim", "random weights") for kind in ("mean", "informative", all_layers)]
    named.remove(f"mim, {all_layers}")
    assert rows[1:12] == [*named, "Morgan, 512 bits", "Morgan, 2048 bits", "RDKit 2D descriptors"]
    opened = TokenStore.open(pretraining, "train")
    trained = {SmilesTokenizer(opened.vocabulary).decode(opened.tokens(i)) for i in range(len(opened))}
    same = sum(molecules.canonical_smiles(f"{smiles}O") in trained for smiles in RINGS[:3])
    flat = sum(molecules.canonical_smiles(f"C[C@H](O){smiles}") in trained for smiles in RINGS[:2])
    assert 0 < same + flat < 5, "some are in another split"
    assert f"| ESOL | {same} / 3 | {same} / 3 | 27 |" in printed
    assert f"| Lipophilicity | 0 / 0 | {flat} / 2 | 28 |" in printed and "| FreeSolv | 0 / 0 | 0 / 0 | 30 |" in printed
    dropped = pd.read_csv(output / "dropped.csv")
    assert dropped["line"].tolist() == [32, 33] and set(dropped["data"]) == {"FreeSolv"}
    predictions = pd.read_parquet(output / "predictions.parquet")
    tested = predictions.groupby(["data", "split", "features", "head", "seed"]).size().unstack("split")
    assert len(tested) == 3 * 11 * 2 * 2 and (tested["random"] == 30).all() and (tested["scaffold"] == 6).all()

    seen = pd.read_csv(output / "seen.csv")
    is_seen = seen[seen["data"] == "Lipophilicity"]["flat"].to_numpy()
    assert is_seen.tolist() == [True] * 2 + [False] * 28
    runs = pd.read_csv(output / "table1.csv")
    assert runs.groupby("rows").size()["all"] == 3 * 2 * 11 * 2 * 2
    key = {"data": "Lipophilicity", "split": "random", "features": "mim, mean", "head": "mlp", "seed": 1}
    for which, kept in (("all", slice(None)), ("unseen", slice(2, None))):
        own = predictions[np.logical_and.reduce([predictions[k] == v for k, v in key.items()])].sort_values("row")
        expected = np.sqrt(np.mean((own["prediction"] - own["target"]).to_numpy()[kept] ** 2))
        found = runs[np.logical_and.reduce([runs[k] == v for k, v in {**key, "rows": which}.items()])]
        assert found["rmse"].item() == pytest.approx(expected) and found["tested"].item() == len(own["row"].to_numpy()[kept])
    decoded = pd.read_csv(output / "decoding.csv")
    assert decoded["model"].tolist() == ["cmim", "mim"] and (decoded["molecules"] == 4).all()
    assert (output / "table1.png").read_bytes().startswith(b"\x89PNG")

    again, said = run(output, "--pretraining", str(pretraining), "--held-out", str(pretraining))
    assert again == printed and said.splitlines() == ["33 of 33 blocks were measured before"]
    run(output)
    assert sorted(path.name for path in output.glob("*.csv")) == ["dropped.csv", "table1.csv", "tests.csv"], (
        "files of the earlier call are removed"
    )


def rows_of(section: str) -> dict[str, list[str]]:
    """The cells of the first table of a section, by its first column."""
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return {name: cells for name, *cells in lines}


@pytest.mark.slow
def test_minimol_is_a_row_and_leaves_molecules_out_for_all_rows(
    run, tmp_path: Path, minimol_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "measure", made_up_predictions)
    output = tmp_path / "out"
    printed, said = run(output, "--minimol", str(minimol_environment), warned="left out [12]")
    assert "ESOL (29 rows, 1 left out for all rows of the table; log10 mol/L), FreeSolv (30 rows, 2 left out" in printed
    dropped = pd.read_csv(output / "dropped.csv")
    assert dropped.loc[dropped["data"] == "ESOL", ["smiles", "reason"]].to_numpy().tolist() == [
        ["C1CCCC1CO", "MiniMol computes no vector for it"]
    ]
    predictions = pd.read_parquet(output / "predictions.parquet")
    tested = predictions[predictions["split"] == "random"].groupby(["data", "features", "head", "seed"]).size().unstack("data")
    assert len(tested) == 12 * 2 * 2 and (tested["ESOL"] == 29).all() and (tested["FreeSolv"] == 30).all()
    sections = printed.split("## ")
    assert "computing MiniMol's vectors of 90 molecules" in said and "MiniMol has no vector of 1 molecules" in said
    assert sections[-1].startswith("Published numbers") and "| cMIM (1 x 512), mean | 0.47 |" in sections[-1]
    assert "MiniMol" in rows_of(sections[1]) and "MiniMol was also trained on measured properties" in sections[0]
    assert "| cmim, informative - MiniMol |" in printed

    (minimol_environment / "bin" / "python").unlink()
    again, said = run(output, "--minimol", str(minimol_environment), warned="left out [12]")
    assert again == printed and said.splitlines() == ["36 of 36 blocks were measured before"]


@pytest.mark.slow
def test_other_sets_and_their_logarithms(run, tmp_path: Path, sets_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "measure", made_up_predictions)
    output = tmp_path / "out"
    printed, _ = run(output, "--log10", "size", source=("--sets", str(sets_folder)), warned="left out 1")
    assert "size (30 rows, 1 left out for all rows of the table), size, log10 (30 rows, 1 left out" in printed
    assert "Without a column `target`, and not measured: classes.csv." in printed and "Published" not in printed
    assert next(iter(rows_of(printed.split("## ")[1]))) == "features" and "| size SVM | size MLP | size, log10 SVM |" in printed
    predictions = pd.read_parquet(output / "predictions.parquet").groupby("data")["target"]
    np.testing.assert_allclose(np.sort(predictions.unique()["size, log10"]), np.log10(np.sort(predictions.unique()["size"])))


@pytest.mark.parametrize(
    ("targets", "log10", "message"),
    [
        ("3", "weight", r"--log10 weight: choose from size\.$"),
        ("0", "size", r"size has the target 0, which has no logarithm"),
        ("", "size", r"has no CSV file with the column 'target'"),
    ],
)
def test_logarithms_that_do_not_exist_are_errors(
    tmp_path: Path,
    sets_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    models: dict[str, Path],
    targets: str,
    log10: str,
    message: str,
) -> None:
    (sets_folder / "size.csv").write_text(f"smiles,target\nCCO,{targets}\n" if targets else "smiles,value\nCCO,3\n")
    options = ["--sets", str(sets_folder), "--log10", log10, "--models", str(models["cmim"]), "-o", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["table1.py", *options])
    with pytest.raises(ValueError, match=message):
        table1.main()


def test_published_numbers_are_those_of_the_paper(shared_data: Path) -> None:
    (paper,) = (shared_data.parent / "seeds").glob("*.txt")
    table = paper.read_text().split("Table 1: Molecular")[0].rsplit("Model (Latent", 1)[1]
    cells = [line.replace("\u2013", "-").replace("%", " %").split("\t")[1:] for line in table.splitlines() if "\t" in line]
    printed = [list(row) for row in table1_published.PUBLISHED.values()]
    assert printed == [row for row in cells if re.fullmatch(r"[\d.]+", row[0])]
    labels = [name.split(" (")[0].split(" fingerprint")[0] for name in table1_published.PUBLISHED]
    assert labels == ["MIM", "cMIM", "MIM", "cMIM", "CDDD", "MegaMolBART", "Perceiver", "VAE", "Morgan"]
    kinds = [name.rpartition(", ")[2] for name in table1_published.PUBLISHED][:4]
    assert kinds == ["mean", "mean", "informative", "informative"]
    header = [f"{data} {head}" for data in ("ESOL", "FreeSolv", "Lipophilicity") for head in ("SVM", "MLP")]
    assert f"| model (latent K x D) | {' | '.join(header)} | reconstruction |" in table1_published.published_section()[-1]


def test_vectors_of_minimol_are_kept_for_their_molecules(minimol_environment: Path, tmp_path: Path) -> None:
    first, second = (
        table1_sets.minimol_row(smiles, minimol_environment, tmp_path, print) for smiles in (["CCO", "N"], ["CCF", "O"])
    )
    for (row, reason), smiles in ((first, "CCO"), (second, "CCF")):
        assert reason(smiles) is None and "no vector" in str(reason("CN")) and smiles in read_vectors(Path(row.vectors))
    (minimol_environment / "bin" / "python").unlink()
    assert table1_sets.minimol_row(["CCO", "N"], minimol_environment, tmp_path, print)[0] == first[0]


def test_the_mlp_has_the_papers_steps() -> None:
    assert table1.arguments().parse_args(["--data", "x"]).mlp_steps == 10_000


def test_two_models_of_one_label_are_an_error(models: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="Two models have the label 'c'"):
        table1_models.load_models([str(models["cmim"]), f"c={models['mim']}"])


def test_a_label_of_other_rows_is_an_error(models: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"The label 'random weights' is used .* give .*c\.nemo a different label"):
        table1_models.load_models([f"random weights={models['cmim']}"])


def test_no_seeds_are_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["table1.py", "--data", str(tmp_path), "--seeds", "0"])
    with pytest.raises(ConfigError, match="--seeds must be at least 1, found 0"):
        table1.main()


def test_the_mean_of_a_model_without_decoder_is_compared_with_random_weights(tmp_path: Path) -> None:
    path = write_model(tmp_path / "i.nemo", "infonce", 31, decoder_layers=0)
    paths, models = table1_models.load_models([f"i={path}"])
    rows = table1_models.feature_sets(paths, models)
    assert table1_models.contrasts_of(models, rows) == [("i, mean", "random weights, mean")]


def test_each_cmim_is_compared_with_mim(models: dict[str, Path]) -> None:
    paths, loaded = table1_models.load_models([f"cmim={models['cmim']}", f"other={models['cmim']}", f"mim={models['mim']}"])
    found = table1_models.contrasts_of(loaded, table1_models.feature_sets(paths, loaded))
    against_mim = [first for first, second in found if second == "mim, mean" and not first.startswith("mim")]
    assert against_mim == ["cmim, mean", "other, mean"]


def test_a_run_far_beyond_the_others_does_not_compress_the_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(table1_report, "FigureCanvasAgg", lambda figure: drawn.append(figure) or FigureCanvasAgg(figure))
    runs = pd.DataFrame({"data": "ESOL", "features": ["a", "b", "c"], "head": "mlp", "split": "random", "rmse": [0.7, 0.8, 500.0]})
    table1_report.draw(runs, tmp_path / "figure.png")
    (panel,) = drawn[0].axes
    assert panel.get_xlim()[1] < 2.2 and panel.get_xlabel() == "RMSE (triangles: more than 2)"
    points, far = panel.lines
    assert (points.get_marker(), list(points.get_xdata()), list(points.get_ydata())) == ("o", [0.7, 0.8], [2.15, 1.15])
    assert (far.get_marker(), list(far.get_xdata()), list(far.get_ydata())) == (">", [2.0], [0.15])


def test_without_a_cmim_the_first_model_is_compared_with_mim(tmp_path: Path, models: dict[str, Path]) -> None:
    path = write_model(tmp_path / "v.nemo", "vae", 31)
    paths, loaded = table1_models.load_models([f"vae={path}", f"mim={models['mim']}"])
    found = table1_models.contrasts_of(loaded, table1_models.feature_sets(paths, loaded))
    assert ("vae, mean", "mim, mean") in found and not any(first == second for first, second in found)
