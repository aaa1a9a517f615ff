"""The sections of RESULTS.md, made from the files of cells, and the tables that compare objectives. See also `measured_tables`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from nemo_cmim.errors import DataError
from nemo_cmim.markdown import markdown_table

from .cell import ABLATIONS, MAIN
from .measured_tables import accuracy_tables, likelihood_table, posterior_table, references_of, temperature_table, with_p_value
from .scores import LABELS, accuracies_of, comparable, likelihoods_of, of_ablated_sets
from .sets import SETS
from .statistics import TASK, add_differences, average_seeds, paired_test, ranks, slope_test, slopes, z_scores

__all__ = ["conditions", "sections", "sets_table", "standard_scores"]

PAIRS = (("cmim", "mim"), ("cmim", "vae"), ("cmim", "ae"), ("cmim", "infonce"), ("mim", "vae"))
ABLATED = (("cmim", "cmim_sum"), ("infonce", "infonce_x"), ("cae", "ae"), ("cvae", "vae"))
SLOPES = (("cmim", "ae"), ("cmim", "mim"))
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
    found = {"Image sets": [_sets_of(cells), *_missing(missing, "the five main objectives")]}
    if main:
        found |= _main_sections(main, references_of(cells))
    ablated, missing = comparable(of_ablated_sets(cells), (*MAIN, *ABLATIONS))
    found["Image sets"] += _missing(missing, "the ablations")
    if ablated:
        found["Ablations (Fig. 6, 9)"] = _ablations(ablated)
    if temperature := temperature_table(cells):
        found["Temperature and weight of the contrastive term"] = [temperature]
    return {title: [notes, *parts] for title, parts in found.items()}


def _main_sections(cells: Cells, references: Cells) -> dict[str, list[str]]:
    by_embedding = [standard_scores(cells, kind) for kind in ("mean", "informative", None)]
    both, scope = by_embedding[-1], _scope(cells)
    found = {
        "Accuracy: z-scores and ranks (Fig. 3, 10-15)": [_by_batch_size(scores) for scores in by_embedding if len(scores)],
        "Differences between objectives": [_pairs_table(both, PAIRS), _embeddings_table(both)],
        "Sensitivity to batch size (Table 2, Fig. 4, 8)": [_slopes_table(both)],
        "Accuracy of each image set": accuracy_tables(accuracies_of(cells), references),
    }
    likelihood = likelihoods_of(cells)
    if len(likelihood):
        found["Reconstruction (Fig. 5b)"] = [likelihood_table(likelihood, references)]
    found["Posteriors and terms of the validation loss"] = [posterior_table(cells)]
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
    by_set: dict[str, set[int]] = {}
    for one in cells:
        by_set.setdefault(one["cell"]["data"], set()).add(one["cell"]["seed"])
    texts = [f"{name} (seeds {', '.join(map(str, sorted(seeds)))})" for name, seeds in by_set.items()]
    return f"Image sets: {', '.join(texts)}."


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
        tasks = scores.groupby("model")["evaluation"].count() // len(sizes)
        caption += (
            f" Models without a decoder have only mean embeddings: their z and rank are averages over {tasks.min()} tasks (image set and "
            f"evaluation), those of the others over {tasks.max()}, and their ranks are among more runs. Compare this table only among "
            "models with a decoder."
        )
    return caption + "\n\n" + markdown_table(("model", *(f"B = {size}" for size in sizes), "all"), rows)


def _pairs_table(scores: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> str:
    rows = []
    for first, second in pairs:
        row = [f"{LABELS[first]} - {LABELS[second]}"]
        for kind in ("mean", "informative"):
            of_kind = scores[scores["evaluation"].str.endswith(" " + kind)]
            row.append(with_p_value(paired_test(of_kind, LABELS[first], LABELS[second])))
            row.append(with_p_value(paired_test(of_kind, LABELS[first], LABELS[second], "accuracy"), scale=100))
        rows.append(tuple(row))
    caption = (
        "Differences at equal evaluation and batch size, in z and in accuracy (percentage points), averaged over classifiers and batch "
        "sizes; two-sided t-test over image sets (n)."
    )
    header = ("difference", "z, mean", "accuracy, mean", "z, informative", "accuracy, informative")
    return caption + "\n\n" + markdown_table(header, rows)


def _embeddings_table(scores: pd.DataFrame) -> str:
    """Accuracy of informative minus that of mean embeddings, for each model with both; empty if there is none."""
    tasks = scores["evaluation"].str.split(" ", expand=True)
    rows = []
    for model, some in scores.assign(evaluation=tasks[0], kind=tasks[1]).groupby("model", sort=False):
        test = paired_test(some.assign(model=some["kind"]), "informative", "mean", "accuracy")
        if test.n:
            rows.append((f"{model}: informative - mean", with_p_value(test, 100)))
    caption = (
        "Informative and mean embeddings of the same networks: difference in accuracy (percentage points), averaged over classifiers and "
        "batch sizes; two-sided t-test over image sets (n)."
    )
    return caption + "\n\n" + markdown_table(("difference", "accuracy"), rows) if rows else ""


def _slopes_table(scores: pd.DataFrame) -> str:
    pairs = [(LABELS[first], LABELS[second]) for first, second in SLOPES]
    found = add_differences(slopes(scores), pairs)
    by_task, by_set = slope_test(found), slope_test(found, unit="data")
    averaged = slope_test(add_differences(slopes(scores, by=("evaluation",)), pairs))
    rows = []
    for model, test in by_task.items():
        spreads = [f"{1000 * one.sd:.2f}" if one.n > 1 else "" for one in (test, averaged[model])]
        tests = [with_p_value(one, 1000) for one in (test, by_set[model], averaged[model])]
        rows.append((model, tests[0], spreads[0], tests[1], tests[2], spreads[1]))
    kinds = " and ".join(scores["evaluation"].str.split(" ").str[1].unique())
    caption = (
        f"Slope of z against batch size ({kinds} embeddings), in z per 1,000 images of a batch, with p of a two-sided t-test of its mean "
        "against 0, and its standard deviation (SD). In Table 2 of the paper, each image set and evaluation is one value. The evaluations "
        "of a set use the same networks, so image sets are tested as well. For Fig. 4, z is averaged over image sets first. Rows of two "
        "models are the differences of their slopes."
    )
    header = ("model", "sets x evaluations (Table 2)", "SD (Fig. 8)", "image sets", "evaluations (Fig. 4)", "SD (Fig. 4)")
    return caption + "\n\n" + markdown_table(header, rows)
