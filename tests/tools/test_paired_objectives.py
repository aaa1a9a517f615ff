"""The comparison of objectives over training seeds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import t as student

from nemo_cmim.errors import ConfigError, DataError
from nemo_cmim.evaluation.held_out import held_out_molecules
from nemo_cmim.evaluation.runs import Run
from nemo_cmim.inference import load
from tests.evaluation.made_up import write_model
from tools import objectives
from tools.validation import mean_log_p_k1, validation_scores

SPEC = Path(objectives.__file__).with_suffix(".yaml")
KINDS = ("mean", "informative")


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """A property of 30 molecules that any embedding shows."""
    folder = tmp_path / "sets"
    folder.mkdir()
    smiles = [f"{'C' * n}{tail}" for n in range(1, 16) for tail in ("O", "F")]
    pd.DataFrame({"smiles": smiles, "target": [len(s) for s in smiles]}).to_csv(folder / "size.csv", index=False)
    return folder


def options(data: Path, sets: Path, output: Path, spec: Path = SPEC) -> list[str]:
    return [str(spec), "--data", str(data), "--sets", str(sets), "--decoded", "4", "-o", str(output)]


def test_runs_of_a_pair_differ_only_in_the_objective(tmp_path: Path) -> None:
    args = objectives.arguments().parse_args(
        [*options(tmp_path / "data", tmp_path, tmp_path / "out"), "--train", "model.optim.lr=2"]
    )
    pairs, variants = objectives.runs_of(objectives.read_spec(args), args)
    own = ("objective=", "exp_manager.explicit_log_dir=")
    overrides = {(run.objective, run.seed): {o for o in run.overrides if not o.startswith(own)} for run in pairs}
    assert list(overrides) == [(name, seed) for seed in range(3) for name in ("cmim", "mim")]
    assert all(overrides["cmim", seed] == overrides["mim", seed] and f"seed={seed}" in overrides["mim", seed] for seed in range(3))
    assert all({"model.optim.lr=2", "run=default_model", "trainer.max_steps=1500"} <= found for found in overrides.values())
    for run, name in variants.items():
        assert run.seed == 0 and set(run.overrides) - overrides["cmim", 0] >= set(objectives.read_spec(args).variants[name])
    assert len({run.folder for run in (*pairs, *variants)}) == len(pairs) + len(variants) == 13


def test_the_shipped_spec_is_the_recipe_of_the_default_model(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("nemo.core", reason="needs the [train] extra")
    from nemo_cmim.training.run import check_settings, compose

    args = objectives.arguments().parse_args(options(data, tmp_path, tmp_path / "out"))
    pairs, variants = objectives.runs_of(objectives.read_spec(args), args)
    recipe = check_settings(compose(["run=default_model", f"model.train_ds.folder={data}"]))
    found = set()
    for run in (*[run for run in pairs if run.seed == 1], *variants):
        settings = check_settings(compose(run.overrides))
        assert (settings.optim, settings.objective.properties) == (recipe.optim, recipe.objective.properties)
        assert settings.network == recipe.network
        assert settings.objective.name == run.objective and settings.train_ds.seed == run.seed
        if run in variants or run.objective == "cmim":
            found.add((settings.objective.weights.get("log_p_k1", 1), settings.objective.tau))
    assert found == set(itertools.product((1, 10, 40, 200), (1, 0.1)))


def test_differences_are_tested_over_pairs() -> None:
    values = {"cmim": {"size RMSE": [1.0, 1.2, 0.9], "reconstruction": [0.5, 0.4, 0.6]},
              "mim": {"size RMSE": [1.3, 1.3, 1.4], "reconstruction": [0.5, 0.5, 0.9]}}  # fmt: skip
    rows = [
        (name, seed, "mean" if "RMSE" in measure else "", measure, value)
        for name, of_name in values.items()
        for measure, of_measure in of_name.items()
        for seed, value in enumerate(of_measure)
    ]
    table = objectives.differences(pd.DataFrame(rows, columns=objectives.COLUMNS), ("cmim", "mim")).splitlines()
    cells = {line.strip("| ").split(" | ")[0]: line.strip("| ").split(" | ")[1:] for line in table[2:]}
    p = {}
    for measure in values["cmim"]:
        difference = np.subtract(values["cmim"][measure], values["mim"][measure])
        sd = difference.std(ddof=1)
        p[measure] = 2 * student.sf(abs(difference.mean()) / (sd / np.sqrt(3)), df=2)
        kind, *found, better = cells[measure]
        assert found[:4] == [f"{difference.mean():+.3g}", f"{sd:.2g}", "3", f"{p[measure]:.2g}"]
        assert (kind, better) == (("mean", "cmim") if measure == "size RMSE" else ("", "mim"))
    assert cells["size RMSE"][5] == f"{2 * min(p.values()):.2g}" and cells["reconstruction"][5] == f"{max(p.values()):.2g}"


def test_one_pair_has_no_test() -> None:
    rows = [("cmim", 0, "mean", "size RMSE", 1.0), ("mim", 0, "mean", "size RMSE", 1.5)]
    table = objectives.differences(pd.DataFrame(rows, columns=objectives.COLUMNS), ("cmim", "mim"))
    assert table.splitlines()[-1] == "| size RMSE | mean | -0.5 | - | 1 | - | - | cmim |"


def test_three_objectives_are_an_error(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump({"objectives": ["cmim", "mim", "vae"], "seeds": [0], "steps": 1}))
    with pytest.raises(ConfigError, match=r"objectives must be two, found \['cmim', 'mim', 'vae'\]"):
        objectives.main(options(tmp_path, tmp_path, tmp_path / "out", spec))


def test_bad_input_is_found_before_training(data: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objectives, "train_all", lambda *_: pytest.fail("trains"))
    spec, output = tmp_path / "spec.yaml", tmp_path / "out"
    with pytest.raises(DataError, match=r"typo has no CSV file with properties"):
        objectives.main(options(data, tmp_path / "typo", output))
    rare = tmp_path / "rare"
    rare.mkdir()
    (rare / "toxic.csv").write_text("smiles,toxic\n" + "CCO,0\n" * 30 + "CC,1\n" * 24)
    with pytest.raises(DataError, match=r"toxic\.csv has neither the one column `target`, nor classes with 25 molecules"):
        objectives.main(options(data, rare, output))
    (rare / "toxic.csv").write_text("SMILES,target\nCCO,0\n")
    with pytest.raises(DataError, match=r"toxic\.csv has no column `smiles`; its columns: SMILES, target"):
        objectives.main(options(data, rare, output))
    with pytest.raises(DataError, match="no_data"):
        objectives.main(options(tmp_path / "no_data", sets, output))
    with pytest.raises(ConfigError, match="decoded must be at least 1, found 0"):
        objectives.main([*options(data, sets, output), "--decoded", "0"])
    spec.write_text("")
    with pytest.raises(ConfigError, match="The config has no objectives, seeds, steps"):
        objectives.main(options(data, sets, output, spec))
    same = {"objectives": ["cmim", "mim"], "seeds": [0], "steps": 1, "variants": {"tau, 1": [], "tau 1": []}}
    spec.write_text(yaml.safe_dump(same))
    with pytest.raises(ConfigError, match="Two names have the same folder"):
        objectives.main(options(data, sets, output, spec))


@pytest.mark.filterwarnings("ignore:.*SMILES had not ended")
def test_scores_are_kept_and_reported(
    data: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tmp_path / "spec.yaml"
    wanted = {"objectives": ["cmim", "mim"], "seeds": [0, 1], "steps": 5, "variants": {"tau 0.1": ["model.objective.tau=0.1"]}}
    spec.write_text(yaml.safe_dump(wanted))

    def train_all(runs: list[Run], jobs: int) -> Iterator[tuple[Run, float]]:
        for number, run in enumerate(runs):
            if run.nemo_file() is None:
                folder = run.folder / "training" / "checkpoints"
                folder.mkdir(parents=True)
                write_model(folder / "model.nemo", run.objective, 40, seed=run.seed + 10 * ("0.1" in run.folder.parts[-3]) + number)
            yield run, 1.0

    monkeypatch.setattr(objectives, "train_all", train_all)
    objectives.main(options(data, sets, tmp_path / "out", spec))
    printed = capsys.readouterr()
    assert "4/4 mim, seed 1: trained in 1 s" in printed.err and "1/1 tau 0.1, seed 0" in printed.err
    scores = pd.read_csv(tmp_path / "out" / "scores.csv", keep_default_na=False)
    measures = {("size RMSE", kind) for kind in KINDS} | {("log p_k1", "mean")}
    measures |= {(name, "") for name in ("token_accuracy", "reconstruction", "validity")}
    counts = scores.groupby(["objective", "measure", "kind"]).size().unstack("objective")
    assert set(counts.index) == measures
    assert (counts["cmim"] == 2).all() and (counts["mim"] == 2).all() and (counts["tau 0.1"] == 1).all()
    text = (tmp_path / "out" / "table.md").read_text()
    assert text == printed.out
    pairs, variants = text.split("# Variants of cmim")
    of_run = scores[(scores["measure"] == "size RMSE") & (scores["kind"] == "mean")].set_index(["objective", "seed"])["value"]
    assert f"| cmim | mean | {of_run['cmim'].mean():.3f} ± {of_run['cmim'].std():.3f} |" in pairs
    assert f"| size RMSE | mean | {of_run['cmim'].mean() - of_run['mim'].mean():+.3g} |" in pairs
    for name in ("cmim", "mim", "tau 0.1"):
        assert f"| {name} | mean | {of_run[name, 0]:.3f} |" in variants

    (path,) = (tmp_path / "out" / "runs" / "tau-0.1").rglob("*.nemo")
    model, of_variant = load(path), scores[scores["objective"] == "tau 0.1"].set_index(["measure", "kind"])["value"]
    for kind in KINDS:
        assert of_variant["size RMSE", kind] == pytest.approx(validation_scores(model, sets, kind)["size RMSE"])
    assert of_variant["size RMSE", "mean"] != of_variant["size RMSE", "informative"]
    log_p = [mean_log_p_k1(model, held_out_molecules(data, 4, 39), tau) for tau in (1.0, 0.1)]
    assert of_variant["log p_k1", "mean"] == pytest.approx(log_p[0]) and log_p[0] != pytest.approx(log_p[1])

    with monkeypatch.context() as kept:
        kept.delattr(objectives, "validation_scores")
        objectives.main(options(data, sets, tmp_path / "out", spec))
    assert capsys.readouterr().out == text

    table = pd.read_csv(sets / "size.csv")
    table.assign(target=table["target"] ** 2).to_csv(sets / "size.csv", index=False)
    objectives.main(options(data, sets, tmp_path / "out", spec))
    assert capsys.readouterr().out != text, "the scores of other property sets"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*(were truncated|had not ended)")  # models of 96 molecules do not end their strings
def test_a_comparison_from_start_to_end(with_properties: Path, sets: Path, tmp_path: Path) -> None:
    pytest.importorskip("nemo.core", reason="needs the [train] extra")
    from tests.training.runs import GIVEN_H, TINY

    spec = tmp_path / "spec.yaml"
    common = [*TINY, *GIVEN_H, "model.validation.reconstruct=0"]
    spec.write_text(yaml.safe_dump({"objectives": ["cmim", "mim"], "seeds": [0], "steps": 6, "common": common}))
    objectives.main([*options(with_properties, sets, tmp_path / "out", spec), "--jobs", "2"])
    scores = pd.read_csv(tmp_path / "out" / "scores.csv")
    assert set(scores["objective"]) == {"cmim", "mim"} and scores["value"].notna().all()
    assert scores[scores["measure"] == "log p_k1"]["value"].nunique() == 2
