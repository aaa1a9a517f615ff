"""examples/table1.py on tiny random models and made-up data."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import evaluation
import numpy as np
import pandas as pd
import pytest
import table1
import table1_leaks
import table1_report
from scipy.stats import t as student

from nemo_cmim import load, molecules
from nemo_cmim.comparison.measure import randomised
from nemo_cmim.downstream import RegressionData, builtin_featurizer, evaluate, named_heads
from nemo_cmim.errors import ConfigError, DataError
from nemo_cmim.molecules import randomized_smiles
from nemo_cmim.prepare.prepare import prepare
from nemo_cmim.store.token_store import TokenStore
from nemo_cmim.tokenizers import SmilesTokenizer
from tests.examples.made_up import RINGS, made_up_predictions, write_model

SMALL = ["--seeds", "2", "--folds", "2", "--mlp-steps", "3", "--decoded", "4"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], models: dict[str, Path], data_folder: Path):
    """Runs the script, and gives its folder, what it printed and what it said meanwhile."""

    def called(output: Path, *more: str):
        names = [f"{label}={path}" for label, path in models.items()]
        monkeypatch.setattr(
            sys, "argv", ["table1.py", "--data", str(data_folder), "--models", *names, *SMALL, "-o", str(output), *more]
        )
        with pytest.warns(UserWarning, match="left out 2 invalid rows"):
            table1.main()
        printed = capsys.readouterr()
        return printed.out, printed.err

    return called


@pytest.fixture(scope="module")
def pretraining(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three molecules of the ESOL file, spelled anew, two of the Lipophilicity file as one stereoisomer, and others."""
    folder = tmp_path_factory.mktemp("pretraining")
    planted = [randomized_smiles(f"{smiles}O", 1, seed=9)[0] for smiles in RINGS[:3]] + [f"C[C@H](O){s}" for s in RINGS[:2]]
    others = [f"{'C' * i}N(F){'C' * j}" for i in range(1, 9) for j in range(1, i)]
    (folder / "molecules.smi").write_text("\n".join(planted + others) + "\n")
    prepare([folder / "molecules.smi"], folder / "store", valid_fraction=0.3, test_fraction=0.3, processes=1, progress=False)
    return folder / "store"


def test_the_whole_table(run, tmp_path: Path, pretraining: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "measure", made_up_predictions)
    output = tmp_path / "out"
    printed, said = run(output, "--pretraining", str(pretraining), "--held-out", str(pretraining))
    assert (output / "table1.md").read_text() == printed.rstrip("\n") + "\n"
    assert "ESOL (30 rows; log10 mol/L), FreeSolv (30 rows, 2 left out in all rows of the table; kcal/mol)" in printed
    rows = [line.split(" | ")[0].strip("| ") for line in printed.split("## ")[1].splitlines() if line.startswith("| ")]
    named = [f"{name}, {kind}" for name in ("cmim", "mim", "random weights") for kind in ("mean", "informative", table1.ALL_LAYERS)]
    named.remove(f"mim, {table1.ALL_LAYERS}")
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
        "nothing is left of before"
    )


