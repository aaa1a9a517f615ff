"""What table1.py and ablations.py share: three data sets, rows of features, and errors measured in blocks that are kept.

A block is one row of features on one data set, under all splits, heads and seeds. It is written when it is done, so that an
evaluation that was stopped goes on, and blocks are measured side by side. N molecules, D columns.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVR

import nemo_cmim
from nemo_cmim import load
from nemo_cmim.comparison.measure import decoding, randomised
from nemo_cmim.comparison.report import DECODING
from nemo_cmim.config import DataConfig
from nemo_cmim.downstream import (
    FeatureScaler,
    Featurizer,
    MLPHead,
    RegressionData,
    builtin_featurizer,
    evaluate,
    load_csv,
)
from nemo_cmim.errors import DataError
from nemo_cmim.files import atomic_write
from nemo_cmim.loader.dataset import open_store
from nemo_cmim.report.overlap import find_overlap
from nemo_cmim.signals import sigterm_raises
from nemo_cmim.tokenizers import SmilesTokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nemo_cmim.inference import CMIMModel

__all__ = [
    "SETS",
    "Protocol",
    "Reading",
    "Row",
    "code_digest",
    "decode_all",
    "fingerprint",
    "heads",
    "load_sets",
    "measure",
    "measure_all",
    "rmse",
    "run_script",
]


class KnownSet(NamedTuple):
    """A data set of MoleculeNet: names of its file and of its column of values, and its unit."""

    files: tuple[str, ...]
    targets: tuple[str, ...]
    unit: str


SMILES = "smiles"
SETS = {
    "ESOL": KnownSet(
        ("esol.csv", "delaney-processed.csv"),
        ("target", "measured log solubility in mols per litre"),
        "log10 mol/L",
    ),
    "FreeSolv": KnownSet(("freesolv.csv", "SAMPL.csv"), ("target", "expt"), "kcal/mol"),
    "Lipophilicity": KnownSet(("lipophilicity.csv", "Lipophilicity.csv"), ("target", "exp"), "log10 D"),
}
"""Files of our own, with the columns smiles and target, and those that MoleculeNet's users download."""


class Reading(NamedTuple):
    """What `CMIMModel.embed` is asked for."""

    kind: str = "informative"
    layers: tuple[int, ...] | None = None
    pooling: str = "mean"


@dataclass(frozen=True)
class Row:
    """Features by a name.

    Attributes:
        name: What tables call them.
        builtin: Name of a built-in featurizer; empty for a model's embedding.
        model: What `nemo_cmim.load` takes.
        readings: Of the model, whose vectors stand side by side.
        is_redrawn: The network has fresh random weights under each seed.
    """

    name: str
    builtin: str = ""
    model: str = ""
    readings: tuple[Reading, ...] = ()
    is_redrawn: bool = False


