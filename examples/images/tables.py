"""The tables of RESULTS.md, made from the files of cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from nemo_cmim.errors import DataError
from nemo_cmim.markdown import markdown_table

from .cell import ABLATIONS, MAIN, TAU, WEIGHT
from .scores import LABELS, accuracies_of, comparable, likelihoods_of, of_ablated_sets
from .sets import SETS
from .statistics import TASK, MeanTest, average_seeds, paired_test, ranks, slope_test, slopes, z_scores

__all__ = ["conditions", "sections", "sets_table", "standard_scores"]

PAIRS = (("cmim", "mim"), ("cmim", "vae"), ("cmim", "ae"), ("cmim", "infonce"), ("mim", "vae"))
ABLATED = (("cmim", "cmim_sum"), ("infonce", "infonce_x"), ("cae", "ae"), ("cvae", "vae"))
_LISTED = 3  # missing cells of a set that are named

Cells = Sequence[Mapping[str, Any]]


def standard_scores(cells: Cells, embedding: str | None = None) -> pd.DataFrame:
    """Accuracies, averaged over seeds, with their `z` and `rank` among these cells.

    Args:
        cells: Cells of `scores.comparable`.
        embedding: "mean", "informative", or None for both.
    """
    scores = accuracies_of(cells)
    if embedding is not None:
        scores = scores[scores["embedding"] == embedding]
    return ranks(z_scores(average_seeds(scores)))


def conditions(cells: Cells) -> str:
    """The settings that all tables depend on, to be read with each of them.

    Raises:
        DataError: If the cells have different settings, or those of an image set different images, so that one table would mix them.
    """
    first = cells[0]["cell"]["settings"]
    images: dict[str, str] = {}
    for one in cells:
        data, sha256 = one["cell"]["data"], one["images"]["sha256"]
        if one["cell"]["settings"] != first:
            raise DataError(
                f"The cells have different settings: {one['cell']['settings']} and {first}. Give the folder of one grid."
            )
        if images.setdefault(data, sha256) != sha256:
            raise DataError(f"The cells of {data} are of different images (SHA-256 {images[data][:12]} and {sha256[:12]}).")
    limits = {name: f"{first[name]:,}" if first[name] else "all" for name in ("train_images", "test_images", "valid_images")}
    return (
        f"Latent arrays of {first['sizes']['latents']} steps (the paper: 400), {first['steps']:,} training steps (the paper: 1,000,000). "
        f"Maximum number of images: {limits['train_images']} for training the classifiers, {limits['test_images']} for testing, "
        f"{limits['valid_images']} for the validation loss. Computed on: {', '.join(sorted({one['machine'] for one in cells}))}."
    )


def sections(cells: Cells) -> dict[str, list[str]]:
    """All sections by title: each a list of paragraphs and tables. Those without cells are left out."""
    notes = conditions(cells)
    main, missing = comparable(cells, MAIN)
    found = {"Image sets": [_sets_of(cells), *_missing(missing, "the five main objectives")]}
    if main:
        found |= _main_sections(main)
    ablated, missing = comparable(of_ablated_sets(cells), (*MAIN, *ABLATIONS))
    found["Image sets"] += _missing(missing, "the ablations")
    if ablated:
        found["Ablations (Fig. 6, 9)"] = _ablations(ablated)
    if temperature := _temperature_table(cells):
        found["Temperature and weight of the contrastive term"] = [temperature]
    return {title: [notes, *parts] for title, parts in found.items()}


def _main_sections(cells: Cells) -> dict[str, list[str]]:
    regular, both, scope = standard_scores(cells, "mean"), standard_scores(cells), _scope(cells)
    found = {
        "Accuracy: z-scores and ranks (Fig. 3, 10-15)": [_by_batch_size(regular), _by_batch_size(both)],
        "Differences between objectives": [_pairs_table(both, PAIRS)],
        "Sensitivity to batch size (Table 2, Fig. 4, 8)": [_slopes_table(both)],
        "Accuracy of each image set": _accuracy_tables(accuracies_of(cells)),
    }
    likelihood = likelihoods_of(cells)
    if len(likelihood):
        found["Reconstruction (Fig. 5b)"] = [_likelihood_table(likelihood)]
    return {title: [scope, *parts] for title, parts in found.items()}


def _ablations(cells: Cells) -> list[str]:
    regular, both = standard_scores(cells, "mean"), standard_scores(cells)
    tables = [
        _by_batch_size(regular),
        _slopes_table(regular),
        _by_batch_size(both),
        _slopes_table(both),
        _pairs_table(both, ABLATED),
    ]
    return [f"{_scope(cells)} z and rank are among these objectives. Fig. 6 uses mean embeddings only.", *tables]


def _scope(cells: Cells) -> str:
    sets, seeds = (list(dict.fromkeys(one["cell"][name] for one in cells)) for name in ("data", "seed"))
    return f"Image sets: {', '.join(sets)}. Seeds: {', '.join(map(str, sorted(seeds)))}."


def _missing(missing: Mapping[str, Sequence[str]], what: str) -> list[str]:
    """A paragraph on the sets that `comparable` left out; none if there are none."""
    texts = []
    for data, cells in missing.items():
        more = f" and {len(cells) - _LISTED} more" if len(cells) > _LISTED else ""
        texts.append(f"{data} (lacks {', '.join(cells[:_LISTED])}{more})")
    return [f"Left out of the tables of {what}, since cells are missing: {'; '.join(texts)}."] if texts else []


def _sets_of(cells: Cells) -> str:
    rows = {}
    for one in cells:
        images = one["images"]
        rows[one["cell"]["data"]] = ((images["train"], images["valid"], images["test"]), images["note"])
    return sets_table(rows)


def sets_table(found: Mapping[str, tuple[tuple[int, int, int] | None, str]]) -> str:
    """A table of image sets: the numbers of images here, as documented by the publisher, and in Table 3 of the paper.

    Args:
        found: Numbers of training, validation and test images (None: the set cannot be read) and note, by the name of the set.
    """
    rows = []
    for name, (counts, note) in found.items():
        of = SETS[name]
        paper = f"{_counts(of.paper[:2])}, {of.paper[2]} classes" if of.paper else "not in the paper"
        rows.append((name, _counts(counts) if counts else "absent", f"{_counts(of.documented)}, {of.classes} classes", paper, note))
    header = ("set", "train / validation / test here", "documented: train / validation / test", "Table 3: train / test", "note")
    return markdown_table(header, rows)


def _counts(counts: Iterable[int]) -> str:
    return " / ".join(f"{count:,}" for count in counts)


def _by_batch_size(scores: pd.DataFrame) -> str:
    """z (and rank) of each model and batch size, averaged over image sets and evaluations."""
    sizes = sorted(scores["batch_size"].unique())
    rows = []
    for model, some in scores.groupby("model", sort=False):
        by_size = some.groupby("batch_size")[["z", "rank"]].mean()
        cells = [f"{by_size.loc[size, 'z']:+.2f} ({by_size.loc[size, 'rank']:.1f})" for size in sizes]
        rows.append((str(model), *cells, f"**{some['z'].mean():+.2f}** ({some['rank'].mean():.1f})"))
    kind = scores["evaluation"].str.split(" ").str[1].rename("kind")
    runs = scores.groupby([kind, *TASK]).size().groupby(level=0, sort=False).max()
    caption = (
        f"Average z, and average rank in brackets, over {scores['data'].nunique()} image sets and three classifiers: "
        f"{' and '.join(f'{name} embeddings ({count} runs each)' for name, count in runs.sort_index(ascending=False).items())}."
    )
    if runs.nunique() > 1:
        caption += (
            " Models without a decoder have only mean embeddings, so their ranks are among more runs: compare the ranks of this table "
            "only among models with a decoder."
        )
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
    rows = []
    for model, test in by_task.items():
        spreads = [f"{1000 * one.sd:.2f}" if one.n > 1 else "" for one in (test, averaged[model])]
        tests = [_tested(one, 1000) for one in (test, by_set[model], averaged[model])]
        rows.append((model, tests[0], spreads[0], tests[1], tests[2], spreads[1]))
    kinds = " and ".join(scores["evaluation"].str.split(" ").str[1].unique())
    caption = (
        f"Slope of z against batch size ({kinds} embeddings), in z per 1,000 images of a batch, with p of a two-sided t-test of its mean "
        "against 0, and its standard deviation (SD). In Table 2 of the paper, each image set and evaluation is one value. The evaluations "
        "of a set use the same networks, so image sets are tested as well. For Fig. 4, z is averaged over image sets first."
    )
    header = ("model", "sets x evaluations (Table 2)", "SD (Fig. 8)", "image sets", "evaluations (Fig. 4)", "SD (Fig. 4)")
    return caption + "\n\n" + markdown_table(header, rows)


def _tested(test: MeanTest, scale: float = 1.0) -> str:
    if not test.n:
        return ""
    p = "" if test.p != test.p else f"{'**' * (test.p < 0.05)}p = {test.p:.2g}{'**' * (test.p < 0.05)}, "
    return f"{scale * test.mean:+.2f} ({p}n = {test.n})"


def _accuracy_tables(scores: pd.DataFrame) -> list[str]:
    """Accuracy in percent of each image set, mean of the classifiers: mean over seeds, and range of the seeds' means in brackets."""
    tables = []
    for data, of_data in scores[scores["embedding"] == "mean"].groupby("data", sort=False):
        sizes = sorted(of_data["batch_size"].unique())
        rows = []
        for model, some in of_data.groupby("model", sort=False):
            seeds = 100 * some.groupby(["batch_size", "seed"])["accuracy"].mean().unstack()
            rows.append(
                (str(model), *(f"{seeds.loc[n].mean():.1f} ({seeds.loc[n].max() - seeds.loc[n].min():.1f})" for n in sizes))
            )
        caption = f"{data}: accuracy of mean embeddings, %, averaged over the three classifiers and seeds (range over seeds)."
        tables.append(caption + "\n\n" + markdown_table(("model", *(f"B = {size}" for size in sizes)), rows))
    return tables


