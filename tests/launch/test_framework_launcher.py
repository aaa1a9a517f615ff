"""conf/launcher: composed as NVIDIA's launcher composes its own configs, and passed to our script as it passes them to NeMo's.

The launcher is not installed. `MAIN` and `CONFIG` reproduce its keys, the way it adds the tree, and what it saves.
"""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from nemo_cmim.config import ModelConfig
from nemo_cmim.mappings import from_mapping

pytest.importorskip("nemo.core", reason="needs the [train] extra")

ROOT = Path(__file__).resolve().parents[2]
TREE = ROOT / "conf" / "launcher"
SIZES = {
    "molmim_70m": "model=molmim_70m",
    "molmim_70m_h100": "run=molmim_70m_h100",
    "tiny": "model=tiny",
}  # file of the tree: our files
# The keys that the launcher reads from `run` of a stage on Slurm and from cluster/bcm.yaml. It passes the last three on to sbatch.
RUN_KEYS = {"name", "results_dir", "time_limit", "dependency"}
CLUSTER_KEYS = {"partition", "account", "exclusive", "gpus_per_task", "gpus_per_node", "mem", "job_name_prefix", "srun_args"}
CLUSTER_KEYS |= {"wait_all_nodes", "signal", "open_mode"}

CONFIG = """
defaults: [_self_, {cluster: null}, {training: null}]
data_dir: /data/zinc15
base_results_dir: /results
training_config: ${hydra:runtime.choices.training}
hydra: {run: {dir: .}, output_subdir: null}
"""
MAIN = """
import hydra
from omegaconf import OmegaConf

@hydra.main(config_path="conf", config_name="config", version_base=None)
def main(cfg):
    print(OmegaConf.to_yaml(cfg, resolve=True))

main()
"""


def launch(folder: Path, *arguments: str) -> Any:
    (folder / "conf").mkdir(exist_ok=True)
    (folder / "conf" / "config.yaml").write_text(CONFIG)
    (folder / "main.py").write_text(MAIN)
    command = [sys.executable, "main.py", f"--config-dir={TREE}", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)


@pytest.fixture(scope="module", params=sorted(SIZES))
def size(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def composed(size: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return launch(tmp_path_factory.mktemp("launcher"), "cluster=cmim_bcm", f"training=cmim/{size}")


def test_every_file_of_the_tree_is_tested() -> None:
    files = {path.relative_to(TREE).as_posix() for path in TREE.rglob("*.yaml")}
    assert files == {"cluster/cmim_bcm.yaml", *(f"training/cmim/{name}.yaml" for name in SIZES)}


def test_the_schema_is_the_launchers(composed: Any, size: str) -> None:
    stage = composed["training"]
    assert composed["training_config"] == f"cmim/{size}"
    assert set(stage) == {"run", "name", "seed", "trainer", "exp_manager", "model"}
    assert set(stage["run"]) == RUN_KEYS
    assert stage["run"]["results_dir"] == f"/results/cmim_{size}"
    assert stage["exp_manager"]["explicit_log_dir"] == f"/results/cmim_{size}/results"
    assert stage["exp_manager"]["resume_if_exists"] is True, "the next job of the chain resumes"
    assert set(composed["cluster"]) == CLUSTER_KEYS
    assert composed["cluster"]["gpus_per_node"] == stage["trainer"]["devices"]


def test_all_other_keys_are_our_settings(composed: Any, size: str) -> None:
    import lightning.pytorch as pl
    from omegaconf import OmegaConf

    from nemo_cmim.training.run import compose

    stage = composed["training"]
    ours: Any = OmegaConf.to_container(compose([SIZES[size], "model.train_ds.folder=/data/zinc15"]), resolve=True)
    for model in (stage["model"], ours["model"]):
        model.pop("global_batch_size")  # depends on the number of nodes and devices of the stage
        for part in ("train_ds", "validation_ds"):
            model[part].pop("shuffle_block")  # jobs on a cluster read data on a network file system
    assert from_mapping(ModelConfig, stage["model"], "model") == from_mapping(ModelConfig, ours["model"], "model")
    assert set(stage["trainer"]) == set(ours["trainer"]) <= set(inspect.signature(pl.Trainer).parameters)
    assert set(stage["exp_manager"]) == set(ours["exp_manager"])
    assert stage["exp_manager"]["checkpoint_callback_params"] == ours["exp_manager"]["checkpoint_callback_params"]


def test_the_papers_run(tmp_path: Path) -> None:
    stage = launch(tmp_path, "cluster=cmim_bcm", "training=cmim/molmim_70m")["training"]
    trainer, model = stage["trainer"], stage["model"]
    assert (trainer["num_nodes"], trainer["devices"], trainer["precision"], trainer["max_steps"]) == (4, 16, "fp16", 250_000)
    assert model["global_batch_size"] == 16_384 == trainer["num_nodes"] * trainer["devices"] * model["train_ds"]["batch_size"]


@pytest.mark.slow
def test_our_script_trains_with_the_config_that_the_launcher_saves(data: Path, tmp_path: Path) -> None:
    stage = launch(
        tmp_path, "cluster=cmim_bcm", "training=cmim/tiny", f"data_dir={data}", f"base_results_dir={tmp_path / 'results'}",
        "training.trainer.accelerator=cpu", "training.trainer.max_steps=2", "training.model.global_batch_size=16",
        "training.model.train_ds.workers=0", "training.model.validation_ds.workers=0", "training.model.train_ds.batch_size=16",
    )["training"]  # fmt: skip
    folder = Path(stage["run"]["results_dir"])
    folder.mkdir(parents=True)
    (folder / "cmim_tiny_hydra.yaml").write_text(yaml.safe_dump(stage))
    script = str(ROOT / "examples" / "pretrain.py")
    command = [sys.executable, "-u", script, f"--config-path={folder}", "--config-name=cmim_tiny_hydra.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert [path.name for path in (folder / "results" / "checkpoints").glob("*.nemo")] == ["cmim.nemo"]