@dataclass(frozen=True)
class Protocol:
    """How features are judged; see `nemo_cmim.downstream.evaluate`."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    splits: tuple[str, ...] = ("random", "scaffold")
    folds: int = 5
    mlp_steps: int = 2000


def load_sets(folder: Path, invalid_reason: Callable[[str], str | None]) -> list[RegressionData]:
    """ESOL, FreeSolv and Lipophilicity.

    Args:
        folder: Where the files are, under one of the names of `SETS`.
        invalid_reason: Says why a molecule cannot be used, or None. It is then left out for every row, listed in a warning and kept
            in `RegressionData.dropped`.

    Raises:
        DataError: A file is missing or not usable.
    """
    loaded = []
    for name, known in SETS.items():
        path = next((folder / file for file in known.files if (folder / file).is_file()), None)
        if path is None:
            raise DataError(f"{folder} holds no file of {name}: it is called {' or '.join(known.files)}.")
        target = _target_column(path, known)
        loaded.append(load_csv(path, SMILES, target, name=name, unit=known.unit, on_invalid="drop", invalid_reason=invalid_reason))
    return loaded


def _target_column(path: Path, known: KnownSet) -> str:
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file), [])
    found = next((name for name in known.targets if name in header), None)
    if found is None or SMILES not in header:
        wanted = f"{SMILES!r}, and {' or '.join(map(repr, known.targets))}"
        raise DataError(f"{path} has the columns {', '.join(map(repr, header))}; wanted are {wanted}. Rename them.")
    return found


def heads(mlp_steps: int) -> dict[str, Any]:
    """The heads of `downstream.named_heads`; the support vectors with a kernel that is computed at once, which is much faster."""
    return {"svm": make_pipeline(FeatureScaler(), SVR(kernel=_kernel)), "mlp": MLPHead(steps=mlp_steps)}


def _kernel(x_ND: NDArray[np.float64], train_MD: NDArray[np.float64]) -> NDArray[np.float64]:
    """The default kernel of `SVR` (gamma="scale"), whose width follows from the training rows."""
    return rbf_kernel(x_ND, train_MD, gamma=1 / (train_MD.shape[1] * (train_MD.var() or 1.0)))


def measure(row: Row, data: RegressionData, protocol: Protocol) -> pd.DataFrame:
    """Every test prediction of one row: `data, split, features, head, seed, fold, row, target, prediction`."""
    tables = []
    for seed, seeds in [(seed, (seed,)) for seed in protocol.seeds] if row.is_redrawn else [(None, protocol.seeds)]:
        features = _features(row, data.smiles, seed)
        for split in protocol.splits:
            found = evaluate(
                data,
                {row.name: features},
                heads(protocol.mlp_steps),
                split=split,
                folds=protocol.folds,
                seeds=seeds,
                progress=False,
            )
            tables.append(found.predictions.drop(columns="smiles").assign(data=data.name, split=split))
    order = ["data", "split", "features", "head", "seed", "fold", "row", "target", "prediction"]
    return pd.concat(tables, ignore_index=True)[order]


def _features(row: Row, smiles: Sequence[str], seed: int | None) -> Featurizer:
    """What gives the row's features. Embeddings of these molecules are computed here, as they are the same under all splits."""
    if row.builtin:
        return builtin_featurizer(row.builtin)
    model = load(row.model)
    if seed is not None:
        model = randomised(model, seed)
    vectors = np.hstack([model.embed(smiles, **reading._asdict()) for reading in row.readings])
    return lambda _: vectors


def measure_all(
    rows: Sequence[Row],
    sets: Sequence[RegressionData],
    protocol: Protocol,
    folder: Path,
    models: Mapping[str, CMIMModel],
    *,
    jobs: int = 1,
    say: Callable[[str], None] = print,
) -> pd.DataFrame:
    """`measure` of each row on each set; a block that is in `folder` already is not measured again.

    Args:
        rows: What is measured.
        sets: On what.
        protocol: How.
        folder: Where blocks are kept, under names that hold a digest of all that they depend on.
        models: The loaded models by `Row.model`, for that digest.
        jobs: Blocks at a time, each in a process; 1 starts none.
        say: Gets a line for each block.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digests = {name: fingerprint(model) for name, model in models.items()}
    files, code = {}, code_digest()
    for one in sets:
        content = hashlib.sha256(repr((one.smiles, one.targets.tolist())).encode()).hexdigest()
        for row in rows:
            digest = hashlib.sha256(repr((code, row, digests.get(row.model), protocol, content)).encode()).hexdigest()[:12]
            files[row, one.name] = folder / f"{one.name}-{re.sub('[^A-Za-z0-9]+', '_', row.name)}-{digest}.parquet"
    todo = [(row, one, protocol, files[row, one.name]) for one in sets for row in rows if not files[row, one.name].exists()]
    todo.sort(key=lambda block: -len(block[1]))  # so that no process begins a long one when the others are done
    start, done = time.monotonic(), len(files) - len(todo)
    if done:
        say(f"{done} of {len(files)} blocks were measured before")
    with closing(_measured(todo, jobs)) as measured:
        for name in measured:
            done += 1
            say(f"{done}/{len(files)} {name}, after {time.monotonic() - start:.0f} s")
    return pd.concat([pd.read_parquet(path) for path in files.values()], ignore_index=True)


def code_digest() -> str:
    """SHA-256 of the code that what is measured depends on: versions of packages, and source files of our own."""
    package = Path(nemo_cmim.__file__).parent
    parts = ("downstream", "inference", "models", "tokenizers")
    sources = [path for part in parts for path in sorted((package / part).glob("*.py"))]
    sources += [package / "comparison" / "measure.py", package / "tokenizers" / "collate.py"]
    digest = hashlib.sha256(repr([version(name) for name in ("rdkit", "scikit-learn", "torch", "numpy")]).encode())
    for path in (*sources, package / "molecules.py", package / "version.py", Path(__file__)):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


Block = tuple[Row, RegressionData, Protocol, Path]


def _measured(todo: list[Block], jobs: int) -> Generator[str, None, None]:
    if jobs == 1:
        yield from map(_keep, todo)
        return
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))  # for the processes, which share the cores
    others = active_children()
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        try:
            for future in as_completed([pool.submit(_keep, block) for block in todo]):
                yield future.result()
        except BaseException:  # also if the caller fails or is interrupted: no block goes on unseen
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(active_children()).difference(others):
                process.terminate()
            raise


def _keep(block: Block) -> str:
    row, data, protocol, path = block
    predictions = measure(row, data, protocol)
    with atomic_write(path) as staging:
        predictions.to_parquet(staging, index=False)
    return f"{data.name}, {row.name}"


def fingerprint(model: CMIMModel) -> str:
    """SHA-256 of a model's settings, vocabulary and weights."""
    digest = hashlib.sha256(repr((model.config, model.tokenizer.vocabulary.fingerprint)).encode())
    for name, weight in sorted(model.network.state_dict().items()):
        digest.update(name.encode() + weight.cpu().numpy().tobytes())
    return digest.hexdigest()


