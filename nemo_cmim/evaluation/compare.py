"""A comparison of objectives from start to end: train, measure, report."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pandas as pd

from ..downstream import RegressionData, builtin_featurizer, freesolv, load_csv, make_folder, named_heads, random_folds
from ..downstream.numbers import Notation
from ..inference import CMIMModel
from ..inference.inputs import invalid_reason
from ..inference.shipped import resolve
from ..mappings import check
from ..outputs import check_folder, write_folder
from ..store.token_store import TokenStore
from ..tokenizers import SmilesTokenizer
from .entries import Entry, measure_entries
from .features import EmbeddingSpec, FeatureSet, embedding_kinds
from .figure import draw
from .held_out import held_out_molecules
from .measure import Protocol
from .runs import Run, planned, train_all
from .settings import CompareConfig
from .tables import comparison_table

__all__ = ["compare"]

RANDOM = "random weights"
_RESULTS = ("table.md", "measured.csv", "figure.png")


def compare(config: CompareConfig, *, max_tokens: int, say: Callable[[str], None] = print) -> Path:
    """Trains each objective under each seed, on the same molecules in the same order for the same number of steps, and measures it.

    Writes `table.md`, `measured.csv` (each value of each run), `figure.png`, `runs/` and `blocks/` into `config.output`. If a comparison
    was interrupted, the next call resumes it: finished runs are not trained again, and blocks that are kept are not measured again.
    Results of an earlier call are replaced; other files of these names are not.

    Args:
        config: What to compare.
        max_tokens: Maximum number of tokens of a SMILES that the models accept. Longer ones are left out of the regression data, for
            all features.
        say: Called with a line of text from time to time.

    Returns:
        The folder `config.output`.

    Raises:
        ConfigError: If a setting is invalid, or if a run failed.
        DataError: If the data folder, a CSV file or the folder `config.output` cannot be used.
    """
    smiles = held_out_molecules(config.data, config.decoded, max_tokens)
    data = _regression_data(config, max_tokens)
    output = make_folder(config.output)
    check_folder(output, _RESULTS, overwrite=True)
    regress = config.regression
    protocol = Protocol(regress.seeds, ("random",), regress.folds, regress.heads, regress.mlp_steps)
    measure = partial(measure_entries, sets=data, protocol=protocol, smiles=smiles, folder=output / "blocks", say=lambda _: None)
    runs = planned(config)
    say(f"{len(runs)} runs of {config.steps:,} steps into {output}/runs")
    tables: dict[int, pd.DataFrame] = {}
    with closing(train_all(runs, config.jobs)) as training:
        for done, (run, seconds) in enumerate(training, 1):
            trained = f"trained in {seconds:.0f} s" if seconds else "was trained before"
            table = tables[runs.index(run)] = measure([_entry(run)])
            say(f"{done}/{len(runs)} {run.objective}, seed {run.seed}: {trained}; {_in_words(table)}")
    controls = measure(_controls(runs, regress.features))
    measured = pd.concat([*(tables[number] for number in range(len(runs))), controls], ignore_index=True)
    table = comparison_table(measured)
    with write_folder(output, _RESULTS, overwrite=True) as staging:
        measured.to_csv(staging / "measured.csv", index=False)
        (staging / "table.md").write_text(f"{_protocol(config, data, len(smiles))}\n\n{table}\n", encoding="utf-8")
        draw(measured, staging / "figure.png")
    say(table)
    return output


def _regression_data(config: CompareConfig, max_tokens: int) -> list[RegressionData]:
    """The data sets. Checks all settings of the regression, so that an invalid one is an error before anything is trained."""
    regress = config.regression
    tokenizer = SmilesTokenizer(TokenStore.open(config.data, "test").vocabulary)
    reason = partial(invalid_reason, tokenizer=tokenizer, max_tokens=max_tokens)
    data = [
        freesolv(on_invalid="drop", invalid_reason=reason)
        if name == "freesolv"
        else load_csv(name, on_invalid="drop", invalid_reason=reason)
        for name in regress.data
    ]
    names = [one.name for one in data]
    check(len(set(names)) == len(names), f"regression.data has two sets of one name ({', '.join(names)}): rename a file.")
    named_heads(regress.heads, regress.mlp_steps)
    for name in regress.features:
        builtin_featurizer(name)
    for one in data:
        random_folds(one.canonical, regress.folds, regress.seeds[0])
    return data


def _entry(run: Run) -> Entry:
    path = str(run.trained_model())
    embeddings = _embeddings(f"{run.objective}, run {run.seed}", path, resolve(path, engine="torch"))
    return Entry(run.objective, run.seed, embeddings, decoded=path)


def _controls(runs: list[Run], builtin: tuple[str, ...]) -> list[Entry]:
    """The first objective's network with random weights, one entry for each training seed, and the built-in features."""
    entries = []
    for run in runs:
        if run.objective == runs[0].objective:
            path = str(run.trained_model())
            entries.append(
                Entry(RANDOM, run.seed, _embeddings(f"{RANDOM} {run.seed}", path, resolve(path, engine="torch"), run.seed))
            )
    return entries + [Entry(name, 0, {"": FeatureSet(name, builtin=name)}) for name in builtin]


def _embeddings(name: str, path: str, model: CMIMModel, random_weights: int | None = None) -> dict[str, FeatureSet]:
    """Each kind of embedding of a model."""
    return {
        kind: FeatureSet(f"{name}, {kind}", model=path, embeddings=(EmbeddingSpec(kind),), random_weights=random_weights)
        for kind in embedding_kinds(model)
    }


def _in_words(table: pd.DataFrame) -> str:
    return ", ".join(f"{row.kind} {row.measure} {Notation.of([row.value]).text(row.value)}".strip() for row in table.itertuples())


def _left_out(data: RegressionData) -> str:
    return f", without {len(data.dropped)} that the models do not accept" if data.dropped else ""


def _protocol(config: CompareConfig, data: list[RegressionData], decoded: int) -> str:
    """How the numbers were measured, in a few sentences."""
    regress = config.regression
    sets = ", ".join(f"{one.name} ({len(one)} rows{_left_out(one)})" for one in data)
    return (
        f"Each run: {config.steps:,} steps, {' '.join(config.train)}, training seeds {', '.join(map(str, config.seeds))}; "
        f"mean ± standard deviation over training seeds. RMSE, lower is better: {sets}; {regress.folds}-fold cross-validation, "
        f"random, seeds {', '.join(map(str, regress.seeds))}, MLP of {regress.mlp_steps:,} steps. Decoding: {decoded} molecules of "
        "the test split, greedy, from the posterior mean. A reconstruction is exact if it is the same molecule, whichever of its SMILES "
        "is written."
    )
