"""examples/ablations.py without training: the planned runs, the embeddings of a run, and the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ablation_settings
import ablations
import numpy as np
import pandas as pd
import pytest

from nemo_cmim import load
from nemo_cmim.downstream import RegressionData
from nemo_cmim.evaluation import blocks
from nemo_cmim.evaluation.features import EmbeddingSpec, FeatureSet
from nemo_cmim.evaluation.measure import Protocol
from nemo_cmim.inference import CMIMModel
from tests.evaluation.made_up import made_up_predictions, write_model

SMALL = ["--steps", "5", "--seeds", "2", "--mlp-steps", "3", "--decoded", "3"]


def arguments(output: Path, *more: str) -> list[str]:
    return [
        "--pretraining",
        str(output.parent / "store"),
        "--data",
        str(output.parent / "moleculenet"),
        *SMALL,
        "-o",
        str(output),
        *more,
    ]


def test_runs_differ_only_in_the_setting(tmp_path: Path) -> None:
    runs_of = ablations.plan(ablations.arguments().parse_args(arguments(tmp_path / "out", "--training-seeds", "2")))
    assert len(runs_of) == 1 + 3 + 2 + 1 + 2 and all([run.seed for run in runs] == [0, 1] for runs in runs_of.values())
    own = ("exp_manager.explicit_log_dir=", "seed=")
    common = set(runs_of[ablations.BASE][0].overrides)
    for name, runs in runs_of.items():
        more = [o for o in runs[1].overrides if o not in common and not o.startswith(own)]
        assert tuple(more) == ablations.SETTINGS[name]
    assert len({run.folder for runs in runs_of.values() for run in runs}) == 18


def test_all_settings_are_configurations(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("nemo.core", reason="needs the [train] extra")
    from nemo_cmim.training.run import compose, model_settings

    found = {}
    for name, (run,) in ablations.plan(ablations.arguments().parse_args(arguments(tmp_path / "out"))).items():
        settings = model_settings(compose(run.overrides))
        assert settings.optim.lr == 1e-3 and settings.train_ds.batch_size == 64
        assert (settings.augmentation.strings == "different_random") == (name == "randomized SMILES")
        found[name] = (settings.objective.tau, settings.network.latents, settings.network.hidden_size, settings.network.ffn_size)
    assert found.pop(ablations.BASE) == found.pop("randomized SMILES") == (1, 1, 128, 512)
    assert list(found.values()) == [(t, 1, 128, 512) for t in (0.03, 0.1, 0.3)] + [(1, k, 128, 512) for k in (2, 4)] + [
        (1, 1, d, 4 * d) for d in (64, 256)
    ]


def test_the_base_has_all_embeddings() -> None:
    assert list(ablation_settings.embeddings_of(3, False)) == ["mean", "informative"]
    informative = EmbeddingSpec("informative", None, "mean")
    assert ablation_settings.embeddings_of(3, True) == {
        "mean": (EmbeddingSpec("mean", None, "mean"),),
        "informative": (informative,),
        "last position": (EmbeddingSpec("informative", None, "last"),),
        "informative and mean": (informative, EmbeddingSpec("mean", None, "mean")),
        "layer 1 of 3": (EmbeddingSpec("informative", (1,), "mean"),),
        "layer 2 of 3": (EmbeddingSpec("informative", (2,), "mean"),),
        "all layers": (EmbeddingSpec("informative", (1, 2, 3), "mean"),),
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*SMILES had not ended")
def test_the_table(
    data: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[dict[str, Any]] = []
    sizes: dict[int, int] = {}

    def embed(self: CMIMModel, smiles: list[str], **options: Any) -> np.ndarray:
        asked.append(options)
        return np.zeros((len(smiles), 2))

    def measure(features: FeatureSet, data: RegressionData, protocol: Protocol) -> pd.DataFrame:
        vectors = features.featurizer(data.smiles, 0)(data.smiles)
        assert vectors.shape == (30, 2 * len(features.embeddings))
        return made_up_predictions(features, data, protocol)

    def train_all(runs: list[Any], jobs: int) -> Any:
        for number, run in enumerate(runs):
            (run.folder / "training" / "checkpoints").mkdir(parents=True, exist_ok=True)
            layers = 3 if run.folder.parents[1].name == "width-256" else 2
            path = run.folder / "training" / "checkpoints" / "cmim.nemo"
            sizes[layers] = sum(p.numel() for p in load(write_model(path, "cmim", 29, number, layers)).network.parameters())
            yield run, float(number)

    monkeypatch.setattr(CMIMModel, "embed", embed)
    monkeypatch.setattr(blocks, "measure", measure)
    monkeypatch.setattr(ablations, "train_all", train_all)
    more = ["--pretraining", str(data), "--training-seeds", "2"]
    with pytest.warns(UserWarning, match="left out 2 invalid rows"):
        ablations.main([*arguments(tmp_path / "out"), *more])
    printed = capsys.readouterr()
    assert "1/18 base, run 0: was trained before" in printed.err and "2/18 base, run 1: trained in 1 s" in printed.err
    measured = pd.read_csv(tmp_path / "out" / "measured.csv", keep_default_na=False)
    assert f"Parameters: base {sizes[2]:,}, tau 0.03 {sizes[2]:,}" in printed.out and f"width 256 {sizes[3]:,}." in printed.out
    assert sizes[2] < sizes[3]
    runs = [(name, kind) for name in ablations.SETTINGS for kind in ablation_settings.embeddings_of(2, name == ablations.BASE)]
    lines = [line.strip("| ").split(" | ") for line in printed.out.splitlines() if line.startswith("| ")]
    assert lines[0] == ["setting", "embedding", "ESOL svm", "ESOL mlp", "FreeSolv svm", "FreeSolv mlp", "Lipophilicity svm",
                        "Lipophilicity mlp", "token accuracy", "reconstruction", "validity"]  # fmt: skip
    assert [tuple(line[:2]) for line in lines[1:]] == runs
    of_cell = measured[(measured["objective"] == "tau 0.1") & (measured["kind"] == "mean") & (measured["measure"] == "ESOL mlp")]
    row = next(line for line in lines if line[:2] == ["tau 0.1", "mean"])
    assert of_cell["seed"].tolist() == [0, 1] and row[3] == f"{of_cell['value'].mean():.3f} ± {of_cell['value'].std():.3f}"
    assert {"kind": "informative", "layers": (1, 2), "pooling": "mean"} in asked
    assert (tmp_path / "out" / "table.md").read_text().strip() == printed.out.strip()
