from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LinearRegression
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import FunctionTransformer

from nemo_cmim.downstream import (
    RegressionData,
    builtin_featurizer,
    compute_features,
    describe,
    evaluate,
    freesolv,
    load_csv,
    make_folder,
    markdown,
    named_heads,
    random_folds,
    rdkit_descriptors,
    write_report,
)
from nemo_cmim.errors import ConfigError, DataError, InvalidShapeError
from nemo_cmim.properties.features import descriptor_preparation

SMILES = ["C" * n for n in range(1, 21)] + ["OCC", "CCO"]


@pytest.fixture
def data() -> RegressionData:
    """Targets in thousands: 1000 times the number of atoms, plus noise."""
    rng = np.random.default_rng(0)
    return RegressionData(name="chains", smiles=SMILES, targets=1000.0 * counts(SMILES)[:, 0] + rng.normal(size=22), unit="mg")


def counts(smiles):
    return np.array([[len(s), s.count("O")] for s in smiles], dtype=np.float64)


def test_errors_equal_a_plain_loop_in_the_unit_of_the_target(data):
    results = evaluate(data, {"counts": counts}, {"linear": LinearRegression()}, folds=4, seeds=(0, 7), progress=False)
    expected = []
    for seed in (0, 7):
        guess = np.empty(22)
        for train, test in random_folds(data.canonical, 4, seed):
            guess[test] = LinearRegression().fit(counts(SMILES)[train], data.targets[train]).predict(counts(SMILES)[test])
        wrong = guess - data.targets
        ss = ((data.targets - data.targets.mean()) ** 2).sum()
        expected.append((np.sqrt((wrong**2).mean()), np.abs(wrong).mean(), 1 - (wrong**2).sum() / ss))
    np.testing.assert_allclose(results.runs[["rmse", "mae", "r2"]], expected, rtol=1e-6)
    summary = results.summary().iloc[0]
    assert summary["rmse_mean"] == pytest.approx(np.mean([row[0] for row in expected]))
    assert summary["rmse_sd"] == pytest.approx(np.std([row[0] for row in expected], ddof=1))


def test_predictions_are_out_of_fold_and_cover_every_row(data):
    results = evaluate(data, {"counts": counts}, {"mean": DummyRegressor()}, folds=4, seeds=(3,))
    table = results.predictions
    assert list(table.columns) == ["features", "head", "seed", "fold", "row", "smiles", "target", "prediction"]
    assert sorted(table["row"]) == list(range(22))
    assert [data.smiles[row] for row in table["row"]] == list(table["smiles"])
    for fold, (train, _) in enumerate(random_folds(data.canonical, 4, 3)):
        np.testing.assert_allclose(table[table["fold"] == fold]["prediction"], data.targets[train].mean())
    assert results.baseline_rmse == pytest.approx(results.runs["rmse"].iloc[0])


def test_features_are_computed_once_by_function_or_transformer(data):
    calls = []

    def counted(smiles):
        calls.append(len(smiles))
        return counts(smiles)

    features = {"function": counted, "transformer": FunctionTransformer(counts)}
    results = evaluate(data, features, named_heads(["svm", "mlp"], mlp_steps=20, device="cpu"), folds=2, seeds=(0, 1))
    assert calls == [22]
    assert len(results.runs) == 2 * 2 * 2
    table = results.runs.set_index(["features", "head", "seed"])["rmse"]
    np.testing.assert_array_equal(table["function"], table["transformer"])


def test_the_seed_reaches_the_head(data):
    heads = {"net": MLPRegressor(hidden_layer_sizes=4, max_iter=1)}
    with pytest.warns(UserWarning):
        first, second = (evaluate(data, {"counts": counts}, heads, folds=2, seeds=(5,)) for _ in range(2))
    np.testing.assert_array_equal(first.predictions["prediction"], second.predictions["prediction"])


def test_mlps_of_many_folds_train_in_groups(data):
    heads = named_heads(["mlp"], mlp_steps=10, device="cpu")
    results = evaluate(data, {"counts": counts}, heads, folds=7, seeds=(0,))
    x = counts(SMILES)
    for fold, (train, test) in enumerate(random_folds(data.canonical, 7, 0)):
        alone = heads["mlp"].fit(x[train], data.targets[train]).predict(x[test])
        rows = results.predictions[results.predictions["fold"] == fold]
        np.testing.assert_allclose(rows["prediction"], alone, rtol=1e-4)


def test_missing_descriptors_are_imputed_from_training_rows_only():
    train = np.array([[1.0, 5.0, np.nan, 0.0], [3.0, 5.0, 2.0, 1.0], [2.0, 5.0, 4.0, 1.0]])
    test = np.array([[np.nan, 9.0, np.nan, 1e30]])
    preparation = descriptor_preparation().fit(train)
    assert preparation.transform(train).shape == (3, 3)
    np.testing.assert_allclose(preparation.transform(test), [[0.0, 0.0, 5.0]], atol=1e-12)


