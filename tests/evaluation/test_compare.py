"""Comparisons of objectives: real training runs in processes of their own, one table, one figure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("nemo.core", reason="needs the [train] extra")

from nemo_cmim.cli import main
from nemo_cmim.errors import ConfigError
from nemo_cmim.evaluation import runs
from nemo_cmim.evaluation.figure import draw, figure
from nemo_cmim.evaluation.runs import planned
from nemo_cmim.evaluation.settings import CompareConfig
from nemo_cmim.evaluation.tables import comparison_table
from nemo_cmim.training.run import compose

SMALL = [
    "model=tiny", "model.network.hidden_size=32", "model.network.ffn_size=64", "model.network.encoder_layers=1",
    "model.train_ds.batch_size=16", "model.train_ds.workers=0", "model.validation_ds.workers=0", "model.validation.reconstruct=0",
    "trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "trainer.num_sanity_val_steps=0",
]  # fmt: skip

ONE_RUN = ("objectives=[cmim]", "seeds=[0]")  # the settings of each run are composed before the data are read


@pytest.fixture
def values(tmp_path: Path) -> Path:
    """Chain lengths as a property, and one molecule that is too long for the models."""
    rows = [f"{'C' * n}O,{n}" for n in range(1, 31)] + [f"{'C' * 200},200"]
    (tmp_path / "chains.csv").write_text("smiles,target\n" + "\n".join(rows) + "\n")
    return tmp_path / "chains.csv"


def arguments(data: Path, values: Path, output: Path, *more: str) -> list[str]:
    own = [f"data={data}", "steps=3", "seeds=[0,1]", "objectives=[cmim,infonce]", f"output={output}", "jobs=2", "decoded=5"]
    own += [f"regression.data=[{values}]", "regression.heads=[svm]", "regression.folds=3", "regression.features=[morgan64]"]
    return ["compare", *own, *SMALL, *more]


@pytest.mark.filterwarnings("ignore:.*SMILES had not ended")
@pytest.mark.slow
def test_a_comparison_is_written_resumed_and_protected(
    data: Path, values: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    with pytest.warns(UserWarning, match="left out 1 invalid rows"):
        assert main(arguments(data, values, output)) == 0
    table = (output / "table.md").read_text()
    assert "chains (30 rows, without 1 that the models do not accept)" in table
    rows = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| ")]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["objective", "embedding"],
        ["cmim", "mean"],
        ["cmim", "informative"],
        ["infonce", "mean"],
        ["random weights", "mean"],
        ["random weights", "informative"],
        ["morgan64", ""],
    ]
    measured = pd.read_csv(output / "measured.csv", keep_default_na=False)
    of_cmim = measured[(measured["objective"] == "cmim") & (measured["seed"] == 1)]
    assert of_cmim["measure"].tolist() == ["token_accuracy", "reconstruction", "validity", "chains svm", "chains svm"]
    assert (output / "figure.png").read_bytes().startswith(b"\x89PNG")

    capsys.readouterr()
    with pytest.warns(UserWarning, match="left out"):
        assert main(arguments(data, values, output)) == 0
    assert capsys.readouterr().out.count("was trained before") == 4
    assert (output / "table.md").read_text() == table
    with pytest.warns(UserWarning, match="left out"):
        assert main(arguments(data, values, output, "regression.folds=2")) == 0
    again = pd.read_csv(output / "measured.csv", keep_default_na=False)
    errors = again["measure"] == "chains svm"
    assert (again["value"] != measured["value"])[errors].all(), "other settings are measured again"
    values.write_text(values.read_text().replace("CO,1\n", "CO,1.5\n", 1))
    with pytest.warns(UserWarning, match="left out"):
        assert main(arguments(data, values, output, "regression.folds=2")) == 0
    changed = pd.read_csv(output / "measured.csv", keep_default_na=False)
    assert (again["value"] != changed["value"])[errors].all(), "other content of the same file is measured again"
    with pytest.warns(UserWarning, match="left out"):
        assert main(arguments(data, values, output, "model.optim.lr=5e-3")) == 2
    assert "has a run with different settings (model.optim.lr=5e-3)" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_fails_is_named_with_its_log(
    data: Path, values: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.warns(UserWarning, match="left out"):
        status = main(
            arguments(data, values, tmp_path / "out", "seeds=[0]", "objectives=[cmim]", "model.train_ds.batch_size=100000")
        )
    error = capsys.readouterr().err
    assert status == 2 and "The run cmim-0 failed" in error and "100000 molecules" in error
    assert str(tmp_path / "out" / "runs" / "cmim-0" / "train.log") in error


@pytest.mark.slow
def test_a_terminated_comparison_leaves_no_run_behind(data: Path, values: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nemo_cmim.cli", *arguments(data, values, tmp_path / "out", "steps=100000")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        logs = [tmp_path / "out" / "runs" / f"{name}-0" / "train.log" for name in ("cmim", "infonce")]
        deadline = time.monotonic() + 600
        while not all(log.exists() for log in logs):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        assert len(_users_of(tmp_path)) >= 3, "itself and two runs"
        process.send_signal(signal.SIGTERM)
        assert process.wait(600) == 128 + signal.SIGTERM
        deadline = time.monotonic() + 600
        while _users_of(tmp_path):
            assert time.monotonic() < deadline, "its training runs must end too"
            time.sleep(0.5)
    finally:
        process.kill()


def _users_of(folder: Path) -> list[str]:
    """Processes whose command line names the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in command and int(entry.parent.name) != os.getpid():
            found.append(command)
    return found