def _likelihood_table(likelihood: pd.DataFrame) -> str:
    models = list(dict.fromkeys(likelihood["model"]))
    averages = likelihood.groupby(["data", "batch_size", "model"], sort=False)[["mean", "drawn"]].mean()
    rows = []
    for data in dict.fromkeys(likelihood["data"]):
        for size in sorted(likelihood["batch_size"].unique()):
            of_models = [averages.loc[data, size, model] for model in models]
            rows.append((data, str(size), *(f"{one['mean']:.1f} ({one['drawn']:.1f})" for one in of_models)))
    caption = "log p(x|z) of test images, nats per image, mean over seeds: z the mean of q(z|x) (in brackets: one draw). Higher is better."
    paired = averages.reset_index().assign(evaluation="all")
    test = paired_test(paired, LABELS["cmim"], LABELS["mim"], "mean")
    more = f"cMIM - MIM: {_tested(test)} nats per image, two-sided t-test over image sets." if test.n else ""
    return "\n\n".join([caption, markdown_table(("set", "B", *models), rows), *([more] if more else [])])


def _temperature_table(cells: Cells) -> str:
    """cMIM with different tau and weights, compared with the paper's at the same seeds; empty if there are none."""
    groups: dict[tuple[str, int], dict[tuple[float, float], dict[int, Mapping[str, Any]]]] = {}
    for one in cells:
        cell = one["cell"]
        if cell["objective"] == "cmim":
            by_setting = groups.setdefault((cell["data"], cell["batch_size"]), {})
            by_setting.setdefault((cell["weight"], cell["tau"]), {})[cell["seed"]] = one
    rows = []
    for (data, size), by_setting in sorted(groups.items()):
        seeds = sorted(set.intersection(*(set(by_seed) for by_seed in by_setting.values())))
        if not seeds or set(by_setting) == {(WEIGHT, TAU)}:
            continue
        for (weight, tau), by_seed in sorted(by_setting.items()):
            some = [by_seed[seed] for seed in seeds]
            accuracy = 100 * accuracies_of(some).groupby("embedding")["accuracy"].mean()
            likelihood = likelihoods_of(some)["mean"].mean()
            values = (f"{accuracy['mean']:.1f}", f"{accuracy['informative']:.1f}", f"{likelihood:.1f}")
            rows.append((data, str(size), f"{tau:g}", f"{weight:g}", *values, ", ".join(map(str, seeds))))
    header = ("set", "B", "tau", "weight", "accuracy, mean, %", "accuracy, informative, %", r"log p(x\|z), nats", "seeds")
    return "cMIM, averaged over the three classifiers and seeds.\n\n" + markdown_table(header, rows) if rows else ""
