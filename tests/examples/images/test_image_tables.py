"""The tables and figures, from invented cells whose numbers are worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from examples.images import figures
from examples.images.evaluation import CLASSIFIERS
from examples.images.tables import sections

SETTINGS = {"sizes": {"latents": 4}, "steps": 10, "train_images": 5, "test_images": 0, "valid_images": 7}
SCALES = {"mnist": 1.0, "usps": 0.5, "kmnist": 1.5}
SHIFTS = {("cmim", 2): 0.0, ("cmim", 5): 0.2, ("mim", 2): -0.2, ("mim", 5): 0.0}
UNTRAINED = {"mnist": 0.1, "usps": 0.2, "kmnist": 0.3}
LIKELIHOODS = {("cmim", 2): -100.0, ("cmim", 5): -90.0, ("mim", 5): -91.0}


def cell(
    data: str, objective: str, size: int, mean: float, informative: float, log_p_x: float = 0.0, **more: Any
) -> dict[str, Any]:
    own = {"data": data, "objective": objective, "batch_size": size, "seed": 0, "tau": 0.1, "weight": 1.0, "settings": SETTINGS}
    return {
        "cell": own | more,
        "accuracy": {"mean": {"mlp": mean}, "informative": {"mlp": informative}},
        "log_likelihood": {"mean": log_p_x, "drawn": log_p_x - 5},
        "posterior": {"median_variance": 1e-2 if data == "mnist" else 1e-4, "at_floor": 0.5, "sd_of_means": 1.5},
        "best_step": 5,
        "validation": [{"step": 5, "log_p_x_given_z": -7.0, "log_p_k1": -0.25}, {"step": 10, "log_p_x_given_z": -9.0}],
        "images": {"sha256": data, "train": 10, "valid": 7, "test": 5, "note": "invented"},
        "seconds": 100.0,
        "machine": "a CPU",
        "torch": "2",
    }


def all_cells() -> list[dict[str, Any]]:
    """cMIM and MIM of three sets. The accuracies of a set and embedding have z-scores 0, 1.41 (cMIM) and -1.41, 0 (MIM), or are equal."""
    found = []
    for place, (data, scale) in enumerate(SCALES.items(), 1):
        for (objective, size), shift in SHIFTS.items():
            accuracy = 0.4 + scale * shift
            log_p_x = LIKELIHOODS.get((objective, size), -100.0 - 2 * place)
            found.append(cell(data, objective, size, accuracy, 0.4 if data == "mnist" else accuracy, log_p_x))
    return found


def rows(parts: list[str], start: str) -> dict[str, list[str]]:
    """The rows of the first table whose header begins with `start`, by their first cell."""
    table = next(part for part in parts if f"\n\n| {start} |" in part).split("\n\n")[-1]
    split = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    return {first: others for first, *others in split}


def test_z_scores_and_ranks_of_batch_sizes() -> None:
    mean, informative, _ = sections(all_cells())["Accuracy: z-scores and ranks (Fig. 3, 10-15)"][2:]
    assert rows([mean], "model") == {
        "cMIM": ["+0.00 (2.5)", "+1.41 (1.0)", "**+0.71** (1.8)"],
        "MIM": ["-1.41 (4.0)", "+0.00 (2.5)", "**-0.71** (3.2)"],
    }
    assert "mean (ranks 1 to 4, 1 is the best)" in mean
    # MNIST: z = 0 and rank 2.5; the others as above
    assert rows([informative], "model")["cMIM"] == ["+0.00 (2.5)", "+0.94 (1.5)", "**+0.47** (2.0)"]


def test_differences_of_objectives_are_tested_over_image_sets() -> None:
    parts = sections(all_cells())["Differences between objectives"]
    # accuracy: 20, 10 and 30 points; standard deviation 10, t = 2 sqrt(3), p = 1 - t / sqrt(t^2 + 2), quantile 4.3027
    # informative z-scores: 0, 1.41, 1.41; t = 2. Informative accuracies: 0, 10, 30; t = 13.33 / (15.28 / sqrt(3))
    assert rows(parts, "difference")["cMIM - MIM"] == [
        "+1.41 (n = 3)",
        "+20.00 ± 24.84 (p = 0.074, n = 3)",
        "+0.94 ± 2.03 (p = 0.18, n = 3)",
        "+13.33 ± 37.95 (p = 0.27, n = 3)",
    ]
    assert rows(parts, "classifier")["mlp"] == ["+20.00 ± 24.84 (p = 0.074, n = 3)", "+13.33 ± 37.95 (p = 0.27, n = 3)"]
    # informative - mean of MNIST: 0.4 - 0.4 and 0.4 - 0.6 for cMIM, 0.4 - 0.2 and 0.4 - 0.4 for MIM; other sets 0
    embeddings = next(part for part in parts if part.startswith("Informative and mean"))
    assert rows([embeddings], "difference") == {
        "cMIM: informative - mean": ["+0.00 (n = 3)", "-6.67 ± 28.68 (p = 0.42, n = 3)", "-3.33 ± 14.34 (p = 0.42, n = 3)"],
        "MIM: informative - mean": ["+6.67 ± 28.68 (p = 0.42, n = 3)", "+0.00 (n = 3)", "+3.33 ± 14.34 (p = 0.42, n = 3)"],
    }


def test_slopes_are_tested_over_image_sets_and_described_over_evaluations() -> None:
    found = rows(sections(all_cells())["Sensitivity to batch size (Table 2, Fig. 4, 8)"], "model")
    # a slope is 100 * 1.414 / 3 = 47.14 per 100 images, or 0. Sets: 23.57, 47.14, 47.14; t = 5. Evaluations: 47.14 and 31.43
    expected = ["+39.28 ± 33.80 (**p = 0.038**, n = 3)", "+39.28 (SD 19.25, p = 0.0041, n = 6)", "+39.28 (SD 11.11, n = 2)"]
    assert found["cMIM"] == [*expected[:2], "0.18 (n = 90)", expected[2]]
    assert found["MIM"] == [*expected[:2], "0.029 (n = 90)", expected[2]]
    assert found["cMIM - MIM"] == ["+0.00 (n = 3)", "+0.00 (SD 0.00, p = nan, n = 6)", "", "+0.00 (SD 0.00, n = 2)"]


def test_few_image_sets_have_no_p_values() -> None:
    cells = [one for one in all_cells() if one["cell"]["data"] != "mnist"]
    text = "\n".join(part for parts in sections(cells).values() for part in parts)
    assert "| cMIM | +47.14 (n = 2) | +47.14 (SD 0.00, n = 4) | 0.18 (n = 90) | +47.14 (SD 0.00, n = 2) |" in text
    assert "| +20.00 (n = 2) |" in text and "p = 0" not in text.replace("p = 0.18", "")


def test_trained_and_untrained_networks_are_compared() -> None:
    untrained = [cell(data, "untrained", 0, 0.4 - loss, 0.4, seed=seed) for data, loss in UNTRAINED.items() for seed in (0, 1)]
    found = sections(all_cells() + untrained)["Accuracy of each image set"]
    assert rows(found[2:3], "model")["cMIM"] == ["+20.00 ± 24.84 (p = 0.074, n = 3)", "+40.00 ± 43.03 (p = 0.057, n = 3)"]
    assert "What training adds: accuracy of informative" in found[3] and "What training adds" not in "".join(found[4:])


def test_reconstruction_of_cmim_and_mim_is_compared_at_each_batch_size() -> None:
    references: list[dict[str, Any]] = [
        cell("mnist", "pixels", 0, 0, 0)
        | {"mean_image": -206.0, "accuracy": {"pixels": {"mlp": 0.9}}, "commonest_class": 0.25, "tested_images": 1234}
    ]
    found = sections(all_cells() + references)
    values = next(part for part in found["Reconstruction (Fig. 5b)"] if "mean image |" in part)
    assert "| mnist | 2 | -100.0 (-105.0) | -102.0 (-107.0) | -206.0 |" in values and "| usps | 5 | -90.0 (-95.0) |" in values
    # B = 2: 2, 4, 6; B = 5: 1 in each set; all: 1.5, 2.5, 3.5 with t = 2.5 sqrt(3)
    assert rows(found["Reconstruction (Fig. 5b)"], "B = 2") == {
        "+4.00 ± 4.97 (p = 0.074, n = 3)": ["+1.00 (n = 3)", "+2.50 ± 2.48 (**p = 0.049**, n = 3)"]
    }
    accuracy = next(part for part in found["Accuracy of each image set"] if part.startswith("mnist: accuracy of mean"))
    assert "1,234 test images." in accuracy
    assert rows([accuracy], "model") == {
        "cMIM": ["40.0", "60.0"],
        "MIM": ["20.0", "40.0"],
        "pixels": ["90.0", "90.0"],
        "commonest class": ["25.0", "25.0"],
    }


def test_posteriors_are_averages_over_sets() -> None:
    found = rows(sections(all_cells())["Posteriors and terms of the validation loss"], "model")
    # the geometric mean of 1e-2, 1e-4 and 1e-4; the terms are those of the best step
    assert found["MIM"] == ["5", "4.6e-04", "50", "1.50", "-7.00", "-0.25"]


def test_ablations_are_tested_over_pairs_of_networks() -> None:
    cells = [cell("mnist", "cmim", size, 0.5, 0.5) for size in (2, 5, 10, 100)]
    losses = {2: 0.4, 5: 0.2, 10: 0.3, 100: 0.1}  # B = 2 is left out, where both are the same objective
    cells += [cell("mnist", "cmim_sum", size, 0.5 - loss, 0.5) for size, loss in losses.items()]
    parts = sections(cells)["Ablations (Fig. 6, 9)"]
    assert rows(parts, "difference")["cMIM-Σ - cMIM"][1] == "-20.00 ± 24.84 (p = 0.074, n = 3)"
    assert parts[-1].startswith("B = 2 is left out for cMIM-Σ: ")
    slopes = next(part for part in parts if part.startswith("Slope"))
    assert "p =" not in slopes.split("\n\n")[-1]  # these values are of one set


def test_temperatures_are_compared_with_the_paper_s() -> None:
    cells = all_cells()[:4] + [cell("mnist", "cmim", size, 0.55, 0.4, -99.0, tau=0.3) for size in (2, 5)]
    values, differences = sections(cells)["Temperature and weight of the contrastive term"][1:]
    assert "| mnist | 5 | 0.1 | 1 | 60.0 | 40.0 | -90.0 | -0.250 | 0 |" in values
    assert "| mnist | 5 | 0.3 | 1 | 55.0 | 40.0 | -99.0 | -0.250 | 0 |" in values
    assert rows([differences], "setting") == {
        "tau 0.3, weight 1": ["+5.00 (n = 2)", "+0.00 (n = 2)", "-4.00 (n = 2)", "+0.00 (n = 2)"]
    }


def test_cells_count_their_time() -> None:
    assert sections(all_cells())["Image sets"][1] == "12 cells (training runs and references), 0.3 core-hours."


def test_bars_and_points_of_figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    drawn: dict[str, Figure] = {}

    class Canvas:
        def __init__(self, figure: Figure) -> None:
            self.figure = figure

        def print_png(self, path: str) -> None:
            drawn[path.rsplit("figure_", 1)[1]] = self.figure

    monkeypatch.setattr(figures, "FigureCanvasAgg", Canvas)
    cells = all_cells()
    for one in cells:
        one["accuracy"] = {kind: dict.fromkeys(CLASSIFIERS, of["mlp"]) for kind, of in one["accuracy"].items()}
    figures.draw_all(cells, tmp_path)
    z_axis, rank_axis = drawn["3.png"].axes
    # of each model: the average, B = 2, B = 5
    assert heights(z_axis) == pytest.approx([0.7071, 0, 1.4142, -0.7071, -1.4142, 0], abs=1e-4)
    assert heights(rank_axis) == pytest.approx([1.75, 2.5, 1, 3.25, 4, 2.5])
    assert "Image sets: mnist, usps, kmnist (seed 0)." in str(drawn["3.png"].get_suptitle())
    slopes = drawn["8.png"].axes[0].lines[0]
    assert np.asarray(slopes.get_ydata()).tolist() == pytest.approx([0] * 3 + [47.14] * 15, abs=0.01)
    mim, cmim = (np.asarray(line.get_data()).tolist() for line in drawn["5b.png"].axes[0].lines)
    assert cmim[1] == [-100, -90] * 3 and mim[1] == [-102, -91, -104, -91, -106, -91]
    assert cmim[0] == mim[0] == pytest.approx([-0.3, 0.3, 0.7, 1.3, 1.7, 2.3])


def heights(axis: Axes) -> list[float]:
    return [bar.get_height() for bar in axis.patches if isinstance(bar, Rectangle)]
