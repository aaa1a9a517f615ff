"""A tiny grid from the command line, with its tables and figures; a run that is killed; the plan."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from examples.images import plan
from examples.images.__main__ import main
from examples.images.cell import MAIN, Cell
from examples.images.grid import Job, available, read_cells, run_cell, run_grid
from nemo_cmim.errors import DataError
from tests.examples.images.small_sets import OPTIONS, SMALL, write_small_set

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "sets"
    for seed, name in enumerate(("breastmnist", "retinamnist")):
        write_small_set(folder, name, seed)
    return folder


def grid_options(data: Path, output: Path) -> list[str]:
    sets = [
        "--sets",
        "breastmnist",
        "retinamnist",
        "octmnist",
        "--fewer-sets",
        "breastmnist",
        "--batch-sizes",
        "2",
        "5",
        "--seeds",
        "1",
    ]
    return ["grid", *OPTIONS, *sets, "--data", str(data), "-o", str(output)]


def without_time(path: Path) -> dict:
    return {key: value for key, value in json.loads(path.read_text()).items() if key != "seconds"}


def test_a_tiny_grid_its_tables_and_figures(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        plan, "cells_of", lambda grid, of=plan.cells_of: of(dataclasses.replace(grid, temperature_batch_sizes=(2,)))
    )
    cells = tmp_path / "cells"
    main(grid_options(data, cells))
    printed = capsys.readouterr().err
    assert "skipped octmnist: octmnist:" in printed and "octmnist.npz is missing" in printed
    count = 2 * 5 * 2 + 4 * 2 + 5
    assert f"{count} cells, 0 of them finished before." in printed and f"{count}/{count} " in printed
    assert len(list(cells.glob("*.json"))) == count and not list(cells.rglob("*.pt")) and not list(cells.rglob("*.lock"))
    main(grid_options(data, cells))
    assert f"{count} cells, {count} of them finished before." in capsys.readouterr().err

    results = tmp_path / "RESULTS.md"
    results.write_text("# Title\n\n## Reading\n\nOurs.\n")
    for _ in range(2):  # the second replaces the first
        main(["tables", "--cells", str(cells), "--results", str(results)])
    text = results.read_text()
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert len(titles) == 9 and titles[0] == "## Reading" and "Ours." in text
    assert text.count("Latent arrays of 4 steps (the paper: 400), 6 training steps") == 8
    for row in ("| cMIM - MIM |", "| cMIM-Σ |", "| InfoNCE-X |", "p = ", "| breastmnist | 2 | 0.3 | 1 |", "Not finished"):
        assert (row in text) == (row != "Not finished"), row

    main(["figures", "--cells", str(cells), "-o", str(tmp_path / "figures")])
    numbers = ["3", "4", "5b", "6", "6_slopes", *map(str, range(8, 16)), *(f"{n}_all" for n in range(10, 16))]
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == sorted(f"figure_{n}.png" for n in numbers)


def test_cells_of_other_settings_are_not_mixed_and_unfinished_sets_are_named(data: Path, tmp_path: Path) -> None:
    from examples.images.tables import sections

    for objective in ("cmim", "mim"):
        for size in (2, 5):
            run_cell(Job(Cell(data="breastmnist", objective=objective, batch_size=size, settings=SMALL), data, tmp_path / "cells"))
    run_cell(Job(Cell(data="retinamnist", objective="cmim", batch_size=2, settings=SMALL), data, tmp_path / "cells"))
    found = sections(read_cells(tmp_path / "cells"))
    assert all(parts[0].endswith("left out of z-scores and ranks: retinamnist.") for parts in found.values())
    (tmp_path / "cells" / "other.json").write_text("{}")
    with pytest.warns(UserWarning, match="other.json is no cell of this version"):
        assert len(read_cells(tmp_path / "cells")) == 5
    (tmp_path / "cells" / "other.json").unlink()
    run_cell(Job(Cell(data="breastmnist", objective="ae", batch_size=2, settings=SMALL).with_steps(3), data, tmp_path / "cells"))
    with pytest.raises(DataError, match="different settings"):
        sections(read_cells(tmp_path / "cells"))


@pytest.mark.slow
def test_a_killed_cell_goes_on_with_the_same_result(data: Path, tmp_path: Path) -> None:
    cell = Cell(data="breastmnist", objective="cmim", batch_size=2, settings=dataclasses.replace(SMALL, steps=400, validations=40))
    killed, whole = (Job(cell, data, tmp_path / name) for name in ("killed", "whole"))
    code = "from tests.examples.images.test_image_grid import run_killed; import sys; run_killed(*sys.argv[1:])"
    process = subprocess.Popen([sys.executable, "-c", code, str(data), str(tmp_path / "killed")], cwd=ROOT)
    while not killed.checkpoint.exists():
        assert process.poll() is None, "the run ended before it was killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not killed.file.exists()
    run_cell(killed)
    run_cell(whole)
    assert without_time(killed.file) == without_time(whole.file)
    assert not killed.checkpoint.exists()


def run_killed(data: str, output: str) -> None:
    """In the process that is killed."""
    settings = dataclasses.replace(SMALL, steps=400, validations=40)
    run_cell(Job(Cell(data="breastmnist", objective="cmim", batch_size=2, settings=settings), Path(data), Path(output)))


@pytest.mark.slow
def test_dask_processes_give_the_same_result_as_this_one(data: Path, tmp_path: Path) -> None:
    cells = [Cell(data="breastmnist", objective=objective, batch_size=2, settings=SMALL) for objective in MAIN]
    for processes in (1, 2):
        run_grid([Job(cell, data, tmp_path / str(processes)) for cell in cells], processes=processes, scheduler=None, say=print)
    for cell in cells:
        one, two = (without_time(tmp_path / n / f"{cell.name}.json") for n in ("1", "2"))
        assert one == two


def test_missing_cells_and_sets_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no finished cell"):
        read_cells(tmp_path)
    said: list[str] = []
    assert available(["mnist"], tmp_path, said.append) == [] and said[0].startswith("skipped mnist: mnist: ")


def test_the_recorded_grid_is_that_of_the_issue() -> None:
    cells = plan.cells_of(plan.Grid(settings=SMALL))
    main_part = plan.cells_of(plan.Grid(settings=SMALL, parts=("main",)))
    assert len(main_part) == 6 * 5 * 5 * 2 and len(set(cells)) == len(cells) == 300 + 4 * 5 * 2 + 5 * 2 * 2
    assert {cell.tau for cell in cells} == {0.05, 0.1, 0.3, 1.0} and {cell.weight for cell in cells} == {0.1, 1.0, 10.0}


def test_the_plan_counts_core_hours(capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan", *OPTIONS, "--parts", "main", "--batch-sizes", "2", "--objectives", "mim", "ae", "--seconds", "0.01"])
    printed = capsys.readouterr()
    assert "| main | 24 |" in printed.out and "| mim |" in printed.out and "mim B =   2:" in printed.err


def test_help_explains_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ([], ["data"], ["network"], ["train"], ["grid"], ["plan"], ["tables"], ["figures"]):
        with pytest.raises(SystemExit, match="0"):
            main([*command, "--help"])
        assert "usage: python -m examples.images" in capsys.readouterr().out
    main(["network", "--latents", "49"])
    assert "cmim: 112,582 parameters" in capsys.readouterr().out


def test_one_cell_from_the_command_line(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--set", "breastmnist", "--objective", "cmim", "--batch-size", "5", "--tau", "0.3", "--data", str(data)]
    main(["train", *OPTIONS, *options, "-o", str(tmp_path / "cells")])
    path = Path(capsys.readouterr().out.strip())
    found = json.loads(path.read_text())
    assert path.name.startswith("breastmnist-cmim-b5-s0-tau0.3-weight1-") and found["cell"]["tau"] == 0.3
    assert found["images"] == {"train": 40, "valid": 12, "test": 20, "note": ""} and len(found["validation"]) == 3
