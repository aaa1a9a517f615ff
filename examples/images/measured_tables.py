"""Tables of what cells measured, by image set: accuracy, reconstruction, and posteriors."""

from __future__ import annotations

import numpy as np
import pandas as pd

from nemo_cmim.markdown import markdown_table

from .cell import REFERENCES
from .scores import LABELS, Cells, accuracies_of, best_validation
from .statistics import MeanTest, paired_test

__all__ = [
    "LEAST",
    "NOTE",
    "TESTED",
    "accuracy_tables",
    "likelihood_tables",
    "posterior_table",
    "references_of",
    "training_tables",
    "with_p_value",
]

LEAST = 3
"""Values of a test whose p-value is shown."""
_TERMS = {
    "log_p_x_given_z": r"log p(x\|z)",
    "log_q_z_given_x": r"log q(z\|x)",
    "log_p_z": "log p(z)",
    "kl": "KL",
    "log_p_k1": "log p_k1",
    "log_p_positive": "minus InfoNCE",
}
NOTE = (
    "Rows without training: cMIM's network with its initial weights (untrained), and the pixels as vectors (pixels). They do not depend on "
    "B, and take no part in z-scores and ranks."
)
"""What the references are."""

TESTED = (
    "mean ± half of its 95 % confidence interval, with p of a two-sided t-test against 0 (bold below 0.05, not corrected for the number of "
    "tests) and the number n of values"
)
"""What `with_p_value` shows."""


def references_of(cells: Cells) -> Cells:
    """The cells that need no training."""
    return [one for one in cells if one["cell"]["objective"] in REFERENCES]


def with_p_value(test: MeanTest, scale: float = 1.0) -> str:
    """A mean with its confidence interval, p-value (bold below 0.05) and n; only mean and n if there are fewer than three values."""
    if not test.n:
        return ""
    mean = f"{scale * test.mean:+.2f}"
    if test.n < LEAST or test.p != test.p:
        return f"{mean} (n = {test.n})"
    p = f"p = {test.p:.2g}"
    return f"{mean} ± {scale * test.half_width:.2f} ({f'**{p}**' if test.p < 0.05 else p}, n = {test.n})"


def accuracy_tables(scores: pd.DataFrame, references: Cells) -> list[str]:
    """Accuracy in percent of each image set and embedding, with the references of the same seeds.

    Args:
        scores: Rows of `scores.accuracies_of`.
        references: Cells of `references_of`.
    """
    tables, of_references = [], accuracies_of(references)
    of_pixels = {one["cell"]["data"]: one for one in references if one["cell"]["objective"] == "pixels"}
    for (data, embedding), some in scores.groupby(["data", "embedding"], sort=False):
        sizes = sorted(some["batch_size"].unique())
        rows = []
        for model, of_model in some.groupby("model", sort=False):
            rows.append((str(model), *(_mean_and_range(of_model[of_model["batch_size"] == size]) for size in sizes)))
        same = of_references[(of_references["data"] == data) & of_references["seed"].isin(some["seed"])]
        for model, of_model in same[same["embedding"].isin((embedding, "pixels"))].groupby("model", sort=False):
            rows.append((str(model), *[_mean_and_range(of_model)] * len(sizes)))
        caption = (
            f"{data}: accuracy of {embedding} embeddings, %, averaged over the three classifiers and seeds (range over seeds)."
        )
        if data in of_pixels:
            rows.append(("commonest class", *[f"{100 * of_pixels[data]['commonest_class']:.1f}"] * len(sizes)))
            caption += f" {of_pixels[data]['tested_images']:,} test images."
        tables.append(caption + "\n\n" + markdown_table(("model", *(f"B = {size}" for size in sizes)), rows))
    return [f"{NOTE} Commonest class: always the class with the most training images.", *tables]


def _mean_and_range(scores: pd.DataFrame) -> str:
    """Of the accuracies of seeds, averaged over classifiers, in percent; without range if there is one seed."""
    seeds = 100 * scores.groupby("seed")["accuracy"].mean()
    spread = f" ({seeds.max() - seeds.min():.1f})" if len(seeds) > 1 else ""
    return f"{seeds.mean():.1f}{spread}"


