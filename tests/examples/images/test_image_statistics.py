"""The statistics, on tables whose results are worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from examples.images.scores import accuracies_of, likelihoods_of, of_models, of_shared_seeds
from examples.images.statistics import average_seeds, complete, paired_test, ranks, slope_test, slopes, z_scores


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
    found = slopes(FOUR, "accuracy")
    assert found["model"].tolist() == ["m", "n"] and found["points"].tolist() == [2, 2]
    assert found["slope"].to_numpy() == pytest.approx([0.2 / 8, 0.2 / 8])


def test_slope_of_the_average_over_sets_is_one_for_each_evaluation() -> None:
    falling = FOUR.assign(data="b", accuracy=[0.3, 0.1, 0.5, 0.3])
    both = pd.concat([FOUR, falling], ignore_index=True)
    assert slopes(both, "accuracy", ("evaluation",))["slope"].to_numpy() == pytest.approx([0, 0])
    assert len(slopes(both, "accuracy")) == 4
    assert slopes(FOUR[FOUR["batch_size"] == 2], "accuracy").empty


def test_slope_test_is_the_t_test_against_zero() -> None:
    values = [1.0, 2.0, 3.0]  # mean 2, standard error 1 / sqrt(3): t = 2 sqrt(3), 2 degrees of freedom
    found = pd.DataFrame({"model": "m", "data": ["a", "a", "b"], "slope": values})
    t = 2 * math.sqrt(3)
    test = slope_test(found)["m"]
    assert (test.mean, test.n) == (2.0, 3)
    assert test.p == pytest.approx(1 - t / math.sqrt(t * t + 2))  # closed form of Student's distribution with 2 degrees of freedom
    by_set = slope_test(found, unit="data")["m"]
    assert (by_set.mean, by_set.n) == (2.25, 2)
    alone = slope_test(found[:1])["m"]
    assert alone.n == 1 and math.isnan(alone.p)


def test_paired_differences_are_averaged_over_an_image_set() -> None:
    other = FOUR.assign(data="b", accuracy=[0.1, 0.1, 0.2, 0.2])
    found = paired_test(pd.concat([FOUR, other], ignore_index=True), "n", "m", "accuracy")
    assert found.n == 2 and found.mean == pytest.approx((0.2 + 0.1) / 2)
    assert paired_test(FOUR, "n", "absent", "accuracy").n == 0


def test_incomplete_sets_are_left_out_by_name() -> None:
    both = pd.concat([FOUR, FOUR.assign(data="b")[:3]], ignore_index=True)
    kept, lacking = complete(both)
    assert lacking == ["b"] and kept.equals(FOUR)
    informative = FOUR[FOUR["model"] == "m"].assign(evaluation="knn informative")  # a model may lack an evaluation
    assert complete(pd.concat([FOUR, informative], ignore_index=True))[1] == []


def test_seeds_are_averaged() -> None:
    scores = pd.concat([FOUR.assign(seed=0), FOUR.assign(seed=1, accuracy=FOUR["accuracy"] + 0.1)], ignore_index=True)
    found = average_seeds(scores)
    assert found["accuracy"].to_numpy() == pytest.approx(FOUR["accuracy"].to_numpy() + 0.05) and (found["seeds"] == 2).all()


def test_scores_of_cells_keep_models_with_other_settings_apart() -> None:
    def cell(objective: str, tau: float = 0.1, weight: float = 1.0) -> dict:
        informative = {} if objective == "infonce" else {"informative": {"mlp": 0.75}}
        return {
            "cell": {"data": "mnist", "objective": objective, "batch_size": 2, "seed": 0, "tau": tau, "weight": weight},
            "accuracy": {"mean": {"mlp": 0.5}, **informative},
            "log_likelihood": None if objective == "infonce" else {"mean": -1.0, "drawn": -2.0},
        }

    cells = [cell("infonce"), cell("cmim", 0.3, 10.0), cell("cmim")]
    scores = accuracies_of(cells)
    assert scores["model"].unique().tolist() == ["InfoNCE", "cMIM tau=0.3 weight=10", "cMIM"]
    assert len(scores) == 5 and set(scores["evaluation"]) == {"mlp mean", "mlp informative"}
    assert likelihoods_of(cells)["drawn"].tolist() == [-2.0, -2.0]
    assert of_models(scores, ("cmim", "infonce"))["model"].tolist() == ["cMIM", "cMIM", "InfoNCE"]
    assert np.isfinite(scores["accuracy"]).all()


def test_models_are_compared_at_the_seeds_that_all_have() -> None:
    def cell(objective: str, seed: int, tau: float = 0.1) -> dict:
        return {"cell": {"objective": objective, "seed": seed, "tau": tau, "weight": 1.0}}

    cells = [cell("cmim", 0), cell("cmim", 1), cell("cae", 0), cell("cmim", 0, 0.3)]
    assert of_shared_seeds(cells, ("cmim", "cae", "mim")) == [cells[0], cells[2]]
    assert of_shared_seeds(cells, ("cmim",)) == cells[:2]