def test_an_evaluation_that_was_stopped_goes_on(run, tmp_path: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, str]] = []
    limit = 4

    def counted(row: evaluation.Row, data: RegressionData, protocol: evaluation.Protocol) -> pd.DataFrame:
        if len(done) == limit:
            raise KeyboardInterrupt
        done.append((data.name, row.name))
        return made_up_predictions(row, data, protocol)

    monkeypatch.setattr(evaluation, "measure", counted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out")
    limit = 1000
    _, said = run(tmp_path / "out")
    assert "4 of 33 blocks were measured before" in said and len(done) == len(set(done)) == 33
    file = data_folder / "delaney-processed.csv"
    file.write_text(file.read_text().replace(",6\n", ",6.5\n", 1))
    _, said = run(tmp_path / "out")
    assert said.startswith("22 of 33 blocks"), "another content of one file measures it anew"
    assert {name for name, _ in done[33:]} == {"ESOL"}


def test_weights_are_drawn_anew_for_each_seed(models: dict[str, Path], data_folder: Path) -> None:
    with pytest.warns(UserWarning, match="left out"):
        data = evaluation.load_sets(data_folder, load(models["mim"]).invalid_reason)[0]
    protocol = evaluation.Protocol(seeds=(3, 4), folds=3, mlp_steps=2, splits=("random",))
    row = evaluation.Row(
        "r", model=str(models["cmim"]), readings=(evaluation.Reading("mean"), evaluation.Reading()), is_redrawn=True
    )
    found = evaluation.rmse(evaluation.measure(row, data, protocol))
    for seed in protocol.seeds:
        model = randomised(load(models["cmim"]), seed)
        vectors = np.hstack([model.embed(data.smiles, kind="mean"), model.embed(data.smiles, kind="informative")])
        heads = named_heads(("svm", "mlp"), 2)
        expected = evaluate(data, {"r": lambda _, v=vectors: v}, heads, folds=3, seeds=(seed,)).runs
        np.testing.assert_allclose(found[found["seed"] == seed]["rmse"], expected["rmse"], rtol=1e-6)
    assert found["rmse"].nunique() == 4


@pytest.mark.parametrize("name", ["rdkit", "morgan64"])
def test_a_row_is_measured_as_evaluate_does(name: str, data_folder: Path) -> None:
    data = evaluation.load_sets(data_folder, lambda _: None)[0]
    protocol = evaluation.Protocol(seeds=(0, 1), folds=2, mlp_steps=3)
    found = evaluation.measure(evaluation.Row("r", builtin=name), data, protocol)
    for split in protocol.splits:
        alone = {"r": builtin_featurizer(name)}
        expected = evaluate(data, alone, named_heads(("svm", "mlp"), 3), split=split, folds=2, seeds=(0, 1)).predictions
        of_split = found[found["split"] == split].reset_index(drop=True)
        pd.testing.assert_frame_equal(of_split[list(expected.drop(columns="smiles"))], expected.drop(columns="smiles"))


@pytest.mark.slow
def test_blocks_in_processes_are_the_same(models: dict[str, Path], data_folder: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="left out"):
        sets = evaluation.load_sets(data_folder, load(models["mim"]).invalid_reason)[:2]
    protocol = evaluation.Protocol(seeds=(0, 1), folds=2, mlp_steps=2)
    loaded = {str(models["mim"]): load(models["mim"])}
    rows = [
        evaluation.Row("m", model=str(models["mim"]), readings=(evaluation.Reading("mean"),)),
        evaluation.Row("64", builtin="morgan64"),
    ]
    one, two = (
        evaluation.measure_all(rows, sets, protocol, tmp_path / str(jobs), loaded, jobs=jobs, say=lambda _: None) for jobs in (1, 2)
    )
    pd.testing.assert_frame_equal(one, two)


@pytest.mark.parametrize("features", ["morgan64", "morgan2048", "dense"])
def test_support_vectors_are_those_of_the_package(features: str, data_folder: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 7)) * np.arange(7) if features == "dense" else (rng.random((40, int(features[6:]))) < 0.1) * 1.0
    y = rng.normal(size=40)
    found, expected = evaluation.heads(1)["svm"].fit(x[:30], y[:30]), named_heads(("svm",), 1)["svm"].fit(x[:30], y[:30])
    np.testing.assert_allclose(found.predict(x[30:]), expected.predict(x[30:]), atol=1e-9)
    assert np.ptp(found.predict(x[30:])) > 1e-3


def runs_of(errors: dict[str, list[list[float]]]) -> pd.DataFrame:
    """For each row of features the errors of the seeds, in each of the heads."""
    return pd.DataFrame(
        [
            {"data": "D", "features": name, "head": head, "seed": seed, "rmse": value}
            for name, of_heads in errors.items()
            for head, values in zip(("svm", "mlp"), of_heads)
            for seed, value in enumerate(values)
        ]
    ).sample(frac=1, random_state=0)


