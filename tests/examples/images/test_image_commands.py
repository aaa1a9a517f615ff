"""The command line of the image experiments: a tiny grid with its tables and figures, its plan, a single cell, the list of sets."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch

from examples.images import plan
from examples.images.__main__ import main
from examples.images.grid import Job, run_cell
from examples.images.results import read_cells
from examples.images.tables import sections
from nemo_cmim.errors import ConfigError, DataError, DivergenceError
from tests.examples.images.small_sets import OPTIONS, SMALL, small_cell, write_small_set


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for seed, name in enumerate(("breastmnist", "retinamnist")):
        write_small_set(tmp_path / "sets", name, seed)
    return tmp_path / "sets"


def grid_options(data: Path, output: Path, *more: str) -> list[str]:
    options = ["--sets", "breastmnist", "retinamnist", "octmnist", "--fewer-sets", "breastmnist", "--batch-sizes", "2", "5"]
    options += ["--temperature-batch-sizes", "2", "--seeds", "1", "--device", "cpu"]
    return ["grid", *OPTIONS, *options, "--data", str(data), "-o", str(output), *more]


def test_a_tiny_grid_its_tables_and_figures(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = tmp_path / "cells"
    main(grid_options(data, cells))
    printed = capsys.readouterr().err
    assert "skipped octmnist: octmnist:" in printed and "octmnist.npz is missing" in printed
    count = 2 * 5 * 2 + 4 * 2 + 5 + 2 * 2
    assert f"{count} cells, 0 of them finished before." in printed and f"{count}/{count} " in printed
    assert len(list(cells.glob("*.json"))) == count and list((cells / "unfinished").iterdir()) == []
    main(grid_options(data, cells))
    assert f"{count} cells, {count} of them finished before." in capsys.readouterr().err

    results = tmp_path / "RESULTS.md"
    command = "`python -m examples.images tables --cells x`"
    results.write_text(f"# Title\n\n## Reading\n\nOurs.\n{command}\n\n## Old table\n\n{command} · 2000-01-01\n")
    for _ in range(2):  # the second replaces the first
        main(["tables", "--cells", str(cells), "--results", str(results)])
    text = results.read_text()
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert len(titles) == 10 and titles[0] == "## Reading" and "Ours." in text and "Old table" not in text
    assert text.count("Latent arrays of 4 steps (the paper: 400), 6 training steps") == 9
    for row in (
        "| cMIM - MIM |",
        "| cMIM-Σ |",
        "| InfoNCE-X |",
        "sets x evaluations (Table 2, Fig. 8)",
        "| InfoNCE - cMIM |",
        "| commonest class |",
        "| breastmnist | 2 | 0.3 | 1 |",
        "| cMIM - AE |",
        "| VAE: informative - mean |",
    ):
        assert row in text, row
    assert "Left out" not in text and "Images seen in training (steps x B): 12 at B = 2, 30 at B = 5." in text
    assert f", PyTorch {torch.__version__}." in text
    accuracy = text.split("## Accuracy of each image set")[1].split("\n## ")[0]
    assert accuracy.count("| untrained |") == 2 * 2 and accuracy.count("| pixels |") == 2 * 2  # sets and embeddings
    assert text.count("| untrained |") == 2 * 2 + 1 and text.count("| breastmnist | pixels |") == 1  # and in the temperature table
    z_scores = text.split("## Accuracy: z-scores")[1].split("\n## ")[0]
    assert "untrained" not in z_scores and "pixels" not in z_scores and "Embeddings: informative (ranks 1 to 8, " in z_scores
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert all(len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1 for rows in tables)

    main(["figures", "--cells", str(cells), "-o", str(tmp_path / "figures")])
    numbers = ["3", "4", "5b", "6", "6_slopes", *map(str, range(8, 16)), *(f"{n}_all" for n in range(10, 16))]
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == sorted(f"figure_{n}.png" for n in numbers)


def test_sections_state_their_sets_seeds_and_missing_cells(data: Path, tmp_path: Path) -> None:
    def run(objective: str, name: str = "breastmnist", size: int = 2, **more: float) -> None:
        run_cell(Job(small_cell(objective, size, data=name, **more), data, tmp_path / "cells"))

    for objective in ("cmim", "infonce"):
        for size in (2, 5):
            run(objective, size=size)
    run("cmim", "retinamnist")
    run("cmim", seed=3)  # a seed that infonce does not have
    run("cmim", tau=0.3, seed=3)
    found = sections(read_cells(tmp_path / "cells"))
    missing = "since cells are missing: retinamnist seed 0 (lacks cMIM B = 5, InfoNCE B = 2, InfoNCE B = 5)."
    assert any(missing in part for part in found["Image sets"])
    accuracy = found["Accuracy: z-scores and ranks (Fig. 3, 10-15)"]
    assert accuracy[1] == "Image sets: breastmnist (seed 0)."
    assert accuracy[2].split("\n")[0].endswith("Embeddings: mean (ranks 1 to 4, 1 is the best).")
    assert accuracy[3].split("\n")[0].endswith("Embeddings: informative (ranks 1 to 2, 1 is the best).")
    assert "Embeddings: mean (ranks 1 to 4, 1 is the best) and informative (ranks 1 to 2, 1 is the best)." in accuracy[4]
    assert "averages over 3 tasks (image set, embedding and classifier), those of the others over 6" in accuracy[4]
    assert "Compare this table only among models with a decoder" in accuracy[4]
    temperature = found["Temperature and weight of the contrastive term"][1]
    assert "z the mean of q(z|x)" in temperature
    rows = [line for line in temperature.splitlines() if line.startswith("| breastmnist")]
    assert len(rows) == 2 and all(row.endswith("| 3 |") for row in rows)
    assert "Ablations (Fig. 6, 9)" not in found


def test_cells_of_different_settings_are_not_mixed(data: Path, tmp_path: Path) -> None:
    for steps in ("3", "6"):
        options = ["--set=breastmnist", "--objective=ae", "--batch-size=2", f"--data={data}", f"--output={tmp_path / 'cells'}"]
        main(["train", *OPTIONS, *options, f"--steps={steps}"])
    with pytest.raises(DataError, match="different settings"):
        sections(read_cells(tmp_path / "cells"))


def test_failed_cells_are_listed_and_the_status_is_not_zero(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverging(*_: object) -> None:
        raise DivergenceError("the loss is inf")

    monkeypatch.setattr("examples.images.grid.train", diverging)
    with pytest.raises(SystemExit, match="2 cells failed"):
        main(grid_options(data, tmp_path / "cells", "--parts", "main", "--objectives", "ae", "--sets", "breastmnist"))
    assert capsys.readouterr().err.count("DivergenceError: the loss is inf") == 2


def test_the_recorded_grid_is_that_of_the_issue() -> None:
    cells = plan.cells_of(plan.Grid(settings=SMALL))
    main_part = plan.cells_of(plan.Grid(settings=SMALL, parts=("main",)))
    assert len(main_part) == 6 * 5 * 5 * 2 and len(set(cells)) == len(cells) == 300 + 4 * 5 + 5 * 4 + 6 * 2 * 2
    assert {(cell.batch_size, cell.seed) for cell in cells if cell.is_reference} == {(0, 0), (0, 1)}
    assert {cell.tau for cell in cells} == {0.05, 0.1, 0.3, 1.0} and {cell.weight for cell in cells} == {0.1, 1.0, 10.0}
    with pytest.raises(ConfigError, match="seeds must be at least 1"):
        plan.Grid(settings=SMALL, seeds=0)


def test_the_plan_counts_core_hours(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--parts", "main", "--batch-sizes", "2", "--objectives", "mim", "ae", "--seconds", "0.01"]
    main(["plan", *OPTIONS, *options])
    printed = capsys.readouterr()
    assert "| main | 24 |" in printed.out and "| mim |" in printed.out and "mim B =   2:" in printed.err
    main(["plan", *OPTIONS, *options, "--sets", "paper", "--seeds", "1"])
    assert "| main | 30 |" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="references do not have"):
        main(["plan", *OPTIONS, "--parts", "references"])


def test_the_plan_without_limits_uses_the_documented_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = []
    monkeypatch.setattr(
        plan, "evaluate", lambda _, images, __: parts.append([len(images.train), len(images.valid), len(images.test)])
    )
    monkeypatch.setattr(plan, "_MEASURED_IMAGES", 500)
    settings = dataclasses.replace(SMALL, train_images=0, valid_images=0, test_images=0)
    plan.measure_rest(small_cell(settings=settings), ["breastmnist", "retinamnist"])
    plan.measure_rest(small_cell(), ["breastmnist"])
    assert parts == [[500, 120, 400], [30, 12, 20]]
    monkeypatch.setattr(plan, "_MEASURED_IMAGES", 10_000)
    plan.measure_rest(small_cell(settings=settings), ["quickdraw3"])  # 3,000 images without a split
    assert parts[2:] == [[2280, 120, 600]]


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


def test_the_list_of_sets_has_counts_and_addresses(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["data", "--data", str(data)])
    printed = capsys.readouterr()
    assert (
        "| breastmnist | 40 / 12 / 20 | 546 / 78 / 156, 2 classes | 7,000 / 2,000, 2 classes | 1 image is in both train and test; MD5 not"
        in printed.out
    )
    assert "| mnist | absent | 60,000 / 0 / 10,000, 10 classes |" in printed.out
    assert "58c8d27c78d21e728a6bc7b3cc06412e | unpack it in its folder |" in printed.out
    assert "skipped mnist: " in printed.err and "breastmnist.npz?" not in printed.out
    files = [line for line in printed.out.split("Files to download:")[1].splitlines() if line.startswith("| ")]
    assert len(files) == len(set(files)) and sum("gzip.zip" in line for line in files) == 1
