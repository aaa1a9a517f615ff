"""A comparison from start to end: train, measure, report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ..config import DataConfig, check, to_mapping
from ..downstream import (
    Featurizer,
    RegressionData,
    builtin_featurizer,
    freesolv,
    load_csv,
    make_folder,
    named_heads,
    random_folds,
)
from ..inference import load
from ..inference.inputs import invalid_reason
from ..loader.dataset import open_store
from ..tokenizers import SmilesTokenizer
from .measure import decoding, embeddings, randomised, regression
from .report import draw, markdown
from .runs import Run, planned, train_all
from .settings import CompareConfig

__all__ = ["compare"]


def compare(config: CompareConfig, *, max_tokens: int, say: Callable[[str], None] = print) -> Path:
    """Trains each objective under each seed, on the same molecules in the same order for the same number of steps, and measures.

    Writes `table.md`, `measured.csv` (each value of each run), `figure.png` and `runs/` into `config.output`. What was trained or
    measured before an interruption is kept.

    Args:
        config: What to compare.
        max_tokens: Longest SMILES that the models take; longer ones are left out of the regression data, for all features alike.
        say: Gets a line now and then.

    Returns:
        The folder.

    Raises:
        ConfigError: A setting that cannot be, or a run that failed.
        DataError: The data folder or a CSV file cannot be used.
    """
    test, data = _molecules(config, max_tokens)
    output = make_folder(config.output)
    runs = planned(config)
    say(f"{len(runs)} runs of {config.steps:,} steps into {output}/runs")
    tables = []
    with closing(train_all(runs, config.jobs)) as training:
        for done, (run, seconds) in enumerate(training, 1):
            trained = f"trained in {seconds:.0f} s" if seconds else "was trained before"
            table = _measured(run, config, test, data)
            tables.append((runs.index(run), table))
            say(f"{done}/{len(runs)} {run.objective}, seed {run.seed}: {trained}; {_in_words(table)}")
    tables.append((len(runs), _controls(runs, config, data)))
    measured = pd.concat([table for _, table in sorted(tables, key=lambda pair: pair[0])], ignore_index=True)
    measured.to_csv(output / "measured.csv", index=False)
    (output / "table.md").write_text(f"{_protocol(config, data, len(test))}\n\n{markdown(measured)}\n", encoding="utf-8")
    draw(measured, output / "figure.png")
    say(markdown(measured))
    return output


def _molecules(config: CompareConfig, max_tokens: int) -> tuple[list[str], list[RegressionData]]:
    """Molecules to decode, evenly spread over the test split, and the regression data; what cannot be measured is an error now."""
    store = open_store(DataConfig(folder=config.data, split="test"), max_tokens=max_tokens)
    tokenizer = SmilesTokenizer(store.vocabulary)
    chosen = torch.linspace(0, len(store) - 1, min(config.decoded, len(store))).long().tolist()
    too_much = partial(invalid_reason, tokenizer=tokenizer, max_tokens=max_tokens)
    regress = config.regression
    data = [
        freesolv(on_invalid="drop", invalid_reason=too_much)
        if name == "freesolv"
        else load_csv(name, on_invalid="drop", invalid_reason=too_much)
        for name in regress.data
    ]
    names = [one.name for one in data]
    check(len(set(names)) == len(names), f"regression.data has two sets of one name ({', '.join(names)}): rename a file.")
    named_heads(regress.heads, regress.mlp_steps)
    for name in regress.features:
        builtin_featurizer(name)
    for one in data:
        random_folds(one.canonical, regress.folds, regress.seeds[0])
    return [tokenizer.decode(store.tokens(i).tolist()) for i in chosen], data


def _measured(run: Run, config: CompareConfig, test: list[str], data: list[RegressionData]) -> pd.DataFrame:
    """Rows `objective, seed, kind, measure, value` of a run; kept in its folder for the same model, data and settings."""
    kept, settings = run.folder / "measured.csv", run.folder / "measured.json"
    nemo_file = _trained(run)
    content = hashlib.sha256(nemo_file.read_bytes())
    content.update(repr((test, [(one.name, one.smiles, one.targets.tolist()) for one in data])).encode())
    wanted = json.dumps({"content": content.hexdigest(), "regression": to_mapping(config.regression)})
    if kept.exists() and settings.exists() and settings.read_text() == wanted:
        return pd.read_csv(kept, keep_default_na=False, dtype={"kind": str})
    model = load(nemo_file)
    rows = [_row(run, "", name, value) for name, value in decoding(model, test).items()]
    rows += _errors(run.objective, run.seed, embeddings(model), config, data)
    table = pd.DataFrame(rows)
    table.to_csv(kept, index=False)
    settings.write_text(wanted)
    return table


def _trained(run: Run) -> Path:
    nemo_file = run.nemo_file()
    assert nemo_file is not None, "the run has ended"
    return nemo_file


def _controls(runs: list[Run], config: CompareConfig, data: list[RegressionData]) -> pd.DataFrame:
    """The first run's network with random weights, under each seed, and fingerprints."""
    rows: list[dict[str, Any]] = []
    for run in runs:
        if run.objective == runs[0].objective:
            model = randomised(load(_trained(run)), run.seed)
            rows += _errors("random weights", run.seed, embeddings(model), config, data)
    for name in config.regression.features:
        rows += _errors(name, 0, {"": builtin_featurizer(name)}, config, data)
    return pd.DataFrame(rows)


def _errors(
    objective: str, seed: int, features: Mapping[str, Featurizer], config: CompareConfig, data: list[RegressionData]
) -> list[dict[str, Any]]:
    table = regression(data, features, config.regression)
    return [
        {"objective": objective, "seed": seed, "kind": row.features, "measure": f"{row.data} {row.head}", "value": row.rmse}
        for row in table.itertuples()
    ]


def _row(run: Run, kind: str, measure: str, value: float) -> dict[str, Any]:
    return {"objective": run.objective, "seed": run.seed, "kind": kind, "measure": measure, "value": value}


def _in_words(table: pd.DataFrame) -> str:
    return ", ".join(f"{row.kind} {row.measure} {row.value:.3f}".strip() for row in table.itertuples())


def _left_out(data: RegressionData) -> str:
    return f", without {len(data.dropped)} that the models cannot take" if data.dropped else ""


def _protocol(config: CompareConfig, data: list[RegressionData], decoded: int) -> str:
    """What the numbers are, in a few sentences."""
    regress = config.regression
    sets = ", ".join(f"{one.name} ({len(one)} rows{_left_out(one)})" for one in data)
    return (
        f"Each run: {config.steps:,} steps, {' '.join(config.train)}, training seeds {', '.join(map(str, config.seeds))}; "
        f"mean ± standard deviation over training seeds. RMSE, lower is better: {sets}; {regress.folds}-fold cross-validation, "
        f"random, seeds {', '.join(map(str, regress.seeds))}, MLP of {regress.mlp_steps:,} steps. Decoding: {decoded} molecules of "
        "the test split, greedy, from the posterior mean; a molecule counts as reconstructed however it is spelled."
    )
