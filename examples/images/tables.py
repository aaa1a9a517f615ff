"""The sections of RESULTS.md, made from the files of cells, and the tables that compare objectives. See also `measured_tables`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import pandas as pd

from nemo_cmim.errors import DataError
from nemo_cmim.markdown import markdown_table

from .cell import ABLATIONS, MAIN
from .evaluation import CLASSIFIERS
from .measured_tables import (
    LEAST,
    TESTED,
    accuracy_tables,
    likelihood_tables,
    posterior_table,
    references_of,
    training_tables,
    with_p_value,
)
from .scores import LABELS, Cells, accuracies_of, comparable, likelihoods_of, of_ablated_sets
from .sets import SETS
from .statistics import TASK, MeanTest, add_differences, average_seeds, paired_test, ranks, slope_test, slopes, z_scores
from .temperature_tables import temperature_tables

__all__ = ["conditions", "scope", "sections", "sets_table", "standard_scores"]

PAIRS = (("cmim", "mim"), ("cmim", "vae"), ("cmim", "ae"), ("cmim", "infonce"))
ABLATED = (("cmim_sum", "cmim"), ("infonce_x", "infonce"), ("cae", "ae"), ("cvae", "vae"))
SLOPES = (("infonce", "cmim"), ("infonce", "ae"), ("cmim", "mim"), ("cmim", "ae"))
ABLATED_SLOPES = ABLATED[:2]
PAPER_P = {
    "MIM": "0.029 (n = 90)",
    "cMIM": "0.18 (n = 90)",
    "VAE": "0.79 (n = 90)",
    "InfoNCE": "7.6e-8 (n = 45)",
    "AE": "0.10 (n = 90)",
}
"""p-values of Table 2 of the paper."""

_Z = "z-score: accuracy minus mean, over standard deviation, of all models and batch sizes of an image set, embedding and classifier."
_LISTED = 3  # missing cells of a set that are named

Pairs = Sequence[tuple[str, str]]


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
        if (other := one["cell"]["settings"]) != first:
            differing = ", ".join(f"{key} {first[key]} and {other[key]}" for key in first if first[key] != other.get(key))
            raise DataError(f"The cells have different settings: {differing}. Give the folder of one grid.")
        if images.setdefault(data, sha256) != sha256:
            raise DataError(f"The cells of {data} are of different images (SHA-256 {images[data][:12]} and {sha256[:12]}).")
    limits = {name: f"{first[name]:,}" if first[name] else "all" for name in ("train_images", "test_images", "valid_images")}
    sizes = sorted({one["cell"]["batch_size"] for one in cells} - {0})
    seen = ", ".join(f"{first['steps'] * size:,} at B = {size}" for size in sizes)
    computed = sorted({f"{one['machine']}, PyTorch {one['torch']}" for one in cells})
    return (
        f"Latent arrays of {first['sizes']['latents']} steps (the paper: 400), {first['steps']:,} training steps (the paper: 1,000,000). "
        f"Images seen in training (steps x B): {seen}. Maximum number of images: {limits['train_images']} for training the classifiers, "
        f"{limits['test_images']} for testing, {limits['valid_images']} for the validation loss. Computed on: {'; '.join(computed)}."
    )


def sections(cells: Cells) -> dict[str, list[str]]:
    """All sections by title: each a list of paragraphs and tables. Those without cells are left out."""
    notes = conditions(cells)
    main, missing = comparable(cells, MAIN)
    hours = sum(one["seconds"] for one in cells) / 3600
    found = {
        "Image sets": [
            f"{len(cells)} cells (training runs and references), {hours:.1f} core-hours.",
            _sets_of(cells),
            *_missing(missing, "the five main objectives"),
        ]
    }
    if main:
        found |= _main_sections(main, references_of(cells))
    ablated, missing = comparable(of_ablated_sets(cells), (*MAIN, *ABLATIONS))
    found["Image sets"] += _missing(missing, "the ablations")
    if ablated:
        found["Ablations (Fig. 6, 9)"] = _ablations(ablated)
    if tables := temperature_tables(cells):
        found["Temperature and weight of the contrastive term"] = tables
    return {title: [notes, *parts] for title, parts in found.items()}


def _main_sections(cells: Cells, references: Cells) -> dict[str, list[str]]:
    scores = accuracies_of(cells)
    by_embedding = [standard_scores(cells, kind) for kind in ("mean", "informative", None)]
    both, of_all = by_embedding[-1], scope(cells)
    found = {
        "Accuracy: z-scores and ranks (Fig. 3, 10-15)": [_by_batch_size(scores) for scores in by_embedding if len(scores)],
        "Differences between objectives": [_pairs_table(both, PAIRS), _classifiers_table(both), _embeddings_table(both)],
        "Sensitivity to batch size (Table 2, Fig. 4, 8)": [_slopes_table(both, SLOPES, PAPER_P)],
        "Accuracy of each image set": [*training_tables(scores, references), *accuracy_tables(scores, references)],
    }
    likelihood = likelihoods_of(cells)
    if len(likelihood):
        found["Reconstruction (Fig. 5b)"] = likelihood_tables(likelihood, references)
    found["Posteriors and terms of the validation loss"] = [posterior_table(cells)]
    return {title: [of_all, *(part for part in parts if part)] for title, parts in found.items()}


def _ablations(cells: Cells) -> list[str]:
    regular, both = standard_scores(cells, "mean"), standard_scores(cells)
    same = LABELS["cmim_sum"]
    is_same = (both["model"] == same) & (both["batch_size"] == 2)
    return [
        f"{scope(cells)} z-scores and ranks are among these objectives. Fig. 6 uses mean embeddings only.",
        _by_batch_size(regular),
        _slopes_table(regular, ABLATED_SLOPES),
        _by_batch_size(both),
        _slopes_table(both, ABLATED_SLOPES),
        _pairs_table(both[~is_same], ABLATED, ("data", "batch_size")),
        *(
            [f"B = 2 is left out for {same}: with a single other image, sum and mean are equal, so it is cMIM."]
            if is_same.any()
            else []
        ),
    ]


def scope(cells: Cells) -> str:
    """Names the image sets of a table or figure, with their seeds."""
    by_set: dict[str, set[int]] = {}
    for one in cells:
        by_set.setdefault(one["cell"]["data"], set()).add(one["cell"]["seed"])
    by_seeds: dict[str, list[str]] = {}
    for name, seeds in by_set.items():
        by_seeds.setdefault(f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, sorted(seeds)))}", []).append(name)
    texts = [f"{', '.join(names)} ({seeds})" for seeds, names in by_seeds.items()]
    return f"Image sets: {'; '.join(texts)}."


def _missing(missing: Mapping[str, Sequence[str]], what: str) -> list[str]:
    """A paragraph on the seeds that `comparable` left out; none if there are none."""
    texts = []
    for seed, cells in missing.items():
        more = f" and {len(cells) - _LISTED} more" if len(cells) > _LISTED else ""
        texts.append(f"{seed} (lacks {', '.join(cells[:_LISTED])}{more})")
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
    embeddings = [f"{name} (ranks 1 to {count}, 1 is the best)" for name, count in runs.sort_index(ascending=False).items()]
    caption = (
        f"{_Z} Average z-score, and average rank in brackets, over sets and classifiers. Embeddings: {' and '.join(embeddings)}."
    )
    if runs.nunique() > 1:
        tasks = scores.groupby("model")["evaluation"].count() // len(sizes)
        caption += (
            f" Models without a decoder have only mean embeddings: their numbers are averages over {tasks.min()} tasks (image set, "
            f"embedding and classifier), those of the others over {tasks.max()}. Compare this table only among models with a decoder."
        )
    return caption + "\n\n" + markdown_table(("model", *(f"B = {size}" for size in sizes), "all"), rows)


def _pairs_table(scores: pd.DataFrame, pairs: Pairs, unit: Sequence[str] = ("data",)) -> str:
    rows = []
    for first, second in pairs:
        row = [f"{LABELS[first]} - {LABELS[second]}"]
        for kind in ("mean", "informative"):
            of_kind = scores[scores["evaluation"].str.endswith(" " + kind)]
            for value, scale in (("z", 1), ("accuracy", 100)):
                row.append(with_p_value(paired_test(of_kind, LABELS[first], LABELS[second], value, unit), scale))
        rows.append(tuple(row))
    of = (
        "averaged over classifiers and batch sizes; a value of the t-test is an image set."
        if unit == ("data",)
        else "averaged over classifiers; a value of the t-test is a pair of networks (set and B), so it says nothing about other sets."
    )
    caption = (
        f"Differences at equal image set, classifier and B, in z-score and in accuracy (percentage points), {of} Shown: {TESTED}."
    )
    header = (
        "difference",
        "z-score, mean embedding",
        "accuracy, mean embedding",
        "z-score, informative embedding",
        "accuracy, informative embedding",
    )
    return caption + "\n\n" + markdown_table(header, rows)


def _classifiers_table(scores: pd.DataFrame) -> str:
    """Accuracy of cMIM minus that of MIM, for each classifier and embedding; empty without MIM."""
    tasks, rows = scores["evaluation"].str.split(" ", expand=True), []
    for classifier in CLASSIFIERS:
        tests = [
            paired_test(scores[(tasks[0] == classifier) & (tasks[1] == kind)], LABELS["cmim"], LABELS["mim"], "accuracy")
            for kind in ("mean", "informative")
        ]
        rows.append((classifier, *(with_p_value(test, 100) for test in tests)))
    caption = (
        "cMIM - MIM for each classifier: accuracy (percentage points), averaged over B; a value of the t-test is an image set."
    )
    return caption + "\n\n" + markdown_table(("classifier", "mean embedding", "informative embedding"), rows) if tests[0].n else ""


def _embeddings_table(scores: pd.DataFrame) -> str:
    """Accuracy of informative minus that of mean embeddings, for each model with both; empty if there is none."""
    tasks = scores["evaluation"].str.split(" ", expand=True)
    sizes, rows = sorted(scores["batch_size"].unique()), []
    for model, some in scores.assign(evaluation=tasks[0], kind=tasks[1]).groupby("model", sort=False):
        pairs = some.assign(model=some["kind"])
        tests = [
            paired_test(of_size, "informative", "mean", "accuracy")
            for of_size in (*(pairs[pairs["batch_size"] == size] for size in sizes), pairs)
        ]
        if tests[-1].n:
            rows.append((f"{model}: informative - mean", *(with_p_value(test, 100) for test in tests)))
    caption = (
        "Informative and mean embeddings of the same networks: difference in accuracy (percentage points), averaged over classifiers (all: "
        "and batch sizes); a value of the t-test is an image set."
    )
    return caption + "\n\n" + markdown_table(("difference", *(f"B = {size}" for size in sizes), "all"), rows) if rows else ""


def _slopes_table(scores: pd.DataFrame, pairs: Pairs, paper: Mapping[str, str] = MappingProxyType({})) -> str:
    labels = [(LABELS[first], LABELS[second]) for first, second in pairs]
    found = add_differences(slopes(scores), labels)
    by_set, by_task = slope_test(found, unit="data"), slope_test(found)
    averaged = slope_test(add_differences(slopes(scores, by=("evaluation",)), labels))
    rows = []
    for model, test in by_set.items():
        p = f", p = {by_task[model].p:.2g}" if test.n >= LEAST else ""
        rows.append((model, with_p_value(test, 100), _spread(by_task[model], p), paper.get(model, ""), _spread(averaged[model])))
    kinds = " and ".join(scores["evaluation"].str.split(" ").str[1].unique())
    caption = (
        f"Slope of the z-score against batch size ({kinds} embeddings): change for 100 more images in a batch. Judge by the first "
        f"column, in which a value of the t-test is an image set: {TESTED}. In Table 2 of the paper, each image set and "
        "evaluation (embedding and classifier) is a value; these values share networks and images, so p is too small. For Fig. 4, z-scores "
        "are averaged over image sets first. SD: standard deviation. Rows of two models: differences of their slopes, over the evaluations "
        "that both have. All batch sizes have the same number of steps, so larger ones also see more images; AE has no contrastive term, "
        "so its slope shows this effect alone."
    )
    header = ("model", "image sets", "sets x evaluations (Table 2, Fig. 8)", "p in Table 2 of the paper", "evaluations (Fig. 4)")
    return caption + "\n\n" + markdown_table(header, rows)


def _spread(test: MeanTest, p: str = "") -> str:
    """Mean slope with its standard deviation, n and perhaps `p`, for values that are not independent."""
    sd = f"SD {100 * test.sd:.2f}{p}, " if test.n > 1 else ""
    return f"{100 * test.mean:+.2f} ({sd}n = {test.n})"
