"""`nemo-cmim prepare`: from files of SMILES to a folder of token stores, with every line accounted for.

Molecules are kept, rejected and written in the order of the inputs, so the folder is the same, byte for byte, for any number
of processes. Memory: about 100 bytes per kept molecule, for finding duplicates and for the index.
"""

from __future__ import annotations

import csv
import functools
import gzip
import importlib.metadata
import io
import itertools
import math
import multiprocessing
import os
import re
import shutil
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..errors import ConfigError, DataError
from ..tokenizers import SmilesTokenizer, Vocabulary
from .curate import UNKNOWN_TOKEN, Filters, Fractions, Molecule, Rejection, curate
from .manifest import MANIFEST, Manifest, sha256_of
from .readers import RawLine, read_molecules
from .store import SPLITS, VOCABULARY, StoreWriter

__all__ = ["REJECTED", "prepare"]

REJECTED = "rejected.tsv.gz"
_CHUNK = 500  # lines that a process works on at a time

Outcome = Molecule | Rejection


def prepare(
    inputs: Sequence[str | Path],
    output: str | Path,
    *,
    column: str | None = None,
    max_molecular_weight: float = 500.0,
    max_logp: float = 5.0,
    max_tokens: int = 511,
    valid_fraction: float = 0.01,
    test_fraction: float = 0.01,
    vocabulary: str | Path | None = None,
    limit: int | None = None,
    processes: int | None = None,
    progress: bool | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Canonicalises, filters, deduplicates, splits and tokenises molecules, and writes them as a folder of token stores.

    The folder holds `train`, `valid` and `test` (`.bin`, `.idx`), `vocabulary.txt`, `manifest.json` (counts and checksums)
    and `rejected.tsv.gz` (every line that was not kept: file, line, reason, text). It appears complete or not at all.

    Args:
        inputs: Files as `read_molecules` takes them.
        output: The folder to write.
        column: Name of the column of SMILES, if it is not `smiles` or `canonical_smiles`.
        max_molecular_weight: Heaviest molecule to keep, Da.
        max_logp: Largest Crippen logP to keep.
        max_tokens: Most tokens of the canonical SMILES.
        valid_fraction: Expected share of the validation split. The split of a molecule depends on its canonical SMILES only.
        test_fraction: Expected share of the test split.
        vocabulary: A vocabulary file; by default the shipped one.
        limit: Read only this many lines.
        processes: Processes for RDKit's work; by default one per core.
        progress: Show a bar on stderr; by default where that is a terminal.
        overwrite: Replace a folder that `prepare` wrote before.

    Raises:
        DataError: An input cannot be read, the output folder is in use, or no molecule is left.
        ConfigError: A setting is out of range, or megatron-core is not installed.
    """
    filters = Filters(max_molecular_weight=max_molecular_weight, max_logp=max_logp, max_tokens=max_tokens)
    fractions = Fractions(valid=valid_fraction, test=test_fraction)
    for name, value in (("limit", limit), ("processes", processes)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} must be at least 1, found {value}.")
    tokenizer = SmilesTokenizer(None if vocabulary is None else Vocabulary.load(vocabulary))
    sources = list(dict.fromkeys(str(Path(path)) for path in inputs))
    if not sources:
        raise DataError("There is no input file: name at least one.")
    for source in sources:
        read_molecules(source, column)  # finds what is wrong with a file's head before hours of work
    with _new_folder(Path(output).resolve(), overwrite) as folder:
        tally = _Tally()
        lines = itertools.islice(itertools.chain.from_iterable(read_molecules(source, column) for source in sources), limit)
        work = functools.partial(_curate_lines, filters=filters, tokenizer=tokenizer)
        store = StoreWriter(folder, len(tokenizer.vocabulary))
        results = _map_in_order(work, tally.count(lines), processes or _cores())
        bar = tqdm(results, total=limit, unit=" lines", desc="prepare", disable=None if progress is None else not progress)
        _write(bar, store, folder, fractions, tally)
        tokenizer.vocabulary.save(folder / VOCABULARY)
        shares = {"valid_fraction": valid_fraction, "test_fraction": test_fraction}
        settings = {"column": column, **asdict(filters), **shares, "limit": limit}
        manifest = _manifest(folder, sources, tally, settings, tokenizer.vocabulary)
        manifest.save(folder)
    return manifest


def _curate_lines(lines: Sequence[RawLine], filters: Filters, tokenizer: SmilesTokenizer) -> list[Outcome]:
    curated = iter(curate([line.smiles for line in lines if not line.problem], filters, tokenizer))
    return [Rejection(line.problem) if line.problem else next(curated) for line in lines]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _map_in_order(
    work: functools.partial[list[Outcome]], lines: Iterable[RawLine], processes: int
) -> Iterator[tuple[RawLine, Outcome]]:
    """Applies `work` to chunks of lines in `processes` processes, reading only a few chunks ahead."""
    lines = iter(lines)
    chunks = iter(lambda: list(itertools.islice(lines, _CHUNK)), [])
    if processes == 1:
        for chunk in chunks:
            yield from zip(chunk, work(chunk), strict=True)
        return
    pool = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
    waiting: deque[tuple[list[RawLine], Future[list[Outcome]]]] = deque()
    try:
        for chunk in chunks:
            waiting.append((chunk, pool.submit(work, chunk)))
            if len(waiting) > 4 * processes:
                done, future = waiting.popleft()
                yield from zip(done, future.result(), strict=True)
        for done, future in waiting:
            yield from zip(done, future.result(), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)


class _Tally:
    """What became of the lines."""

    def __init__(self) -> None:
        self.read: Counter[str] = Counter()  # lines, by file
        self.kept: Counter[str] = Counter()
        self.rejected: dict[str, Counter[str]] = defaultdict(Counter)  # by file, by reason
        self.unknown_tokens: Counter[str] = Counter()
        self.tokens: Counter[int] = Counter()
        self.lengths: dict[str, Counter[int]] = {split: Counter() for split in SPLITS}

    def count(self, lines: Iterable[RawLine]) -> Iterator[RawLine]:
        for line in lines:
            self.read[line.file] += 1
            yield line

    def reject(self, file: str, rejection: Rejection) -> None:
        self.rejected[file][rejection.reason] += 1
        if rejection.reason == UNKNOWN_TOKEN:
            self.unknown_tokens.update(rejection.found.split(" "))

    def keep(self, file: str, split: str, tokens: Sequence[int]) -> None:
        self.kept[file] += 1
        self.lengths[split][len(tokens)] += 1
        self.tokens.update(tokens)

    def of_tranches(self) -> dict[str, dict[str, Any]]:
        """The counts of the files whose name is the code of a ZINC tranche, by that code."""
        codes: dict[str, list[str]] = defaultdict(list)
        for file in self.read:
            code = Path(file).name.split(".")[0]
            if re.fullmatch("[A-K]{2}[ABCEGI][A-F]", code):
                codes[code].append(file)
        return {
            code: {
                "read": sum(self.read[file] for file in files),
                "kept": sum(self.kept[file] for file in files),
                "rejected": dict(sum((self.rejected[file] for file in files), Counter[str]()).most_common()),
            }
            for code, files in sorted(codes.items())
        }


def _write(
    results: Iterable[tuple[RawLine, Outcome]], store: StoreWriter, folder: Path, fractions: Fractions, tally: _Tally
) -> None:
    seen = set[bytes]()
    with _rejected_lines(folder) as rejected:
        for line, outcome in results:
            if isinstance(outcome, Molecule) and outcome.digest in seen:
                outcome = Rejection("duplicate")
            if isinstance(outcome, Rejection):
                rejected.writerow((line.file, line.line_number, outcome, line.text))
                tally.reject(line.file, outcome)
            else:
                seen.add(outcome.digest)
                split = fractions.split_of(outcome.digest)
                store.add(split, outcome.tokens)
                tally.keep(line.file, split, outcome.tokens)
    store.finish()


@contextmanager
def _rejected_lines(folder: Path) -> Iterator[Any]:
    """A csv writer of tab-separated rows into a gzip file without a date."""
    with (
        (folder / REJECTED).open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="") as text,
    ):
        writer = csv.writer(text, delimiter="\t", lineterminator="\n")
        writer.writerow(("file", "line", "reason", "text"))
        yield writer


def _manifest(folder: Path, sources: list[str], tally: _Tally, settings: dict[str, Any], vocabulary: Vocabulary) -> Manifest:
    for source in sources:
        assert tally.read[source] == tally.kept[source] + tally.rejected[source].total(), f"lines of {source} were lost"
    rejected = sum(tally.rejected.values(), Counter[str]())
    assert set(tally.read) <= set(sources), "a line came from no input"
    if not tally.kept.total():
        reasons = ", ".join(f"{count} {reason}" for reason, count in rejected.most_common(3))
        raise DataError(f"No molecule is left of {tally.read.total()} lines ({reasons}). Check the inputs and the filters.")
    return Manifest(
        versions={name: _version(name) for name in ("nemo_cmim", "rdkit", "megatron-core")},
        # JSON knows no infinity: a limit that is off is null
        settings={k: None if isinstance(v, float) and math.isinf(v) else v for k, v in settings.items()},
        vocabulary={"size": len(vocabulary), "fingerprint": vocabulary.fingerprint},
        counts={"read": tally.read.total(), "kept": tally.kept.total(), "rejected": rejected.total()},
        rejected=dict(rejected.most_common()),
        unknown_tokens=dict(tally.unknown_tokens.most_common()),
        tokens={vocabulary.tokens[i]: count for i, count in tally.tokens.most_common()},
        tranches=tally.of_tranches(),
        inputs=[
            {
                "file": s,
                "bytes": Path(s).stat().st_size,
                "sha256": sha256_of(Path(s)),
                "read": tally.read[s],
                "kept": tally.kept[s],
                "rejected": dict(tally.rejected[s].most_common()),
            }
            for s in sources
        ],
        splits={
            split: {
                "molecules": lengths.total(),
                "tokens": sum(length * count for length, count in lengths.items()),
                "lengths": {str(length): lengths[length] for length in sorted(lengths)},
            }
            for split, lengths in tally.lengths.items()
        },
        files={path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in sorted(folder.iterdir())},
    )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed as a package"


@contextmanager
def _new_folder(output: Path, overwrite: bool) -> Iterator[Path]:
    """A folder beside `output` that takes its name when the block ends well, and vanishes otherwise."""
    in_use = output.exists() and not (output.is_dir() and not any(output.iterdir()))
    if in_use and not overwrite:
        raise DataError(f"{output} exists already. Name another folder, or replace it with --overwrite.")
    if in_use and not (output / MANIFEST).is_file():
        raise DataError(f"{output} holds no {MANIFEST}, so it is not prepared data and is not overwritten. Name another folder.")
    staging = output.with_name(f".{output.name}.{os.getpid()}.new")
    replaced = output.with_name(f".{output.name}.{os.getpid()}.old")
    try:
        staging.mkdir(parents=True)
        yield staging
        if in_use:
            output.rename(replaced)
        staging.rename(output)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
