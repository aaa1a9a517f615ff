"""The tables of RESULTS.md, made from the files of cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from nemo_cmim.errors import DataError
from nemo_cmim.markdown import markdown_table

from .cell import ABLATIONS, MAIN
from .scores import LABELS, accuracies_of, likelihoods_of, of_models, of_shared_seeds
from .sets import SETS
from .statistics import MeanTest, average_seeds, complete, paired_test, ranks, slope_test, slopes, z_scores

__all__ = ["conditions", "sections", "standard_scores"]

PAIRS = (("cmim", "mim"), ("cmim", "vae"), ("cmim", "ae"), ("cmim", "infonce"), ("mim", "vae"))
ABLATED = (("cmim", "cmim_sum"), ("infonce", "infonce_x"), ("cae", "ae"), ("cvae", "vae"))


def standard_scores(
    cells: Sequence[Mapping[str, Any]], models: Sequence[str], embedding: str | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """Accuracies of some objectives with their `z` and `rank`, and the image sets that lack a run and are left out.

    Args:
        cells: Results of `grid.read_cells`.
        models: Names of objectives. Image sets that have none of the runs of a model are left out.
        embedding: "mean", "informative", or None for both.

    Only seeds that all of these objectives have are used.
    """
    scores = of_models(accuracies_of(of_shared_seeds(cells, models)), models)
    if embedding is not None:
        scores = scores[scores["embedding"] == embedding]
    kept, lacking = complete(average_seeds(scores))
    return ranks(z_scores(kept)), lacking


def conditions(cells: Sequence[Mapping[str, Any]]) -> str:
    """A sentence with the settings that all tables depend on, to be read with each of them.

    Raises:
        DataError: If the cells have different settings, so that one table would mix them.
    """
    first = cells[0]["cell"]["settings"]
    for one in cells:
        if one["cell"]["settings"] != first:
            raise DataError(
                f"The cells have different settings: {one['cell']['settings']} and {first}. Give the folder of one grid."
            )
    sizes = first["sizes"]
    seeds = sorted({one["cell"]["seed"] for one in cells})
    return (
        f"Latent arrays of {sizes['latents']} steps (the paper: 400), {first['steps']:,} training steps (the paper: 1,000,000), "
        f"{len(seeds)} seed{'s' * (len(seeds) > 1)}; "
        f"classifiers learn from at most {first['train_images']:,} training images and are tested "
        f"on at most {first['test_images']:,} test images; the validation loss is of at most {first['valid_images']:,} images."
    )


def sections(cells: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """All sections by title: each a list of paragraphs and tables. Those that have no cells are left out."""
    notes = conditions(cells)
    found = {"Image sets": [_sets_table(cells)]}
    main, lacking = standard_scores(cells, MAIN)
    if len(main):
        regular, _ = standard_scores(cells, MAIN, "mean")
        found |= {
            "Accuracy: z-scores and ranks (Fig. 3, 10-15)": [_by_batch_size(regular, "mean"), _by_batch_size(main, "both")],
            "Differences between objectives": [_pairs_table(main, PAIRS)],
            "Sensitivity to batch size (Table 2, Fig. 4, 8)": [_slopes_table(main)],
            "Accuracy of each image set": _accuracy_tables(cells),
        }
    likelihood = of_models(likelihoods_of(cells), MAIN)
    if len(likelihood):
        found["Reconstruction (Fig. 5b)"] = [_likelihood_table(likelihood)]
    present = {one["cell"]["objective"] for one in cells}
    if present & set(ABLATIONS):
        models = [name for name in (*MAIN, *ABLATIONS) if name in present]
        scores, without = standard_scores(cells, models)
        if len(scores):
            seeds = sorted({one["cell"]["seed"] for one in of_shared_seeds(cells, models)})
            text = f"Image sets: {', '.join(dict.fromkeys(scores['data']))}. Seeds: {', '.join(map(str, seeds))}. z among these objectives."
            found["Ablations (Fig. 6, 9)"] = [
                text,
                _by_batch_size(scores, "both"),
                _pairs_table(scores, ABLATED),
                _slopes_table(scores),
            ]
        lacking = lacking + [name for name in without if name not in lacking and not len(scores)]
    temperature = _temperature_table(cells)
    if temperature:
        found["Temperature and weight of the contrastive term"] = [temperature]
    if lacking:
        notes += f" Not finished, and left out of z-scores and ranks: {', '.join(lacking)}."
    return {title: [notes, *parts] for title, parts in found.items()}


def _sets_table(cells: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for name in dict.fromkeys(one["cell"]["data"] for one in cells):
        images = next(one["images"] for one in cells if one["cell"]["data"] == name)
        of = SETS[name]
        paper = f"{of.paper[0]:,} / {of.paper[1]:,}" if of.paper else "not in the paper"
        rows.append(
            (name, f"{images['train']:,} / {images['valid']:,} / {images['test']:,}", paper, str(of.classes), images["note"])
        )
    return markdown_table(("set", "train / validation / test here", "train / test in Table 3", "classes", "note"), rows)


def _by_batch_size(scores: pd.DataFrame, embeddings: str) -> str:
    """z (and rank) of each model and batch size, averaged over image sets and evaluations."""
    sizes = sorted(scores["batch_size"].unique())
    rows = []
    for model, some in scores.groupby("model", sort=False):
        by_size = some.groupby("batch_size")[["z", "rank"]].mean()
        cells = [
            f"{by_size.loc[size, 'z']:+.2f} ({by_size.loc[size, 'rank']:.1f})" if size in by_size.index else "" for size in sizes
        ]
        rows.append((str(model), *cells, f"**{some['z'].mean():+.2f}** ({some['rank'].mean():.1f})"))
    names = {
        "mean": "mean embeddings, three classifiers",
        "both": "mean and informative embeddings (InfoNCE: mean only), three classifiers",
    }
    sets = scores["data"].nunique()
    caption = f"Average z, and average rank in brackets, over {sets} image sets: {names[embeddings]}."
    return caption + "\n\n" + markdown_table(("model", *(f"B = {size}" for size in sizes), "all"), rows)


def _pairs_table(scores: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> str:
    rows = []
    for first, second in pairs:
        row = [f"{LABELS[first]} - {LABELS[second]}"]
        for kind in ("mean", "informative"):
            of_kind = scores[scores["evaluation"].str.endswith(" " + kind)]
            row.append(_tested(paired_test(of_kind, LABELS[first], LABELS[second])))
            row.append(_tested(paired_test(of_kind, LABELS[first], LABELS[second], "accuracy"), scale=100))
        rows.append(tuple(row))
    caption = (
        "Differences at equal evaluation and batch size, in z and in accuracy (percentage points), averaged over classifiers and batch "
        "sizes; two-sided t-test over image sets (n)."
    )
    header = ("difference", "z, mean", "accuracy, mean", "z, informative", "accuracy, informative")
    return caption + "\n\n" + markdown_table(header, rows)


def _slopes_table(scores: pd.DataFrame) -> str:
    found = slopes(scores)
    by_task, by_set = slope_test(found), slope_test(found, unit="data")
    averaged = slope_test(slopes(scores, by=("evaluation",)))
    rows = [
        (model, _tested(by_task[model], 1000), _tested(by_set[model], 1000), _tested(averaged[model], 1000)) for model in by_task
    ]
    caption = (
        "Slope of z against batch size, in z per 1,000 images of a batch, and p of a two-sided t-test of its mean against 0. The paper's "
        "Table 2 takes each image set and evaluation as a value; these share networks, so image sets are tested as well. Fig. 4 "
        "averages z over image sets first."
    )
    return caption + "\n\n" + markdown_table(("model", "sets x evaluations (Table 2)", "image sets", "evaluations (Fig. 4)"), rows)


def _tested(test: MeanTest, scale: float = 1.0) -> str:
    if not test.n:
        return ""
    p = "" if test.p != test.p else f"{'**' * (test.p < 0.05)}p = {test.p:.2g}{'**' * (test.p < 0.05)}, "
    return f"{scale * test.mean:+.2f} ({p}n = {test.n})"


def _accuracy_tables(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Accuracy in percent of each image set, mean of the classifiers: mean over seeds, and range of the seeds' means in brackets."""
    scores = of_models(accuracies_of(cells), MAIN)
    tables = []
    for data, of_data in scores[scores["embedding"] == "mean"].groupby("data", sort=False):
        sizes = sorted(of_data["batch_size"].unique())
        rows = []
        for model, some in of_data.groupby("model", sort=False):
            seeds = 100 * some.groupby(["batch_size", "seed"])["accuracy"].mean().unstack()
            text = {size: f"{line.mean():.1f} ({line.max() - line.min():.1f})" for size, line in seeds.iterrows()}
            rows.append((str(model), *(text.get(size, "") for size in sizes)))
        caption = f"{data}: accuracy of mean embeddings, %, averaged over the three classifiers and seeds (range over seeds)."
        tables.append(caption + "\n\n" + markdown_table(("model", *(f"B = {size}" for size in sizes)), rows))
    return tables