def training_tables(scores: pd.DataFrame, references: Cells) -> list[str]:
    """What training adds: accuracy minus that of the untrained network, for each model and batch size, and its test over image sets.

    Args:
        scores: Rows of `scores.accuracies_of`.
        references: Cells of `references_of`.

    Returns:
        A table for each embedding; none without the untrained network.
    """
    untrained = accuracies_of([one for one in references if one["cell"]["objective"] == "untrained"])
    untrained = untrained.merge(scores[["data", "seed"]].drop_duplicates())
    sizes, tables = sorted(scores["batch_size"].unique()), []
    for embedding, some in scores.groupby("embedding", sort=False):
        before = untrained[untrained["embedding"] == embedding]
        rows = []
        for model in some["model"].unique() if len(before) else ():
            pairs = [pd.concat([some[some["batch_size"] == size], before.assign(batch_size=size)]) for size in sizes]
            tests = [paired_test(pair, model, LABELS["untrained"], "accuracy") for pair in pairs]
            rows.append((model, *(with_p_value(test, 100) for test in tests)))
        if rows:
            caption = (
                f"What training adds: accuracy of {embedding} embeddings minus that of the untrained network (percentage points), averaged "
                "over classifiers and seeds; a value of the t-test is an image set."
            )
            tables.append(caption + "\n\n" + markdown_table(("model", *(f"B = {size}" for size in sizes)), rows))
    return tables


def likelihood_tables(likelihood: pd.DataFrame, references: Cells) -> list[str]:
    """log p(x|z) of each image set, batch size and model, that of the mean image, and the test of cMIM against MIM.

    Args:
        likelihood: Rows of `scores.likelihoods_of`.
        references: Cells of `references_of`.
    """
    models = list(dict.fromkeys(likelihood["model"]))
    sizes = sorted(likelihood["batch_size"].unique())
    mean_images = {one["cell"]["data"]: one["mean_image"] for one in references if one["cell"]["objective"] == "pixels"}
    averages = likelihood.groupby(["data", "batch_size", "model"], sort=False)[["mean", "drawn"]].mean()
    rows = []
    for data in dict.fromkeys(likelihood["data"]):
        mean_image = f"{mean_images[data]:.1f}" if data in mean_images else ""
        for size in sizes:
            of_models = [averages.loc[data, size, model] for model in models]
            rows.append((data, str(size), *(f"{one['mean']:.1f} ({one['drawn']:.1f})" for one in of_models), mean_image))
    caption = (
        "log p(x|z) of test images, nats per image, mean over seeds: z is the mean of q(z|x) (in brackets: one draw). Higher is better. "
        "Mean image: the mean of the training images as probabilities of the pixels, which needs no z."
    )
    tables = [caption + "\n\n" + markdown_table(("set", "B", *models, "mean image"), rows)]
    paired = averages.reset_index().assign(evaluation="all")
    of_sizes = {f"B = {size}": paired[paired["batch_size"] == size] for size in sizes} | {"all": paired}
    tests = {name: paired_test(some, LABELS["cmim"], LABELS["mim"], "mean") for name, some in of_sizes.items()}
    if tests["all"].n:
        caption = (
            "cMIM - MIM: log p(x|z), nats per image; below 0, cMIM reconstructs worse. A value of the two-sided t-test is an image set; "
            "mean ± half of its 95 % confidence interval."
        )
        tables.append(caption + "\n\n" + markdown_table(tuple(tests), [tuple(with_p_value(test) for test in tests.values())]))
    return tables


def posterior_table(cells: Cells) -> str:
    """Variance and spread of q(z|x), and the terms of the lowest validation loss, of each model and batch size."""
    rows = []
    for one in cells:
        best = best_validation(one)
        own = {"model": LABELS[one["cell"]["objective"]], "B": one["cell"]["batch_size"]}
        rows.append({**own, **one["posterior"], **{name: best.get(name) for name in _TERMS}})
    frame = pd.DataFrame(rows).astype(dict.fromkeys(("median_variance", "at_floor", *_TERMS), float))
    frame["median_variance"] = np.log10(frame["median_variance"])
    averages = frame.groupby(["model", "B"], sort=False).mean().reset_index()
    terms = [name for name in _TERMS if averages[name].notna().any()]
    shown = []
    for one in averages.to_dict("records"):
        values = (one["sd_of_means"], *(one[name] for name in terms))
        variance = "" if np.isnan(one["at_floor"]) else f"{10 ** one['median_variance']:.1e}"
        floor = "" if np.isnan(one["at_floor"]) else f"{100 * one['at_floor']:.0f}"
        shown.append(
            (one["model"], str(one["B"]), variance, floor, *("" if np.isnan(value) else f"{value:.2f}" for value in values))
        )
    caption = (
        "Median variance of q(z|x) of test images (geometric mean over image sets and seeds), variances at the smallest that the network "
        "allows (1e-6), and standard deviation of the means over images, averaged over dimensions. Then the terms of the lowest validation "
        "loss, nats per image. Averages over image sets and seeds."
    )
    header = ("model", "B", "median variance", "at the smallest, %", "SD of means", *(_TERMS[name] for name in terms))
    return caption + "\n\n" + markdown_table(header, shown)