@pytest.mark.parametrize(("jobs", "threads"), [(1, "5"), (2, "2"), (9, "1")])
def test_runs_at_the_same_time_share_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int, threads: str) -> None:
    (run,) = planned(CompareConfig(data="data", steps=1, objectives=("cmim",), seeds=(0,), output=str(tmp_path)))
    (folder := run.folder / "training" / "checkpoints").mkdir(parents=True)
    (folder / "cmim.nemo").touch()
    told: list[str] = []

    class Processes:
        def start(self, command: list[str], *, env: dict[str, str], **_: object) -> subprocess.Popen[bytes]:
            told.append(env["OMP_NUM_THREADS"])
            return subprocess.Popen([sys.executable, "-c", ""])

    monkeypatch.setattr(runs, "thread_count", lambda: 5)
    runs._train(run, jobs, Processes())
    assert told == [threads]


def test_runs_differ_only_in_objective_seed_and_folder(tmp_path: Path) -> None:
    config = CompareConfig(
        data="data", steps=7, objectives=("mim", "cmim"), seeds=(3, 4), output=str(tmp_path), train=("model=tiny",)
    )
    runs = planned(config)
    assert [(run.objective, run.seed) for run in runs] == [("mim", 3), ("cmim", 3), ("mim", 4), ("cmim", 4)]
    own = ("objective=", "seed=", "exp_manager.explicit_log_dir=")
    assert len({tuple(o for o in run.overrides if not o.startswith(own)) for run in runs}) == 1
    assert "trainer.max_steps=7" in runs[0].overrides and "model=tiny" in runs[0].overrides


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["objectives=[cmim,vaee]"], "Unknown objective 'vaee' in objectives"),
        (["seeds=[1,1]"], "seeds must have at least one value and no repetition"),
        (["steps=0"], "steps must be at least 1, found 0"),
        (["regression.folds=many"], "regression.folds must be of type int"),
        (["modell=tiny"], "modell"),
        (["model.network.latents=4"], "network.latents=4 has no effect"),
        (["model.network.decoder_layers=2"], "objective infonce: network.decoder_layers is 2; set it to 0"),
        (["seed=9"], "seed=9: a comparison sets seed for each run. List the seeds in seeds=[...]."),
        (["system=molvae"], "a comparison sets system"),
        (["model.objective.name=vae"], "a comparison sets model.objective.name"),
        ([*ONE_RUN, "regression.heads=[foo]"], "Unknown head 'foo'"),
        ([*ONE_RUN, "regression.features=[foo]"], "Unknown features 'foo'"),
        (["regression.folds=1"], "regression.folds must be at least 2"),
        (["regression.data=[]"], "regression.data is empty"),
        ([*ONE_RUN, "regression.data=[freesolv,freesolv]"], "two sets of one name"),
        ([*ONE_RUN, "model.network.max_positions=8"], "at most 7"),
    ],
)
def test_errors_are_raised_before_anything_is_trained(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: list[str], message: str
) -> None:
    assert main(["compare", f"data={data}", "steps=3", f"output={tmp_path / 'out'}", "model=tiny", *settings]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "runs").exists()


