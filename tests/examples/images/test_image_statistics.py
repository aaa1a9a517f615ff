"""The statistics, on tables whose results are worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from examples.images.measured_tables import with_p_value
from examples.images.scores import accuracies_of, comparable, likelihoods_of, of_ablated_sets
from examples.images.statistics import MeanTest, add_differences, average_seeds, paired_test, ranks, slope_test, slopes, z_scores


def table(rows: list[tuple[str, str, str, int, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["data", "evaluation", "model", "batch_size", "accuracy"])


FOUR = table([("a", "knn", "m", 2, 0.1), ("a", "knn", "m", 10, 0.3), ("a", "knn", "n", 2, 0.3), ("a", "knn", "n", 10, 0.5)])


def test_z_scores_are_over_all_models_and_batch_sizes() -> None:
    # mean 0.3; squared deviations 0.04, 0, 0, 0.04: population variance 0.02
    assert z_scores(FOUR)["z"].to_numpy() == pytest.approx([-math.sqrt(2), 0, 0, math.sqrt(2)])
    other = FOUR.assign(data="b", accuracy=FOUR["accuracy"] * 0.5 + 0.4)  # each set and evaluation has its own mean and deviation
    both = z_scores(pd.concat([FOUR, other], ignore_index=True))["z"].to_numpy()
    assert both[:4] == pytest.approx(both[4:])


def test_equal_accuracies_have_z_zero() -> None:
    assert (z_scores(FOUR.assign(accuracy=0.7))["z"] == 0).all()


def test_ranks_start_at_the_best_and_ties_share_the_mean() -> None:
    assert ranks(FOUR)["rank"].tolist() == [4, 2.5, 2.5, 1]


def test_slopes_are_per_image_of_a_batch() -> None:
    found = slopes(FOUR.assign(z=FOUR["accuracy"]))
    assert found["model"].tolist() == ["m", "n"]
    assert found["slope"].to_numpy() == pytest.approx([0.2 / 8, 0.2 / 8])


def test_slope_of_the_average_over_sets_is_one_for_each_evaluation() -> None:
    both = pd.concat([FOUR.assign(z=FOUR["accuracy"]), FOUR.assign(data="b", z=[0.3, 0.1, 0.5, 0.3])], ignore_index=True)
    assert slopes(both, ("evaluation",))["slope"].to_numpy() == pytest.approx([0, 0])
    assert len(slopes(both)) == 4
    assert slopes(both[both["batch_size"] == 2]).empty


def test_slope_test_is_the_t_test_against_zero() -> None:
    values = [1.0, 2.0, 3.0]  # mean 2, standard error 1 / sqrt(3): t = 2 sqrt(3), 2 degrees of freedom
    found = pd.DataFrame({"model": "m", "data": ["a", "a", "b"], "slope": values})
    t = 2 * math.sqrt(3)
    test = slope_test(found)["m"]
    assert (test.mean, test.sd, test.n) == (2.0, 1.0, 3)
    assert test.p == pytest.approx(1 - t / math.sqrt(t * t + 2))  # closed form of Student's distribution with 2 degrees of freedom
    by_set = slope_test(found, unit="data")["m"]
    assert (by_set.mean, by_set.n) == (2.25, 2)
    alone = slope_test(found[:1])["m"]
    assert alone.n == 1 and math.isnan(alone.p) and math.isnan(alone.sd)


def test_differences_of_slopes_are_tested_in_pairs() -> None:
    rows = [
        (model, data, slope)
        for model, slopes in (("m", (1.0, 2.0, 3.0)), ("n", (1.0, 1.0, 1.0)))
        for data, slope in zip("abc", slopes)
    ]
    found = add_differences(pd.DataFrame(rows, columns=["model", "data", "slope"]), [("m", "n"), ("m", "absent")])
    tests = slope_test(found)
    assert list(tests) == ["m", "n", "m - n"]
    t = math.sqrt(3)  # differences 0, 1, 2: mean 1, standard error 1 / sqrt(3)
    assert (tests["m - n"].mean, tests["m - n"].n) == (1.0, 3)
    assert tests["m - n"].p == pytest.approx(1 - t / math.sqrt(t * t + 2))


def test_two_values_have_no_p_value_in_a_table() -> None:
    assert with_p_value(MeanTest(0.5, 1.0, 0.01, 2)) == "+0.50 (n = 2)"
    # 97.5 % quantile of Student's distribution with 2 degrees of freedom: 4.3027; 4.3027 / sqrt(3) = 2.48
    assert with_p_value(MeanTest(0.5, 1.0, 0.01, 3)) == "+0.50 ± 2.48 (**p = 0.01**, n = 3)"
    assert with_p_value(MeanTest(0.5, 1.0, 0.2, 3), 10) == "+5.00 ± 24.84 (p = 0.2, n = 3)"


def test_paired_differences_are_averaged_over_an_image_set() -> None:
    other = FOUR.assign(data="b", accuracy=[0.1, 0.1, 0.2, 0.2])
    found = paired_test(pd.concat([FOUR, other], ignore_index=True), "n", "m", "accuracy")
    assert found.n == 2 and found.mean == pytest.approx((0.2 + 0.1) / 2)
    of_networks = paired_test(pd.concat([FOUR, other], ignore_index=True), "n", "m", "accuracy", ("data", "batch_size"))
    assert of_networks.n == 4 and of_networks.mean == pytest.approx(found.mean)
    assert paired_test(FOUR, "n", "absent", "accuracy").n == 0


def test_seeds_are_averaged() -> None:
    scores = pd.concat([FOUR.assign(seed=0), FOUR.assign(seed=1, accuracy=FOUR["accuracy"] + 0.1)], ignore_index=True)
    found = average_seeds(scores)
    assert found["accuracy"].to_numpy() == pytest.approx(FOUR["accuracy"].to_numpy() + 0.05) and "seed" not in found


def cell(
    objective: str, data: str = "mnist", batch_size: int = 2, seed: int = 0, tau: float = 0.1, weight: float = 1.0
) -> dict[str, Any]:
    informative = {} if objective == "infonce" else {"informative": {"mlp": 0.75}}
    return {
        "cell": {"data": data, "objective": objective, "batch_size": batch_size, "seed": seed, "tau": tau, "weight": weight},
        "accuracy": {"mean": {"mlp": 0.5}, **informative},
        "log_likelihood": None if objective == "infonce" else {"mean": -1.0, "drawn": -2.0},
    }


def test_scores_of_cells_have_a_row_for_each_evaluation() -> None:
    cells = [cell("infonce"), cell("cmim")]
    scores = accuracies_of(cells)
    assert scores["model"].tolist() == ["InfoNCE", "cMIM", "cMIM"]
    assert scores["evaluation"].tolist() == ["mlp mean", "mlp mean", "mlp informative"]
    assert likelihoods_of(cells)["drawn"].tolist() == [-2.0] and np.isfinite(scores["accuracy"]).all()


def test_only_the_paper_s_tau_and_weight_are_compared_in_the_order_of_objectives() -> None:
    cells = [cell("mim"), cell("cmim", batch_size=5), cell("cmim", tau=0.3), cell("cmim"), cell("mim", batch_size=5)]
    cells += [cell("cmim", weight=2.0), cell("cae")]
    assert comparable(cells, ("cmim", "mim")) == ([cells[3], cells[1], cells[0], cells[4]], {})


def test_objectives_are_compared_at_the_seeds_that_all_have() -> None:
    cells = [cell("cmim"), cell("cmim", seed=1), cell("cae")]
    assert comparable(cells, ("cmim", "cae", "mim")) == ([cells[0], cells[2]], {})
    assert comparable(cells, ("cmim",)) == (cells[:2], {})
    other = [cell(name, "usps", seed=1) for name in ("cmim", "cae")]  # each set has its own seeds
    assert comparable([*cells, *other], ("cmim", "cae")) == ([cells[0], cells[2], *other], {})
    assert comparable([cell("cmim"), cell("cae", seed=1)], ("cmim", "cae")) == (
        [],
        {"mnist seed 0": ["cAE B = 2"], "mnist seed 1": ["cMIM B = 2"]},
    )


def test_seeds_that_lack_a_cell_are_left_out_and_the_cell_is_named() -> None:
    sets = {
        name: [cell(objective, name, size) for objective in ("cmim", "infonce") for size in (2, 5)]
        for name in ("mnist", "usps", "kmnist")
    }
    second_seed = [cell(objective, "kmnist", 2, seed=1) for objective in ("cmim", "infonce")]
    cells = [*sets["mnist"], *sets["usps"][:-1], *sets["kmnist"], *second_seed]
    kept, missing = comparable(cells, ("cmim", "infonce"))
    assert kept == [*sets["mnist"], *sets["kmnist"]]
    assert missing == {"usps seed 0": ["InfoNCE B = 5"], "kmnist seed 1": ["cMIM B = 5", "InfoNCE B = 5"]}


def test_objectives_with_some_of_the_batch_sizes_are_not_complete() -> None:
    cells = [cell("cmim"), cell("cmim", batch_size=5), cell("cae", batch_size=5)]
    assert comparable(cells, ("cmim", "cae")) == ([], {"mnist seed 0": ["cAE B = 2"]})


def test_sets_with_an_ablation() -> None:
    cells = [cell("cmim"), cell("cmim", "usps"), cell("cae", "usps")]
    assert of_ablated_sets(cells) == cells[1:]
    assert of_ablated_sets(cells[:2]) == []