def test_differences_are_paired_by_seed() -> None:
    a, b = [[1.0, 2.0, 3.0, 5.0], [1.0, 1.1, 0.9, 1.0]], [[1.5, 2.4, 3.6, 5.7], [1.0, 1.0, 1.0, 1.0]]
    found = table1_report.paired_tests(runs_of({"a": a, "b": b}), [table1_report.Contrast("a", "b")]).set_index("head")
    expected = []
    for first, second in zip(a, b):
        difference = np.subtract(first, second)
        statistic = difference.mean() / (difference.std(ddof=1) / np.sqrt(4))
        expected.append(2 * student.sf(abs(statistic), df=3))
    assert found.loc["svm", "difference"] == pytest.approx(-0.55) and found.loc["mlp", "difference"] == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(found.loc[["svm", "mlp"], "p"], expected)
    np.testing.assert_allclose(found.loc[["svm", "mlp"], "p_holm"], [2 * expected[0], expected[1]])
    text = table1_report.tests_table(found.reset_index())
    assert "**-0.550 (p = 0.003)**" in text and "(p = 1.000)" in text


def test_holm_steps_down() -> None:
    corrected = table1_report._holm(np.array([0.03, 0.01, np.nan, 0.02, 0.9]))
    np.testing.assert_allclose(corrected, [0.06, 0.04, np.nan, 0.06, 0.9])


@pytest.mark.parametrize("errors", [[[1.0]], [[1.0, 2.0, 3.0]]])
def test_without_spread_there_is_no_test(errors: list[list[float]]) -> None:
    shifted = [[value + 0.25 for value in errors[0]]]
    found = table1_report.paired_tests(runs_of({"a": errors, "b": shifted}), [table1_report.Contrast("a", "b")])
    assert found["difference"].item() == -0.25 and found[["p", "p_holm"]].isna().all(axis=None)
    assert "| -0.250 |" in table1_report.tests_table(found)


def test_what_was_seen_is_left_out_by_set_and_row() -> None:
    seen = pd.DataFrame({"data": ["A", "A", "B", "B"], "row": [0, 1, 0, 1], "same": False, "flat": [True, False, False, False]})
    predictions = pd.DataFrame({"data": ["B", "A", "A", "B", "A"], "row": [0, 0, 1, 1, 0]})
    assert table1_leaks.unseen(predictions, seen).index.tolist() == [0, 2, 3]


def test_molecules_are_looked_up_as_they_were_given(pretraining: Path, tmp_path: Path) -> None:
    """What prepare made of such a line was made of the line, and not of its canonical form."""
    data = RegressionData(name="D", smiles=[f"{RINGS[0]}O", "CCCCCCF"], targets=np.array([0.0, 1.0]))
    object.__setattr__(data, "canonical", ("C", "C"))
    found = table1_leaks.find_seen([data], pretraining, tmp_path, lambda _: None)
    assert found["same"].tolist() == found["flat"].tolist() == [True, False]


def test_data_sets_are_found_or_asked_for(data_folder: Path) -> None:
    sets = evaluation.load_sets(data_folder, lambda _: None)
    assert [len(one) for one in sets] == [30, 32, 30] and sets[0].targets[0] == 6 and sets[1].targets.any()
    file = data_folder / "SAMPL.csv"
    file.write_text(file.read_text().replace("expt", "measured"))
    with pytest.raises(DataError, match=r"SAMPL.csv has the columns .*'measured'.* Rename them"):
        evaluation.load_sets(data_folder, lambda _: None)
    file.unlink()
    with pytest.raises(DataError, match=r"holds no file of FreeSolv: it is called freesolv.csv or SAMPL.csv"):
        evaluation.load_sets(data_folder, lambda _: None)