def test_sigterm_ends_a_running_comparison_and_the_handler_is_restored(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the command was called from Python, the earlier handler is back, however the comparison ended."""

    def compare(config: CompareConfig, **_: object) -> Path:
        if config.steps == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        if config.steps == 2:
            raise ConfigError("no")
        return tmp_path

    def handler(number: int, frame: object) -> None:
        raise AssertionError("not called")

    monkeypatch.setattr("nemo_cmim.evaluation.compare.compare", compare)
    before = signal.signal(signal.SIGTERM, handler)
    try:
        for steps, status in ((2, 2), (3, 0)):
            assert main(["compare", f"data={data}", f"steps={steps}", "model=tiny", *ONE_RUN]) == status
            assert signal.getsignal(signal.SIGTERM) is handler
        with pytest.raises(SystemExit, match="143"):
            main(["compare", f"data={data}", "steps=1", "model=tiny", *ONE_RUN])
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "no" in capsys.readouterr().err


def test_missing_settings_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "steps=3"]) == 2
    assert "data is not set: pass data=VALUE" in capsys.readouterr().err


def test_settings_are_checked_from_python_too() -> None:
    with pytest.raises(ConfigError, match="objectives must have at least one value"):
        CompareConfig(data="d", steps=1, objectives=())


@pytest.mark.parametrize("measures", [["esol svm"], ["esol svm", "esol mlp", "lipo svm"]])
def test_tables_and_figures_of_any_size(tmp_path: Path, measures: list[str]) -> None:
    """One measure, an odd number of them, and objectives without decoder."""
    rows = [
        {"objective": name, "seed": seed, "kind": "mean", "measure": measure, "value": 1.0 + seed}
        for name in ("infonce", "infonce_x")
        for seed in (0, 1)
        for measure in measures
    ]
    rows.append({"objective": "morgan64", "seed": 0, "kind": "", "measure": measures[0], "value": 3.0})
    measured = pd.DataFrame(rows)
    table = comparison_table(measured)
    assert f"| infonce | mean | {' | '.join(['1.500 ± 0.707'] * len(measures))} |  |  |  |" in table
    assert table.splitlines()[-1].startswith("| morgan64 |  | 3.000 |")
    draw(measured, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert [panel.get_title() for panel in figure(measured).axes if panel.axison] == measures


def test_the_figure_has_a_panel_for_each_measure() -> None:
    names = ["esol svm", "esol mlp", "token_accuracy", "reconstruction", "validity"]
    rows = [{"objective": "ae", "seed": 0, "kind": "mean" if " " in name else "", "measure": name, "value": 0.5} for name in names]
    shown = [panel.get_title() for panel in figure(pd.DataFrame(rows)).axes if panel.axison]
    assert shown == ["esol svm", "esol mlp", "token accuracy", "reconstruction", "validity"]


def test_any_path_can_be_an_output(data: Path, tmp_path: Path) -> None:
    odd = tmp_path / "run (1), x=2, it's ünïcode"
    (run,) = planned(
        CompareConfig(data=str(data), steps=1, objectives=("mim",), seeds=(0,), output=str(odd), train=("model=tiny",))
    )
    cfg = compose(run.overrides)
    assert cfg.exp_manager.explicit_log_dir == str(odd / "runs" / "mim-0" / "training")
    assert cfg.model.train_ds.folder == str(data.resolve())