def _likelihood_table(likelihood: pd.DataFrame) -> str:
    rows = []
    models = list(dict.fromkeys(likelihood["model"]))
    for (data, size), some in likelihood.groupby(["data", "batch_size"], sort=False):
        mean = some.groupby("model")[["mean", "drawn"]].mean()
        rows.append(
            (
                data,
                str(size),
                *(f"{mean.loc[m, 'mean']:.1f} ({mean.loc[m, 'drawn']:.1f})" if m in mean.index else "" for m in models),
            )
        )
    order = {name: place for place, name in enumerate(dict.fromkeys(likelihood["data"]))}
    rows.sort(key=lambda row: (order[row[0]], int(row[1])))
    caption = "log p(x|z) of test images, nats per image, mean over seeds: z the mean of q(z|x) (in brackets: one draw). Higher is better."
    paired = likelihood.groupby(["data", "batch_size", "model"])["mean"].mean().reset_index()
    test = paired_test(paired.assign(evaluation="all"), LABELS["cmim"], LABELS["mim"], "mean")
    more = f"cMIM - MIM: {_tested(test)} nats per image, t-test over image sets." if test.n else ""
    return "\n\n".join([caption, markdown_table(("set", "B", *models), rows), *([more] if more else [])])


def _temperature_table(cells: Sequence[Mapping[str, Any]]) -> str:
    """cMIM with other tau and weights beside the paper's; empty if there are none. Only cells whose seed, set and batch size they share."""
    cmim = [one for one in cells if one["cell"]["objective"] == "cmim"]
    others = {_shared(one) for one in cmim if (one["cell"]["tau"], one["cell"]["weight"]) != (0.1, 1.0)}
    some = [one for one in cmim if _shared(one) in others]
    if not others:
        return ""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for one in some:
        cell = one["cell"]
        groups.setdefault((cell["data"], cell["batch_size"], cell["weight"], cell["tau"]), []).append(one)
    rows = []
    for (data, size, weight, tau), of_group in sorted(groups.items(), key=lambda item: item[0]):
        scores, likelihood = accuracies_of(of_group), likelihoods_of(of_group)
        kinds = [f"{100 * scores[scores['embedding'] == kind]['accuracy'].mean():.1f}" for kind in ("mean", "informative")]
        rows.append((data, str(size), f"{tau:g}", f"{weight:g}", *kinds, f"{likelihood['mean'].mean():.1f}"))
    header = ("set", "B", "tau", "weight", "accuracy, mean, %", "accuracy, informative, %", "log p(x|z), nats")
    return "cMIM, averaged over the three classifiers; one seed.\n\n" + markdown_table(header, rows)


def _shared(one: Mapping[str, Any]) -> tuple[Any, ...]:
    cell = one["cell"]
    return cell["data"], cell["batch_size"], cell["seed"]
