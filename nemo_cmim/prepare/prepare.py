"""`nemo-cmim prepare`: turns files of SMILES into a token store, and reports why each rejected line was rejected.

Each stage is a set of tasks that may run on any machine: scan the inputs (`scan.scan_input`), curate chunks of them
(`chunks.curate_chunk`), count molecules if a split has an exact size (`merge.count_distinct`), merge hash ranges into shards
(`merge.merge_range`), compute observed properties if they are asked for (`properties`), collect rejected lines
(`rejects.write_rejected`). A task writes its results to a folder next to the output.
Tasks that have results are not run again, so a killed run can be resumed. The output depends only on the inputs and settings. The
memory of each process is bounded by the sizes of a chunk and of a shard.
"""

from __future__ import annotations

import functools
import os
import shutil
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from ..cores import available_cores
from ..errors import DataError
from ..files import fsync
from ..mappings import from_mapping
from ..molecules import check_properties
from ..observed import PropertyTable
from ..steps import Steps, check_steps, field_of
from ..store.manifest import MANIFEST, StoreManifest
from ..store.token_store import VOCABULARY
from ..tables.detection import COMPRESSIONS, FORMATS
from ..tables.layout import Layout
from ..tables.sources import STDIN
from ..tokenizers import SmilesTokenizer, Vocabulary
from .chunks import curate_chunk, plan_chunks
from .cluster import Workers, check_workers, start_workers, versions
from .job import Job
from .merge import HashRange, count_distinct, distinct_hashes, hash_ranges, merge_range
from .properties import compute_piece, fit_table, plan_pieces, write_records
from .rejects import REJECTED, chunk_groups, join_rejected, write_rejected
from .scan import ScannedInput, scan_input, state_of
from .settings import Settings
from .splits import SplitBounds, split_bounds
from .summary import summarise
from .workspace import FINISHED, claim

__all__ = ["prepare"]

Item = TypeVar("Item", bound=tuple[Any, ...])


def prepare(
    inputs: Sequence[str | Path],
    output: str | Path,
    *,
    vocabulary: str | Path | None = None,
    standardise: Steps = (),
    processes: int | None = None,
    scheduler: str | None = None,
    progress: bool | None = None,
    overwrite: bool = False,
    restart: bool = False,
    **settings: Any,
) -> StoreManifest:
    """Canonicalises, filters, deduplicates, splits and tokenizes molecules, and writes them as a token store.

    The folder contains shards (`train-00000.bin`, `.idx`, ...) of the splits `train`, `valid` and `test`, `vocabulary.txt`,
    `manifest.json` (counts and checksums) and `rejected.tsv.gz` (file, line number, reason and text of every rejected line). It is
    written atomically. Until then the results lie in `.NAME.unfinished` next to it, and a repeated call resumes from them.

    Args:
        inputs: Files of the formats of `tables.detection.FORMATS`, and folders, which stand for all such files in them.
        output: The folder to write.
        vocabulary: Vocabulary file; by default the shipped one.
        standardise: Steps that standardise each molecule, see `steps.STEPS`: the settings of these names are set.
        processes: Number of processes; by default one per core. With 1, no other process is started.
        scheduler: Address of a `dask.distributed` scheduler, instead of processes on this machine. Its workers must see the inputs
            and the output under the same paths.
        progress: Show progress bars on stderr; by default if stderr is a terminal.
        overwrite: Replace a folder that `prepare` wrote, unless it contains other files.
        restart: Delete the unfinished work of an earlier call.
        **settings: Fields of `Settings`, such as `max_tokens=127`.

    Raises:
        DataError: If an input cannot be read, the output folder exists, all lines are rejected, or the unfinished work has different
            settings.
        ConfigError: If a setting is unknown, of the wrong type or out of range, another process is writing the output, or a required
            package is not installed.
    """
    chosen = from_mapping(Settings, {**settings, **{field_of(step): True for step in check_steps(standardise)}}, "prepare")
    check_workers(processes, scheduler)
    check_properties(chosen.property_names)
    words = SmilesTokenizer(None if vocabulary is None else Vocabulary.load(vocabulary)).vocabulary
    sources = _files_of(inputs)
    files = [[name, *state_of(Path(name))] for name in sources]
    work = {"settings": chosen.as_json(), "inputs": files, "vocabulary": words.fingerprint, "versions": versions()}
    target = Path(output).absolute()
    try:
        with claim(target, work, overwrite=overwrite, restart=restart) as folder:
            if folder is None:
                return StoreManifest.load(target)
            job = Job(folder, chosen)
            words.save(job.vocabulary)
            with start_workers(processes or available_cores(), scheduler, folder) as workers:
                return _Run(job, workers, progress).all(sources, words)
    except OSError as error:
        raise DataError(
            f"Preparing {target} stopped: {error}. Finished tasks are kept. Fix the problem and rerun to resume."
        ) from error


def _files_of(inputs: Sequence[str | Path]) -> list[str]:
    """The input files, each once."""
    found: dict[Path, str] = {}
    for name in map(str, inputs):
        path = Path(name)
        if name == STDIN or "://" in name or (path.exists() and not path.is_file() and not path.is_dir()):
            raise DataError(f"{name} cannot be prepared: inputs are read several times. Save it to a file first.")
        inside = sorted(_files_in(path)) if path.is_dir() else [path]
        if not inside:
            raise DataError(
                f"{path} contains no input file. Names of input files end in {', '.join(FORMATS)}, optionally followed by "
                f"{', '.join(COMPRESSIONS)}."
            )
        for file in inside:
            found.setdefault(file.absolute(), str(file))
    if not found:
        raise DataError("No input file is given. Name at least one.")
    return list(found.values())