def decode_all(
    models: Mapping[str, CMIMModel], folder: Path, count: int, kept: Path, trained_on: Path | None = None
) -> pd.DataFrame:
    """How well each model writes molecules that are spread evenly over the test split of a prepared folder.

    Args:
        models: The models by their labels.
        folder: What `prepare` wrote.
        count: Molecules to decode, or all there are.
        kept: A JSON file of what was decoded before.
        trained_on: Another prepared folder, whose training molecules are left out of them.

    Returns:
        `model, molecules`, and the shares that `comparison.measure.decoding` gives, NaN for a model without decoder.

    Raises:
        DataError: No molecule is left.
    """
    smiles = _held_out(folder, count, min(model.config.network.max_tokens for model in models.values()), trained_on)
    found: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    rows, code = [], code_digest()
    for label, model in models.items():
        key = hashlib.sha256(f"{code} {fingerprint(model)} {smiles}".encode()).hexdigest()
        if key not in found:
            found[key] = decoding(model, smiles)
            with atomic_write(kept) as staging:
                staging.write_text(json.dumps(found))
        rows.append({"model": label, "molecules": len(smiles), **found[key]})
    return pd.DataFrame(rows, columns=["model", "molecules", *DECODING])


def _held_out(folder: Path, count: int, max_tokens: int, trained_on: Path | None) -> list[str]:
    store = open_store(DataConfig(folder=str(folder), split="test"), max_tokens=max_tokens)
    tokenizer = SmilesTokenizer(store.vocabulary)
    places = np.linspace(0, len(store) - 1, min(count, len(store))).astype(int)
    smiles = [tokenizer.decode(tokens) for tokens in store.gather(places)]
    if trained_on is None:
        return smiles
    was_seen = find_overlap(trained_on, smiles, stereo=False).same.get("train", np.zeros(len(smiles), bool))
    if was_seen.all():
        raise DataError(f"All {len(smiles):,} molecules of the test split of {folder} are in the training split of {trained_on}.")
    return [one for one, is_seen in zip(smiles, was_seen) if not is_seen]


def run_script(main: Callable[[], None]) -> None:
    """Runs a script: SIGTERM ends the processes that it started, and a mistake in the input is told in one line."""
    try:
        with sigterm_raises():
            main()
    except ValueError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")


def rmse(predictions: pd.DataFrame) -> pd.DataFrame:
    """Error of each run, over all rows tested under its seed: `data, split, features, head, seed, tested, rmse`, in the data's unit."""
    squares = predictions.assign(square=np.square(predictions["prediction"] - predictions["target"]))
    runs = squares.groupby(["data", "split", "features", "head", "seed"], sort=False)["square"].agg(["size", "mean"]).reset_index()
    return runs.assign(tested=runs["size"], rmse=np.sqrt(runs["mean"])).drop(columns=["size", "mean"])
