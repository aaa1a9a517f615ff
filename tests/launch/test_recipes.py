"""NeMo-Run: training with the local executor, the Slurm script, which equals a golden file, and the command line."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.launch.fake_slurm import FakeSlurm

DOCS = Path(__file__).resolve().parents[2] / "docs" / "launch.md"
GOLDEN = Path(__file__).with_name("golden_slurm.sh")
TINY = [
    "model.network.hidden_size=32", "model.network.ffn_size=64", "model.network.decoder_layers=2", "model.train_ds.workers=0",
    "model.validation_ds.workers=0", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false",
]  # fmt: skip
SUBMIT = """
import nemo_run as run
from nemo_cmim import recipes

executor = recipes.slurm_executor(
    "chemistry", "nemo-cmim.sqsh", partition="batch", nodes=4, devices=8, container_mounts=["/data:/data", "/runs:/runs"]
)
recipe = recipes.pretrain_recipe(
    "/data/zinc15", "/runs/one", nodes=4, devices=8, tensor_parallel=2, precision="bf16", micro_batch=256, global_batch=16384
)
with run.Experiment("cmim", executor=executor) as experiment:
    experiment.add(recipe, name="pretrain")
    experiment.dryrun(log=False, delete_exp_dir=False)
"""
TRAIN = """
import sys
import nemo_run as run
from nemo_cmim import recipes

data, folder, *overrides = sys.argv[1:]
recipe = recipes.pretrain_recipe(data, folder, model="tiny", devices=1, max_steps=3, micro_batch=16, overrides=overrides)
run.run(recipe, executor=recipes.local_executor(), name="cmim")
"""


def nemo_run_env(home: Path) -> dict[str, str]:
    """Environment in which NeMo-Run writes its files to `home` and finds the torchrun of this Python."""
    return {
        **os.environ,
        "NEMORUN_HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": "200",
    }


def call(home: Path, *command: str) -> str:
    done = subprocess.run(command, env=nemo_run_env(home), cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def recipes() -> Any:
    pytest.importorskip("nemo_run", reason="needs the [launch] extra")
    from nemo_cmim import recipes

    return recipes


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a job for 4 nodes with 8 GPUs each, as NeMo-Run would submit it."""
    pytest.importorskip("nemo_run", reason="needs the [launch] extra")
    home = tmp_path_factory.mktemp("nemo_run")
    call(home, sys.executable, "-c", SUBMIT)
    (folder,) = (home / "experiments" / "cmim").iterdir()
    return folder


def test_without_nemo_run_the_error_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['nemo_run'] = None\n"
        "try: import nemo_cmim.recipes\n"
        "except ValueError as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (
        done.stdout.strip() == "ConfigError Recipes require nemo_run, which is not installed. Run pip install 'nemo_cmim[launch]'."
    )


