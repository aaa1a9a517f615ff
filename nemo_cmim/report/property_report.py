"""`nemo-cmim fit --report`: one self-contained HTML page about a property model that was just fitted.

The page loads nothing from elsewhere, and contains neither a date nor random numbers, so that equal models give equal pages.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from ..errors import ConfigError, InvalidShapeError
from ..outputs import write_file
from ..properties import PropertyModel
from ..properties.intervals import held_out_coverage
from .pages import LONGEST_DRAWN, cut, drawn, templates
from .plots import Plot
from .property_plots import class_plots, value_plots

if TYPE_CHECKING:
    from ..tables.rejects import RowProblem

__all__ = ["property_report", "write_property_report"]

_WORST = 10  # predictions drawn for each target
_DETAILED = 12  # targets with plots and drawings, so that the page stays small
_LISTED = 20  # rows of a table that may have thousands
_NAMED = 3  # texts in an enumeration


class _Molecule(NamedTuple):
    """A drawing, empty if the SMILES is too long, with the lines of its caption."""

    drawing: str
    caption: list[str]
    text: str


class _Target(NamedTuple):
    """Plots of a target, and its worst predictions, each with the nearest training molecule."""

    name: str
    plots: list[Plot]
    worst: list[tuple[_Molecule, _Molecule]]


def write_property_report(
    model: PropertyModel,
    path: str | os.PathLike[str],
    *,
    places: Sequence[object] = (),
    left_out: Sequence[RowProblem] = (),
    overwrite: bool = False,
) -> None:
    """Writes a page about a model: data, metrics, heads, plots of out-of-fold predictions, the worst of them drawn as molecules.

    The unit and the licence are those of `PropertyModel.save`, if it was called before.

    Args:
        model: A model after `fit`.
        path: The HTML file.
        places: Where each row of `X` is, such as "data.csv, line 3"; empty: the page shows its index.
        left_out: Rows that were left out before `fit`; those of `left_out_` are listed too.
        overwrite: Replace the file if it exists.

    Raises:
        NotFittedError: If the model is not fitted.
        ConfigError: If the model was read from a file, which has no out-of-fold predictions.
        InvalidShapeError: If `places` is neither empty nor as long as `X`.
        DataError: If the file exists or cannot be written.
    """
    page = property_report(model, places=places, left_out=left_out)
    with write_file(Path(path), overwrite=overwrite) as staging:
        staging.write_text(page, encoding="utf-8")


def property_report(model: PropertyModel, *, places: Sequence[object] = (), left_out: Sequence[RowProblem] = ()) -> str:
    """The HTML of `write_property_report`, also for arguments and errors."""
    check_is_fitted(model)
    if not hasattr(model, "_tested"):
        raise ConfigError(
            "This PropertyModel was read from a file, which does not contain the out-of-fold predictions that a report shows. Write the "
            "report after fit, or pass --report FILE to `nemo-cmim fit`."
        )
    rows = [*model._tested.rows.tolist(), *model.left_out_["row"].tolist()]
    if len(places) not in (0, len(rows)):
        raise InvalidShapeError(f"places has {len(places)} values for the {len(rows)} rows of X. Pass one for each row.")
    place_of = {row: str(places[row]) if len(places) else f"row {row}" for row in rows}
    rejected = [(f"{row.source}, {row.unit} {row.number}", row.smiles, row.reason) for row in left_out]
    rejected += [(place_of[r.row], str(r.smiles), r.reason) for r in model.left_out_.itertuples()]
    contradictions = [
        (cut(r.smiles), r.target, _shown(r.lowest), _shown(r.highest), _joined([place_of[row] for row in r.rows]))
        for r in model.contradictions_.itertuples()
    ]
    return (
        templates()
        .get_template("property_report.html")
        .render(
            title=_joined(model.target_names_),
            task=model.task,
            transform=model.target_transform,
            card=model.card_,
            unit=model.card_.get("unit", ""),
            coverage=_percent(model.coverage),
            target_rows=_target_rows(model),
            classes=_class_rows(model),
            metrics=_metric_rows(model),
            coverages=_coverage_rows(model),
            heads=_head_rows(model.choice_),
            targets=[_target(model, name, place_of) for name in model.target_names_[:_DETAILED]],
            further_targets=len(model.target_names_[_DETAILED:]),
            parts=[(p["part"], p["target"], p["metric"], _number(p["value"]), p["rows"]) for p in model.card_.get("parts", ())],
            left_out=[tuple(map(cut, row)) for row in rejected[:_LISTED]],
            left_out_count=len(rejected),
            contradictions=contradictions[:_LISTED],
            contradictions_count=len(contradictions),
            listed=_LISTED,
            longest_drawn=LONGEST_DRAWN,
            settings=_settings(model),
        )
    )


def _target_rows(model: PropertyModel) -> list[tuple[Any, ...]]:
    """For regression, the summary of each target."""
    summaries = model.card_["targets"].items() if model.task == "regression" else ()
    return [(name, s["values"], *(s[key] for key in ("minimum", "mean", "sd", "maximum"))) for name, s in summaries]


def _class_rows(model: PropertyModel) -> list[tuple[str, int, list[tuple[str, int]], int]]:
    """For classification, name, number of values, most frequent classes with their counts, and the number of the other classes."""
    summaries = model.card_["targets"].items() if model.task == "classification" else ()
    return [
        (name, s["values"], Counter(s["classes"]).most_common(_LISTED), max(len(s["classes"]) - _LISTED, 0))
        for name, s in summaries
    ]


def _metric_rows(model: PropertyModel) -> list[tuple[Any, ...]]:
    return [(m.target, m.metric, _number(m.mean), _number(m.sd), m.folds) for m in model.metrics_.itertuples()]


def _coverage_rows(model: PropertyModel) -> list[tuple[Any, ...]]:
    """Coverage of the intervals or sets on held-out folds."""
    rows = []
    for name in model.target_names_:
        table = _rows_of(model, name)
        found = held_out_coverage(table["score"].to_numpy(), table["fold"].to_numpy(), model.coverage)
        rows.append((name, _percent(found) if found == found else "not measured (one fold)", len(table)))
    return rows


def _head_rows(choice: pd.DataFrame) -> list[tuple[Any, ...]]:
    """Each candidate of "auto": head, settings, mean score and time over the folds, by how many folds it was chosen, and a note."""
    table = choice.assign(settings=choice["settings"].map(_settings_text))
    is_final = table["fold"] == "all rows"
    final = {(r.head, r.settings) for r in table[is_final & table["chosen"]].itertuples()}
    rows = []
    for key, tried in table[~is_final].groupby(["head", "settings"], sort=False):
        score = tried["score"].mean(skipna=False)
        note = "chosen" if key in final else next((one for one in tried["note"] if one), "")
        rows.append((*key, score, round(tried["seconds"].sum(), 1), int(tried["chosen"].sum()), note))
    return rows


def _target(model: PropertyModel, name: str, place_of: dict[int, str]) -> _Target:
    table = _rows_of(model, name)
    worst = table.nlargest(_WORST, "score")
    number = model.target_names_.index(name)
    if model.task == "regression":
        plots = value_plots(table, worst, model.card_.get("unit", ""), model.target_transform)
    else:
        plots = class_plots(table, model._state.targets.classes[number])
    return _Target(name, plots, _worst_pairs(model, number, worst, place_of))


def _worst_pairs(
    model: PropertyModel, number: int, worst: pd.DataFrame, place_of: dict[int, str]
) -> list[tuple[_Molecule, _Molecule]]:
    """Each prediction beside the nearest of the molecules that its fold was trained on, with their measured values."""
    tested, domain = model._tested, model._state.domain
    values_N = tested.targets.values_NT[:, number]
    position = {smiles: index for index, smiles in enumerate(domain.smiles)}
    molecule_N = np.array([position[smiles] for smiles in tested.smiles])
    pairs: dict[Any, tuple[_Molecule, _Molecule]] = {}
    for fold, of_fold in worst.groupby("fold"):
        train = tested.splits[int(fold)].train
        train = train[~np.isnan(values_N[train])]
        known = np.unique(molecule_N[train])
        training = domain._replace(smiles=[domain.smiles[index] for index in known], bits=domain.bits[known])
        smiles = [tested.smiles[row] for row in np.searchsorted(tested.rows, of_fold["row"])]
        nearest = training.nearest(smiles, None)
        for row, text, near, tanimoto in zip(of_fold.itertuples(), smiles, nearest.smiles, nearest.tanimoto):
            of_molecule = train[molecule_N[train] == position[near]]
            measured = [_value(model, number, value) for value in values_N[of_molecule]]
            of_near = [f"nearest training molecule, Tanimoto similarity {tanimoto:.2f}", f"measured {_joined(measured)}"]
            pairs[row.Index] = (
                _Molecule(drawn(text), _caption(row, place_of), cut(text)),
                _Molecule(drawn(near), of_near, cut(near)),
            )
    return [pairs[index] for index in worst.index]


def _caption(row: Any, place_of: dict[int, str]) -> list[str]:
    place = f"{place_of[row.row]}, fold {row.fold}"
    if isinstance(row.prediction, float):
        return [place, f"measured {_shown(row.measured)}, predicted {_shown(row.prediction)}"]
    return [place, f"measured {row.measured} (probability {1 - row.score:.2g}), predicted {row.prediction}"]


def _rows_of(model: PropertyModel, name: str) -> pd.DataFrame:
    table = model.cross_validation_
    return table[table["target"] == name]


def _settings(model: PropertyModel) -> list[tuple[str, dict[str, str]]]:
    """Tables of names and values, each with the heading of its names."""
    names = ("task", "features", "target_transform", "split", "folds", "coverage", "random_state", "standardise")
    chosen = {"head": str(model.chosen_["head"]), "settings of the head": _settings_text(model.chosen_["settings"])}
    embedding = {f"fingerprint of {kind}": text for kind, text in model._state.fingerprints.items()}
    own = {name: str(getattr(model, name)) for name in names} | chosen | {"model": str(model._model_name())} | embedding
    own |= {key: model.card_[key] for key in ("unit", "licence") if key in model.card_}
    return [
        ("setting", {name: text if text not in ("None", "()", "") else "none" for name, text in own.items()}),
        ("version of", model.card_["versions"]),
    ]


def _value(model: PropertyModel, number: int, value: float) -> str:
    """A target value as text."""
    return _shown(value) if model.task == "regression" else str(model._state.targets.classes[number][int(value)])


def _settings_text(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings.items()) or "default"


def _joined(texts: Sequence[str]) -> str:
    """The first texts, and how many more there are."""
    more = len(texts) - _NAMED
    return "; ".join(texts[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.4g}\u00a0%"  # no-break space


def _number(value: float | None) -> float:
    """A metric as a float, NaN if it is missing."""
    return float("nan") if value is None else float(value)


def _shown(value: Any) -> str:
    """A number in four digits, or a label as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