def test_rdkit_descriptors_with_missing_values_can_be_evaluated(data, monkeypatch):
    values = np.hstack([counts(SMILES), np.where(np.arange(22) % 5, 1.5, np.nan)[:, None]])
    monkeypatch.setattr("nemo_cmim.properties.features.descriptors", lambda smiles: values)
    results = evaluate(data, {"rdkit": builtin_featurizer("rdkit")}, {"linear": LinearRegression()}, folds=2, seeds=(0,))
    assert results.runs["rmse"].iloc[0] < 100


@pytest.mark.parametrize(
    ("featurizer", "message"),
    [
        (lambda s: np.ones((3, 2)), r"shape \[22, D\], found \[3, 2\]"),
        (lambda s: np.ones(22), r"found \[22\]"),
        (lambda s: np.ones((22, 0)), r"found \[22, 0\]"),
        (lambda s: np.where(np.arange(44).reshape(22, 2) == 7, np.nan, 1.0), r"1 values .* column 1 of molecule 3 \('CCCC'\)"),
        (lambda s: np.full((22, 1), np.inf), "22 values that are NaN or infinite"),
    ],
)
def test_bad_features_raise_an_error(data, featurizer, message):
    with pytest.raises(InvalidShapeError, match=f"Features 'bad' .*{message}"):
        evaluate(data, {"bad": featurizer})


def test_bad_settings_raise_an_error(data):
    with pytest.raises(ConfigError, match="features is empty"):
        evaluate(data, {})
    with pytest.raises(ConfigError, match="seeds is empty"):
        evaluate(data, {"counts": counts}, seeds=())
    with pytest.raises(ConfigError, match="repeat"):
        evaluate(data, {"counts": counts}, seeds=(1, 1))
    with pytest.raises(ConfigError, match="'time'"):
        evaluate(data, {"counts": counts}, split="time")
    with pytest.raises(ConfigError, match=r"Unknown head 'forest'. Known: svm, mlp"):
        named_heads(["forest"])
    with pytest.raises(ConfigError, match="mlp_steps must be at least 1, found 0"):
        named_heads(["mlp"], mlp_steps=0)
    for name in ("morgan", "morgan0", "ecfp"):
        with pytest.raises(ConfigError, match=f"Unknown features '{name}'"):
            builtin_featurizer(name)
    with pytest.raises(DataError, match="nothing to predict"):
        evaluate(RegressionData(name="flat", smiles=["C", "CC"], targets=[1.0, 1.0]), {"counts": counts}, folds=2)


def test_builtin_features_have_their_sizes():
    assert compute_features("m", builtin_featurizer("morgan512"), ["CCO", "C"]).shape == (2, 512)
    assert compute_features("r", rdkit_descriptors, ["CCO", "C"]).shape[1] > 200


def test_report_has_protocol_and_numbers(data, tmp_path):
    results = evaluate(data, {"counts": counts, "ones": lambda s: np.ones((len(s), 1))}, {"linear": LinearRegression()}, folds=4)
    text = describe(results)
    for part in (
        "22 rows, 21 distinct",
        "4-fold",
        "seeds 0, 1, 2",
        "RMSE in mg, one value per seed",
        "standard deviation over 3 seeds",
    ):
        assert part in text
    lines = markdown(results).splitlines()
    assert lines[0] == "| features | linear |"
    summary = results.summary().iloc[0]
    assert lines[2] == f"| counts | {summary['rmse_mean']:.3f} ± {summary['rmse_sd']:.3f} |"

    files = write_report(results, tmp_path / "new" / "report")
    assert [file.name for file in files] == ["report.md", "runs.csv", "predictions.csv", "parity.png"]
    assert text in files[0].read_text(encoding="utf-8")
    pd.testing.assert_frame_equal(pd.read_csv(files[1]), results.runs)
    assert len(pd.read_csv(files[2])) == 2 * 3 * 22
    assert files[3].read_bytes().startswith(b"\x89PNG")


def test_one_seed_has_no_standard_deviation(data):
    results = evaluate(data, {"counts": counts}, {"linear": LinearRegression()}, folds=4, seeds=(0,))
    assert "±" not in markdown(results)
    assert "one seed, so no standard deviation" in describe(results)


def test_a_folder_that_cannot_be_created(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be created"):
        make_folder(tmp_path / "file")


def test_freesolv_with_morgan_fingerprints_gives_the_known_error():
    try:
        data = freesolv()
    except DataError as error:
        pytest.skip(str(error))
    heads = named_heads(["svm", "mlp"], mlp_steps=300, device="cpu")
    results = evaluate(data, {"morgan512": builtin_featurizer("morgan512")}, heads, seeds=(0,))
    rmse = results.runs.set_index("head")["rmse"]
    assert 2.5 < rmse["svm"] < 2.8
    assert 1.9 < rmse["mlp"] < 2.4
    assert results.baseline_rmse == pytest.approx(3.85, abs=0.02)


def test_esol_by_scaffold_is_harder_than_at_random(shared_data):
    data = load_csv(shared_data / "moleculenet" / "esol.csv")
    features = {"morgan512": builtin_featurizer("morgan512")}
    runs = [evaluate(data, features, named_heads(["svm"]), split=split, seeds=(0,)).runs for split in ("random", "scaffold")]
    random, scaffold = (run["rmse"].iloc[0] for run in runs)
    assert 1.1 < random < 1.4 < scaffold < 1.9
