"""`nemo-cmim prepare`: from files of SMILES to a folder of token stores, with every line accounted for.

Stages, each a set of tasks that may run anywhere: look through the inputs (`chunks.survey`), curate chunks of them
(`chunks.curate_chunk`), count molecules if splits are to have exact sizes (`merge.count_distinct`), merge ranges of hashes into shards
(`merge.merge_shard`), collect what was not kept (`rejects.write_rejected`). A task leaves files in a folder beside the output; one whose
files are there is not done again, so a run that was killed goes on. The output depends on the inputs and settings alone. Memory is
bounded by the sizes of a chunk and of a shard, in each process.
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

from ..config import from_mapping
from ..errors import ConfigError, DataError
from ..files import fsync
from ..store.manifest import MANIFEST, StoreManifest
from ..store.token_store import VOCABULARY
from ..tables.layout import Layout
from ..tables.readers import FORMATS
from ..tokenizers import SmilesTokenizer, Vocabulary
from .chunks import Job, Survey, curate_chunk, plan_chunks, state_of, survey
from .cluster import Workers, versions, workers
from .merge import ShardRange, count_distinct, distinct_hashes, merge_shard, ranges
from .rejects import REJECTED, groups, join_rejected, write_rejected
from .settings import Settings
from .splits import Cuts
from .summary import summarise
from .workspace import FINISHED, claim

__all__ = ["prepare"]

Item = TypeVar("Item", bound=tuple[Any, ...])


def prepare(
    inputs: Sequence[str | Path],
    output: str | Path,
    *,
    vocabulary: str | Path | None = None,
    processes: int | None = None,
    scheduler: str | None = None,
    progress: bool | None = None,
    overwrite: bool = False,
    restart: bool = False,
    **settings: Any,
) -> StoreManifest:
    """Canonicalises, filters, deduplicates, splits and tokenises molecules, and writes them as a folder of token stores.

    The folder holds shards (`train-00000.bin`, `.idx`, ...) of the splits `train`, `valid` and `test`, `vocabulary.txt`,
    `manifest.json` (counts and checksums) and `rejected.tsv.gz` (every line that was not kept: file, line, reason, text). It
    appears complete or not at all. Until then the work lies in `.NAME.unfinished` beside it, and the same call again goes on.

    Args:
        inputs: Files as `read_molecules` takes them, and folders, which stand for all such files in them.
        output: The folder to write.
        vocabulary: A vocabulary file; by default the shipped one.
        processes: Processes for the work; by default one per core. With 1 no other process is started.
        scheduler: Address of a `dask.distributed` scheduler, in place of processes here. Its workers must see the inputs and the
            output under the same paths.
        progress: Show bars on stderr; by default where that is a terminal.
        overwrite: Replace a folder that `prepare` wrote before.
        restart: Throw away the unfinished work of an earlier call.
        **settings: Fields of `Settings`, such as `max_tokens=127`.

    Raises:
        DataError: An input cannot be read, the output folder is in use, no molecule is left, or unfinished work is of other settings.
        ConfigError: A setting is unknown, of another type or out of range, another process is at work on the output, or what it needs is
            not installed.
    """
    chosen = from_mapping(Settings, settings, "prepare")
    if processes is not None and processes < 1:
        raise ConfigError(f"processes must be at least 1, found {processes}.")
    if processes is not None and scheduler is not None:
        raise ConfigError(f"processes={processes} are of this machine, but scheduler={scheduler} has workers of its own: give one.")
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
            with workers(processes or _cores(), scheduler, folder) as at_work:
                return _Run(job, at_work, progress).all(sources, words)
    except OSError as error:
        raise DataError(
            f"Preparing {target} stopped: {error}. What is finished is kept: mend this, and run again to go on."
        ) from error


def _files_of(inputs: Sequence[str | Path]) -> list[str]:
    """The files that are meant, each once."""
    found: dict[Path, str] = {}
    for path in map(Path, inputs):
        inside = sorted(_files_in(path)) if path.is_dir() else [path]
        if not inside:
            raise DataError(f"{path} holds no file of molecules: their names end in {', '.join(FORMATS)}, or also in .gz or .xz.")
        for file in inside:
            found.setdefault(file.absolute(), str(file))
    if not found:
        raise DataError("There is no input file: name at least one.")
    return list(found.values())


def _files_in(folder: Path) -> Iterator[Path]:
    """Files of molecules in a folder and those in it, but for hidden ones and for prepared data."""
    endings = tuple(f"{form}{packed}" for form in FORMATS for packed in ("", ".gz", ".xz"))
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and not (Path(place) / name / MANIFEST).is_file()]
        yield from (Path(place) / name for name in names if name.lower().endswith(endings) and not name.startswith("."))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Run:
    """The stages of one `prepare`."""

    def __init__(self, job: Job, at_work: Workers, progress: bool | None) -> None:
        self._job, self._workers, self._progress = job, at_work, progress

    def all(self, sources: list[str], words: Vocabulary) -> StoreManifest:
        """Does whatever is not done yet, and fills `finished`."""
        job, finished = self._job, self._job.folder / FINISHED
        surveys = self._look_through(sources)
        chunks = plan_chunks(job, surveys, sources)
        self._do("chunks", "curate", curate_chunk, chunks, weigh=lambda chunk: chunk.lines)
        rows = self._count_rows(len(chunks))
        parts = ranges(max(1, -(-rows // job.settings.shard_molecules)))
        cuts = self._cuts(parts)
        self._do("shards", "merge", functools.partial(merge_shard, cuts=cuts), parts)
        of_chunks = groups(len(chunks))
        self._do("rejected", "collect rejected lines", functools.partial(write_rejected, shards=len(parts)), of_chunks)
        join_rejected(job, len(of_chunks), finished / REJECTED)
        words.save(finished / VOCABULARY)
        manifest = summarise(job, sources, surveys, chunks, len(parts), words)
        manifest.save(finished)
        for path in finished.iterdir():
            if path.name not in (MANIFEST, *manifest.files):
                path.unlink()  # what a process left that was killed while it wrote
        for name in (MANIFEST, VOCABULARY):
            fsync(finished / name)
        return manifest

    def _do(
        self, stage: str, verb: str, task: Callable[..., None], items: Sequence[Item], weigh: Callable[[Item], int] = lambda item: 1
    ) -> None:
        """Does those tasks of a stage that have left no result yet. An item's first field is its number."""
        todo = [item for item in items if not self._job.result(stage, item[0]).exists()]
        todo.sort(key=weigh, reverse=True)  # so that no worker begins a large one when the others are done
        total, left = (sum(map(weigh, some)) for some in (items, todo))
        hidden = None if self._progress is None else not self._progress
        with tqdm(total=total, initial=total - left, desc=verb, unit_scale=True, disable=hidden) as bar:
            for item in self._workers.run(functools.partial(task, job=self._job), todo):
                bar.update(weigh(item))

    def _look_through(self, sources: list[str]) -> list[Survey]:
        items = [(number, str(Path(name).absolute())) for number, name in enumerate(sources)]
        self._do("inputs", "look through", survey, items)
        found = [self._job.load("inputs", number) for number, _ in items]
        problems = [one["error"] for one in found if "error" in one]
        if problems:
            more = f" And {len(problems) - 1} more like this: {problems[1]}" if len(problems) > 1 else ""
            raise DataError(problems[0] + more)
        return [Survey(**one)._replace(layout=Layout(*one["layout"])) for one in found]

    def _count_rows(self, chunks: int) -> int:
        """Molecules of all chunks, duplicates included.

        Raises:
            DataError: There is none.
        """
        found = [self._job.load("chunks", number) for number in range(chunks)]
        if not any(one["kept"] for one in found):
            reasons = sum((Counter(one["rejected"]) for one in found), Counter[str]())
            shutil.rmtree(self._job.folder / "chunks")  # there is nothing to go on with
            if not found:
                raise DataError("The inputs hold no molecules: they have a header only. Check them.")
            most = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common(3))
            raise DataError(f"No molecule is left of {reasons.total()} lines ({most}). Check the inputs and the filters.")
        return sum(one["kept"] for one in found)

    def _cuts(self, parts: Sequence[ShardRange]) -> Cuts:
        """Where the hashes are cut into splits. Exact numbers of molecules need to know how many there are in each range."""
        shares = self._job.settings.shares
        if not shares.has_counts:
            return shares.cuts()
        self._do("distinct", "count", count_distinct, parts)
        counts = [self._job.load("distinct", part.number)["molecules"] for part in parts]
        stops = list(accumulate(counts))

        def hash_of(place: int) -> int:
            part = bisect_right(stops, place)
            return int(distinct_hashes(parts[part], self._job)[place - stops[part] + counts[part]])

        return shares.cuts(stops[-1], hash_of)