def test_two_models_of_one_label_are_refused(models: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="Two models are called 'c'"):
        table1.load_models([str(models["cmim"]), f"c={models['mim']}"])


def test_a_label_of_other_rows_is_refused(models: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"is called 'random weights' already: give .*c\.nemo another label"):
        table1.load_models([f"random weights={models['cmim']}"])


def test_no_seeds_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["table1.py", "--data", str(tmp_path), "--seeds", "0"])
    with pytest.raises(ConfigError, match="--seeds must be at least 1, found 0"):
        table1.main()


def test_a_model_without_decoder_decodes_nothing(tmp_path: Path, pretraining: Path) -> None:
    model = load(write_model(tmp_path / "i.nemo", "infonce", 31, decoder_layers=0))
    decoded = evaluation.decode_all({"i": model}, pretraining, 4, tmp_path / "decoding.json")
    assert table1_report.shares_table(decoded).splitlines()[-1] == "| i | 4 | no decoder | no decoder | no decoder |"


def test_its_mean_is_compared_with_that_of_random_weights(tmp_path: Path) -> None:
    models = table1.load_models([f"i={write_model(tmp_path / 'i.nemo', 'infonce', 31, decoder_layers=0)}"])
    assert table1.contrasts_of(models, table1.rows_of(models)) == [("i, mean", "random weights, mean")]


def test_molecules_of_the_training_are_not_held_out(models: dict[str, Path], pretraining: Path, tmp_path: Path) -> None:
    held_out = TokenStore.open(pretraining, "test")
    tokenizer = SmilesTokenizer(held_out.vocabulary)
    texts = [tokenizer.decode(held_out.tokens(i)) for i in range(len(held_out))]
    loaded = {"c": load(models["cmim"])}
    for count in (3, len(texts)):
        (tmp_path / "seen.smi").write_text("\n".join(randomized_smiles(texts[i], 1, seed=9)[0] for i in range(count)) + "\n")
        folder = tmp_path / f"trained{count}"
        prepare([tmp_path / "seen.smi"], folder, valid_fraction=0, test_fraction=0, processes=1, progress=False)
        if count < len(texts):
            decoded = evaluation.decode_all(loaded, pretraining, 1000, tmp_path / "decoding.json", folder)
            assert decoded["molecules"].item() == len(texts) - count > 0
        else:
            with pytest.raises(DataError, match=f"All {count} molecules of the test split"):
                evaluation.decode_all(loaded, pretraining, 1000, tmp_path / "decoding.json", folder)


def test_changed_code_is_measured_anew(data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "measure", made_up_predictions)
    sets = evaluation.load_sets(data_folder, lambda _: None)[:1]
    row, protocol = evaluation.Row("64", builtin="morgan64"), evaluation.Protocol(seeds=(0,), folds=2)
    said: list[str] = []
    before = evaluation.code_digest()
    for release in ("1", "1", "2"):
        monkeypatch.setattr(evaluation, "version", lambda name, of=release: of if name == "rdkit" else "0")
        assert evaluation.code_digest() != before
        evaluation.measure_all([row], sets, protocol, tmp_path, {}, say=said.append)
    assert [line.split(",")[0] for line in said] == ["1/1 ESOL", "1 of 1 blocks were measured before", "1/1 ESOL"]
    other = tmp_path / "nemo_cmim"
    shutil.copytree(Path(evaluation.nemo_cmim.__file__).parent, other)
    monkeypatch.setattr(evaluation.nemo_cmim, "__file__", str(other / "__init__.py"))
    digests = [evaluation.code_digest()]
    for file in ("downstream/heads.py", "models/network.py", "comparison/measure.py", "tokenizers/smiles.py", "molecules.py"):
        with (other / file).open("a") as source:
            source.write("# changed")
        digests.append(evaluation.code_digest())
    assert len(set(digests)) == 6