def _files_in(folder: Path) -> Iterator[Path]:
    """Input files in a folder and its subfolders, except hidden ones and prepared data."""
    endings = tuple(f"{form}{compression}" for form in FORMATS for compression in ("", *COMPRESSIONS))
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and not (Path(place) / name / MANIFEST).is_file()]
        yield from (Path(place) / name for name in names if name.lower().endswith(endings) and not name.startswith("."))


class _Run:
    """The stages of one `prepare`."""

    def __init__(self, job: Job, workers: Workers, progress: bool | None) -> None:
        self._job, self._workers, self._progress = job, workers, progress

    def all(self, sources: list[str], words: Vocabulary) -> StoreManifest:
        """Runs the tasks that are not done yet, and fills `finished`."""
        job, finished = self._job, self._job.folder / FINISHED
        scanned = self._scan(sources)
        chunks = plan_chunks(job, scanned, sources)
        self._do("chunks", "curate", curate_chunk, chunks, weigh=lambda chunk: chunk.lines)
        rows = self._count_rows(len(chunks))
        ranges = hash_ranges(max(1, -(-rows // job.settings.shard_molecules)))
        bounds = self._split_bounds(ranges)
        self._do("shards", "merge", functools.partial(merge_range, bounds=bounds), ranges)
        table = self._properties(ranges) if job.settings.has_properties else None
        groups = chunk_groups(len(chunks))
        self._do("rejected", "collect rejected lines", functools.partial(write_rejected, shards=len(ranges)), groups)
        join_rejected(job, len(groups), finished / REJECTED)
        words.save(finished / VOCABULARY)
        manifest = summarise(job, sources, scanned, chunks, len(ranges), words, table)
        manifest.save(finished)
        for path in finished.iterdir():
            if path.name not in (MANIFEST, *manifest.files):
                path.unlink()  # left by a process that was killed while it wrote
        for name in (MANIFEST, VOCABULARY):
            fsync(finished / name)
        return manifest

    def _properties(self, ranges: Sequence[HashRange]) -> PropertyTable:
        """Computes the observed properties of all molecules, and writes them beside the shards."""
        job, pieces = self._job, plan_pieces(self._job, len(ranges))
        self._do("properties", "compute properties", compute_piece, pieces, weigh=lambda piece: piece.stop - piece.start)
        table = fit_table(pieces, job)
        self._do("records", "store properties", functools.partial(write_records, pieces=pieces), ranges)
        return table

    def _do(
        self, stage: str, verb: str, task: Callable[..., None], items: Sequence[Item], weigh: Callable[[Item], int] = lambda item: 1
    ) -> None:
        """Runs the tasks of a stage that have no result yet. The first field of an item is its number."""
        todo = [item for item in items if not self._job.result(stage, item[0]).exists()]
        todo.sort(key=weigh, reverse=True)  # so that no worker starts a long task when the others are done
        total, left = (sum(map(weigh, some)) for some in (items, todo))
        hidden = None if self._progress is None else not self._progress
        with tqdm(total=total, initial=total - left, desc=verb, unit_scale=True, disable=hidden) as bar:
            for item in self._workers.run(functools.partial(task, job=self._job), todo):
                bar.update(weigh(item))

    def _scan(self, sources: list[str]) -> list[ScannedInput]:
        items = [(number, str(Path(name).absolute())) for number, name in enumerate(sources)]
        for partial_copy in (self._job.folder / "inputs").glob(".*"):  # left by a scan that was killed
            partial_copy.unlink(missing_ok=True)
        self._do("inputs", "scan", scan_input, items)
        found = [self._job.load("inputs", number) for number, _ in items]
        problems = [one["error"] for one in found if "error" in one]
        if problems:
            more = f" {len(problems) - 1} more inputs cannot be used, for example: {problems[1]}" if len(problems) > 1 else ""
            raise DataError(problems[0] + more)
        return [ScannedInput(**one)._replace(layout=Layout(*one["layout"])) for one in found]

    def _count_rows(self, chunks: int) -> int:
        """Number of molecules in all chunks, including duplicates.

        Raises:
            DataError: If there are none.
        """
        found = [self._job.load("chunks", number) for number in range(chunks)]
        if not any(one["kept"] for one in found):
            reasons = sum((Counter(one["rejected"]) for one in found), Counter[str]())
            shutil.rmtree(self._job.folder / "chunks")  # there is nothing to resume
            if not found:
                raise DataError("The inputs contain only a header and no molecules. Check the inputs.")
            most = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common(3))
            raise DataError(f"All {reasons.total()} lines were rejected ({most}). Check the inputs and the filters.")
        return sum(one["kept"] for one in found)

    def _split_bounds(self, ranges: Sequence[HashRange]) -> SplitBounds:
        """The hashes between the splits. Exact sizes require the number of molecules in each hash range."""
        sizes = self._job.settings.split_sizes
        if not sizes.are_exact:
            return split_bounds(sizes)
        self._do("distinct", "count", count_distinct, ranges)
        counts = [self._job.load("distinct", hash_range.number)["molecules"] for hash_range in ranges]
        stops = list(accumulate(counts))

        def hash_of(index: int) -> int:
            number = bisect_right(stops, index)
            return int(distinct_hashes(ranges[number], self._job)[index - stops[number] + counts[number]])

        return split_bounds(sizes, stops[-1], hash_of)
