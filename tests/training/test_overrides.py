"""Overrides as users type them: values that Hydra cannot parse, and errors in plain words."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nemo.core", reason="needs the [train] extra")

from omegaconf import OmegaConf

from nemo_cmim.cli import main
from nemo_cmim.errors import ConfigError
from nemo_cmim.training.overrides import quoted
from nemo_cmim.training.run import check_settings, compose

FOLDER = "model.train_ds.folder=FOLDER"
FROM = "exp_manager.resume_from_checkpoint"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("runs/x/checkpoints/step=00000020.ckpt", "runs/x/checkpoints/step=00000020.ckpt"),
        ("läufe/λ=1/模型", "läufe/λ=1/模型"),
        ("it's (a) #1", "it's (a) #1"),
        ("a [b", "a [b"),
        ("a\\", "a\\"),
        ("${name}/step=20", "cmim/step=20"),
        ("${seed", "${seed"),
        ("${a b}=1", "${a b}=1"),
        # these parse, and stay as they are
        ("a b", "a b"),
        ("'a=b'", "a=b"),
        ('"x, y"', "x, y"),
        ("${name}", "cmim"),
        ("", ""),
        ("12", 12),
        ("null", None),
        ("[a,b]", ["a", "b"]),
        ("[runs/step=1.ckpt, läufe/x,'a,b',3]", ["runs/step=1.ckpt", "läufe/x", "a,b", 3]),
        ("[a]=1", "[a]=1"),
        ("[a=b,[c=d]]", "[a=b,[c=d]]"),
    ],
)
def test_a_value_reaches_the_config(value: str, expected: Any) -> None:
    for prefix in ("", "++"):
        cfg: Any = OmegaConf.to_container(compose([FOLDER, f"{prefix}{FROM}={value}"]), resolve=True)
        assert cfg["exp_manager"]["resume_from_checkpoint"] == expected


@pytest.mark.parametrize("override", ["model=tiny", "a.b=1", "~a.b", "+a=[1,2]", "name=my run", "x={a: 1}"])
def test_what_parses_is_not_changed(override: str) -> None:
    assert quoted(override) == override


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.optim.lrr=1", "Unknown config key model.optim.lrr. Did you mean model.optim.lr?"),
        ("+model.optim.lrr=1", "Unknown config key model.optim.lrr. Did you mean model.optim.lr?"),
        ("model.train_ds.foldr=x", "Unknown config key model.train_ds.foldr. Did you mean model.train_ds.folder?"),
        ("trainer.max_stepz=1", "Unknown config key trainer.max_stepz. Did you mean trainer.max_steps?"),
        (
            "exp_manager.explicit_log_di=x",
            "Unknown config key exp_manager.explicit_log_di. Did you mean exp_manager.explicit_log_dir?",
        ),
        (
            "exp_manager.checkpoint_callback_params.save_topk=1",
            "callback_params.save_topk. Did you mean exp_manager.checkpoint_callback_params.save_top_k?",
        ),
        ("seeed=1", "Unknown config key seeed. Did you mean seed?"),
        ("modell=tiny", "Unknown config key modell. Did you mean model?"),
        ("model.optim.lr.x=3", "model.optim.lr must be of type float, found {'x': 3}"),
        ("model=tinny", "Unknown model 'tinny'. Did you mean tiny? Choices: molmim_70m, small_cpu, tiny."),
        ("objective=", "Unknown objective ''. Choices: ae, bart,"),
        ("run=[a,b]", "Choices: default_model, gpu_cmim, molmim_70m_h100."),
        ("model=3", "model=3: model must be one of molmim_70m, small_cpu, tiny."),
        ("system=null", "system=null: system must be one of cmim, megamolbart, mim, molvae, perceiver_ae. Leave it out"),
        ("+model=tiny", "+model=tiny: model is one of several YAML files, of which one is in use already. Remove the +."),
        ("~modle", "'modle' does not exist."),
        ("name=a,b", "name=a,b gives several values to one key. Write a list as name=[a,b]."),
        ("folder", "'folder' is not a setting of the form KEY=VALUE"),
        ("a b=1", "'a b=1' is not a setting of the form KEY=VALUE"),
        ("=x", "'=x' is not a setting of the form KEY=VALUE"),
        ("name=${nope}", "name refers to ${nope}, a key that does not exist."),
        ("exp_manager=null", "exp_manager must be a mapping, found None."),
        ("model=[tiny", "Unknown model '[tiny'."),
    ],
)
def test_an_error_says_what_is_wrong_in_one_line(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        check_settings(compose([FOLDER, override]))
    assert "\n" not in str(caught.value) and "+model.optim" not in str(caught.value)


def test_an_unknown_config() -> None:
    with pytest.raises(
        ConfigError, match=r"Unknown config 'pretrian'\. Did you mean pretrain\? Choices: compare, demo, pretrain\."
    ):
        compose([], "pretrian")


def test_keys_that_only_the_dataclasses_know() -> None:
    cfg = compose([FOLDER, "model.objective.weights.log_p_k1=40", "model.augmentation.enumerate_smiles=true"])
    config = check_settings(cfg)
    assert config.objective.weights == {"log_p_k1": 40.0} and config.augmentation.strings == "different_random"


@pytest.mark.parametrize(
    "override", ["~trainer.gradient_clip_val", "~run", "run=default_model", "objective=vae", "system=molvae", "+trainer.max_time=x"]
)
def test_groups_deletions_and_additions_work_as_in_hydra(override: str) -> None:
    cfg = compose([FOLDER, override])
    check_settings(cfg)
    assert ("gradient_clip_val" in cfg.trainer) == (override != "~trainer.gradient_clip_val")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("objectivs=[cmim]", "Unknown config key objectivs. Did you mean objectives?"),
        ("regression.fold=3", "Unknown config key regression.fold. Did you mean regression.folds?"),
        ("objectives=[cmim", "objectives must be a list, found '[cmim'"),
        ("trainer.max_stepz=1", "Unknown config key trainer.max_stepz. Did you mean trainer.max_steps?"),
        ("model.optim.lrr=1", "Unknown config key model.optim.lrr. Did you mean model.optim.lr?"),
        ("model=tinny", "Unknown model 'tinny'. Did you mean tiny?"),
    ],
)
def test_compare_has_the_same_errors_before_its_first_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str, message: str
) -> None:
    assert main(["compare", "data=x", "steps=1", f"output={tmp_path / 'step=1 ü'}", override]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert message in said[-1] and said[-1].startswith("nemo-cmim compare: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_script_quotes_as_the_command_does(tmp_path: Path) -> None:
    script = Path(__file__).resolve().parents[2] / "examples" / "pretrain.py"
    missing = tmp_path / "step=00000020.ckpt"
    command = [
        sys.executable,
        str(script),
        "model=tiny",
        f"model.train_ds.folder={tmp_path}/ü=1",
        f"{FROM}={missing}",
        "--cfg",
        "job",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert f"resume_from_checkpoint: {missing}" in done.stdout, done.stderr


def test_a_config_may_lack_the_data() -> None:
    assert OmegaConf.is_missing(compose(["model=tiny"]).model.train_ds, "folder")
    with pytest.raises(ConfigError, match=r"model\.train_ds\.folder is not set\. Set it to a folder"):
        check_settings(compose(["model=tiny"]))