@pytest.mark.slow
def test_the_recipe_trains_through_the_local_executor(recipes: Any, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a run's folder, x=1"
    printed = call(tmp_path, sys.executable, "-c", TRAIN, str(data), str(folder), *TINY)
    assert "SUCCEEDED" in printed, printed
    assert [path.name for path in (folder / "checkpoints").glob("*.nemo")] == ["cmim.nemo"]
    import nemo_cmim

    assert nemo_cmim.embed(["CCO"], model=str(folder / "checkpoints" / "cmim.nemo")).shape == (1, 32)


def test_arguments_become_overrides(recipes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = pytest.importorskip("nemo_cmim.training.run", reason="needs the [train] extra")
    given: list[list[str]] = []
    monkeypatch.setattr(run, "train", lambda overrides: given.append(overrides))
    monkeypatch.setattr(run, "compose", lambda overrides: overrides)
    recipes.pretrain(
        "/data/zinc", "/runs/one", "tiny", "mim", 7, nodes=2, devices=4, tensor_parallel=2, precision="bf16", micro_batch=8,
        global_batch=64, overrides=["trainer.max_steps=9"],
    )  # fmt: skip
    recipes.pretrain("it's", "b")
    monkeypatch.undo()
    cfg = run.compose(given[0])
    assert cfg.model.global_batch_size == 64
    assert (cfg.model.train_ds.folder, cfg.exp_manager.explicit_log_dir) == ("/data/zinc", "/runs/one")
    assert cfg.exp_manager.resume_if_exists
    assert (cfg.model.objective.name, cfg.model.network.hidden_size, cfg.model.train_ds.batch_size) == ("mim", 128, 8)
    assert (cfg.trainer.num_nodes, cfg.trainer.devices, cfg.trainer.precision) == (2, 4, "bf16")
    assert cfg.model.parallel.tensor_model_parallel_size == 2
    assert cfg.trainer.max_steps == 9, "overrides take precedence"
    defaults = run.compose(given[1])
    assert defaults.model.train_ds.folder == "it's"
    assert defaults.trainer == run.compose([]).trainer, "arguments that are None keep the value of the file"


def test_the_commands_in_the_docs_use_existing_options(recipes: Any) -> None:
    import nemo_run

    commands = re.findall(r"^    nemorun cmim pretrain ((?:.*\\\n)*.*)", DOCS.read_text(), flags=re.MULTILINE)
    words = " ".join(commands).replace("\\\n", " ")
    executors = (nemo_run.LocalExecutor, nemo_run.SlurmExecutor)
    fields = {field.name for executor in executors for field in dataclasses.fields(executor)}
    settings = set(re.findall(r"run\.executor\.(\w+)=", words))
    arguments = set(re.findall(r'(?:^|[ "])(\w+)=', words))
    assert len(commands) == 6 and len(settings) > 5 and len(arguments) > 5
    assert settings <= fields and arguments <= set(inspect.signature(recipes.pretrain).parameters)


def test_an_unknown_argument_is_an_error(recipes: Any) -> None:
    with pytest.raises(TypeError, match="learning_rate"):
        recipes.pretrain_recipe("data", "run", learning_rate=1.0)


def test_the_papers_recipe(recipes: Any) -> None:
    paper = recipes.paper_recipe()
    assert paper.nodes * paper.devices * paper.micro_batch == paper.global_batch == 16_384
    assert (paper.precision, paper.max_steps, paper.model, paper.objective) == ("fp16", 250_000, "molmim_70m", "cmim")


def test_the_slurm_script_is_the_golden_one(experiment: Path) -> None:
    """After an intended change, write the text that the assertion shows to the file, and check it."""
    script = (experiment / "pretrain_sbatch.sh").read_text().replace(str(experiment), "/EXPERIMENT")
    assert script.rstrip() + "\n" == GOLDEN.read_text()


def test_the_job_gets_the_arguments_of_the_recipe(experiment: Path) -> None:
    config = (experiment / "pretrain" / "configs" / "pretrain_config.yaml").read_text()
    for line in ("data: /data/zinc15", "folder: /runs/one", "nodes: 4", "devices: 8", "tensor_parallel: 2", "precision: bf16"):
        assert line in config.splitlines(), config
    assert re.search(r"_target_: nemo_cmim\.recipes\.pretrain$", config, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("status", "restarts", "cancel", "requeued"),
    [(143, 0, False, True), (143, 50, False, False), (143, 0, True, False), (0, 0, False, False), (1, 0, False, False)],
    ids=["preempted", "too often", "cancelled", "finished", "failed"],
)
def test_only_a_preempted_job_comes_back(
    experiment: Path, slurm: FakeSlurm, status: int, restarts: int, cancel: bool, requeued: bool
) -> None:
    done = slurm.run(experiment / "pretrain_sbatch.sh", status=status, restarts=restarts, cancel=cancel)
    assert done.returncode == status, done.stderr
    assert "nemo_run.core.runners.fdl_runner" in slurm.called("srun")
    assert slurm.called("scontrol") == (["requeue 77"] if requeued else [])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size", "devices"), [("h100_recipe", 512, 8), ("gpu_recipe", 384, 1)])
def test_recipes_of_runs(recipes: Any, monkeypatch: pytest.MonkeyPatch, name: str, size: int, devices: int) -> None:
    """They train with a file of conf/run on the devices of the executor."""
    from nemo_cmim.training import run

    composed: list[Any] = []
    monkeypatch.setattr(run, "train", composed.append)
    recipe = getattr(recipes, name)()
    recipe.data, recipe.folder = "zinc", "one"
    recipes.fiddle.build(recipe)()
    (config,) = composed
    assert (config.model.network.hidden_size, config.trainer.devices, config.trainer.precision) == (size, devices, "bf16")
    settings = run.check_settings(config)
    assert settings.global_batch_size in (None, settings.train_ds.batch_size * devices)
    assert config.exp_manager.resume_if_exists and config.trainer.accelerator == "gpu"


def test_nemorun_finds_the_task_the_papers_recipe_and_the_executors(recipes: Any, tmp_path: Path) -> None:
    (entry,) = importlib.metadata.entry_points(group="nemo_run.cli", name="cmim")
    assert entry.load() is recipes
    nemorun = str(Path(sys.executable).with_name("nemorun"))
    shown = call(
        tmp_path, nemorun, "cmim", "pretrain", "--dryrun", "--yes", "--factory", "paper", "data=zinc", "folder=one", "nodes=2",
        "overrides=['model.optim.lr=2e-4','seed=1']", "run.executor=cmim_local", "run.executor.ntasks_per_node=3",
    )  # fmt: skip
    for name, value in (
        ("data", "'zinc'"), ("nodes", "2"), ("global_batch", "16384"), ("overrides", "['model.optim.lr=2e-4', 'seed=1']"),
    ):  # fmt: skip
        assert re.search(rf"{name} +│ {re.escape(value)} ", shown), shown
    assert "launcher='torchrun'" in shown and "ntasks_per_node=3" in shown, shown
    helped = call(tmp_path, nemorun, "cmim", "pretrain", "--help")
    assert all(name in helped for name in ("paper", "cmim_local", "cmim_slurm", "tensor_parallel")), helped
