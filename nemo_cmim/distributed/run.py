"""One run: claims the output, runs the tasks that are not done yet, and writes the manifest."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..errors import ConfigError, DataError, InvalidSmilesError
from ..prepare.cluster import Workers, WorkersLostError
from .folder import LEASE, Folder
from .job import JOB, UNFINISHED, Embedding, Job
from .library import MANIFEST, LibraryManifest
from .parts import Part, drop_changed

__all__ = ["Run"]

_EXAMPLES = 3
_PART = re.compile(r"part-\d{5,}-[0-9a-f]{8}\.parquet")
_TEMPORARY = re.compile(rf"\.{_PART.pattern}\.[0-9a-f]{{32}}")


class Run:
    """Writes one library.

    Args:
        output: The folder, or a URL.
        embedding: What is computed.
        on_invalid: "raise" or "nan".
        inputs: `file` and `state` of each input.
        settings: What else the parts depend on.

    Raises:
        ConfigError: If an argument cannot be used.
        DataError: If the output is `-`.
    """

    def __init__(
        self,
        output: str | Path,
        embedding: Embedding,
        on_invalid: str,
        inputs: Sequence[Mapping[str, Any]],
        settings: Mapping[str, Any],
    ) -> None:
        if on_invalid not in ("raise", "nan"):
            raise ConfigError(f'on_invalid must be "raise" or "nan", found {on_invalid!r}.')
        self._folder = Folder.of(output)
        work = {
            "embedding": embedding.described(),
            "settings": {**settings, "batch_size": embedding.batch_size},
            "versions": dict(embedding.versions),
            "inputs": inputs,
        }
        self._work: dict[str, Any] = json.loads(json.dumps(work))
        name = hashlib.sha256(json.dumps(self._work, sort_keys=True).encode()).hexdigest()[:16]
        self._job = Job(self._folder, name, embedding, on_invalid)

    def all(
        self,
        connect: Callable[[Folder], AbstractContextManager[Workers]],
        plan: Callable[[Job, Workers], Sequence[Part]],
        compute: Callable[[Job, Workers, Sequence[Part]], Iterator[Part]],
        *,
        overwrite: bool,
        progress: bool | None,
    ) -> LibraryManifest:
        """Computes the parts that are not complete, and writes the manifest.

        Args:
            connect: Context that gives the workers.
            plan: Makes the parts.
            compute: Writes parts, and yields each when it is complete.
            overwrite: Replace a library, or unfinished work, of a different run.
            progress: Show a progress bar; None: if stderr is a terminal.
        """
        with _reported(self._folder), self._folder.locked():
            if self._is_done(overwrite=overwrite):
                manifest = LibraryManifest.load(self._folder)
                self._check_invalid(manifest.counts["invalid"], manifest.examples)
                return manifest
            try:
                with connect(self._folder) as workers:
                    parts = plan(self._job, workers)
                    todo = self._todo(parts, workers)
                    total, left = sum(part.rows for part in parts), sum(part.rows for part in todo)
                    unit = " rows" if parts and parts[0].source else " parts"
                    hidden = None if progress is None else not progress
                    with tqdm(total=total, initial=total - left, desc="embed", unit=unit, unit_scale=True, disable=hidden) as bar:
                        for part in compute(self._job, workers, todo):
                            bar.update(part.rows)
            except ValueError as error:
                if not isinstance(error, WorkersLostError) and not self._job.entries("parts"):
                    self._folder.remove(UNFINISHED)  # the input or the settings must be fixed, and nothing is lost
                raise
            return self._finish(parts)

    def _is_done(self, *, overwrite: bool) -> bool:
        """Whether the library is complete; otherwise, the folder is that of this run afterwards.

        A library that is replaced stays complete until the new one is: its manifest lists its parts only.
        """
        begun, complete = self._begun(overwrite=overwrite), self._library() or {}
        is_own, sizes = complete.get("job") == self._job.name, self._folder.sizes()
        is_whole = all(sizes.get(part["name"]) == part["bytes"] for part in complete.get("parts", ()))
        if is_own and is_whole and (overwrite or begun.get("job", self._job.name) == self._job.name):
            self._folder.remove(UNFINISHED)
            self._remove_others()
            return True
        if begun.get("job") != self._job.name:
            if begun or not is_own:  # a library of this run that lost a part is mended
                self._check_free(begun, complete, overwrite=overwrite)
            self._folder.save(JOB, {"job": self._job.name, **self._work})
        self._remove_others(complete.get("job"))
        return False

    def _begun(self, *, overwrite: bool) -> dict[str, Any]:
        """The content of `job.json` of unfinished work; empty if there is none."""
        try:
            found: dict[str, Any] = self._folder.read(JOB) or {}
        except ValueError as error:
            if not overwrite:
                raise DataError(
                    f"{self._folder / JOB} is damaged: {error}. Pass overwrite=True to discard the unfinished work."
                ) from error
            self._folder.remove(UNFINISHED)
            return {}
        return found

    def _library(self) -> dict[str, Any] | None:
        """The manifest of a library that is in the folder; None if there is none."""
        try:
            return dataclasses.asdict(LibraryManifest.load(self._folder))
        except DataError:
            return None

    def _check_free(self, begun: Mapping[str, Any], complete: Mapping[str, Any], *, overwrite: bool) -> None:
        """Checks that the folder may be taken from the run that began it, if there is one."""
        other = begun or complete
        if not other:
            names = [name for name in sorted(self._folder.sizes()) if name != UNFINISHED and not name.startswith(".")]
            names = [name for name in names if not LEASE.fullmatch(name)]
            parts = [name for name in names if _PART.fullmatch(name)]
            damaged = [MANIFEST] if parts and not self._folder.is_json(MANIFEST) else []
            if foreign := [name for name in names if name not in (*parts, *damaged)]:
                raise DataError(f"{self._folder} contains {foreign[0]!r}, which `embed` did not write. Name a different folder.")
            if parts and not overwrite:
                raise DataError(
                    f"{self._folder} contains {parts[0]!r} of a library whose {MANIFEST} is missing or damaged. Restore it, name a "
                    "different folder, or pass overwrite=True to replace the files."
                )
        elif not overwrite:
            what = "unfinished work" if begun else "a library"
            raise DataError(
                f"{self._folder} contains {what} with different {', '.join(self._differences(other))}. Restore them, name a different "
                f"folder, or pass overwrite=True to replace {'it' if begun else 'the library'}."
            )

    def _differences(self, other: Mapping[str, Any]) -> list[str]:
        found = []
        for part in ("embedding", "settings", "versions"):
            now, before = self._work[part], other.get(part, {})
            changed = {name: before.get(name) for name in now if now[name] != before.get(name)}
            found += [name if value is None else f"{name} ({str(value)[:40]})" for name, value in changed.items()]
        inputs = [{name: one.get(name) for name in ("file", "state")} for one in other.get("inputs", [])]
        return [*found, *(["inputs"] if inputs != self._work["inputs"] else [])]

    def _remove_others(self, *kept: str | None) -> None:
        """Removes the parts and the work of other runs except `kept`, and the temporary files of processes that were killed."""
        endings = tuple(f"-{job[:8]}.parquet" for job in (self._job.name, *kept) if job)
        for name in self._folder.sizes():
            is_other = _PART.fullmatch(name) and not name.endswith(endings)
            if is_other or _TEMPORARY.fullmatch(name):
                self._folder.remove(name)
        for name in self._folder.sizes(UNFINISHED):
            if name not in (JOB.rsplit("/", 1)[-1], self._job.name):
                self._folder.remove(f"{UNFINISHED}/{name}")

    def _todo(self, parts: Sequence[Part], workers: Workers) -> list[Part]:
        """The parts that are not complete, or whose files are missing or were changed."""
        deque(workers.run(functools.partial(drop_changed, job=self._job), list(self._job.entries("parts").items())), maxlen=0)
        done = self._job.entries("parts")
        invalid = sum(sum(one["invalid"].values()) for one in done.values())
        self._check_invalid(invalid, [example for one in done.values() for example in one["examples"]])
        return [part for part in parts if part.number not in done]

    def _check_invalid(self, count: int, examples: Sequence[str]) -> None:
        """Refuses rows that an earlier run with on_invalid="nan" kept."""
        if count and self._job.on_invalid == "raise":
            raise InvalidSmilesError(f'{examples[0]}. {count:,} such rows are kept here. Pass on_invalid="nan" to keep them.')

    def _finish(self, parts: Sequence[Part]) -> LibraryManifest:
        done = self._job.entries("parts")
        if missing := [part.number for part in parts if part.number not in done]:
            raise DataError(
                f"{self._folder}: the results of {len(missing):,} of {len(parts):,} parts are not visible here, for example of part "
                f"{missing[0]}. Wait until the file system shows them, and rerun."
            )
        entries = [done[part.number] for part in parts]
        invalid = sum((Counter(entry["invalid"]) for entry in entries), Counter[str]())
        rows = sum(entry["rows"] for entry in entries)
        if not rows:
            self._folder.remove(UNFINISHED)
            raise DataError(f"{' and '.join(one['file'] for one in self._work['inputs'])}: there are no rows.")
        of_input: Counter[int] = Counter()
        for part, entry in zip(parts, entries):
            of_input[part.input] += entry["rows"]
        manifest = LibraryManifest(
            job=self._job.name,
            embedding=self._work["embedding"],
            settings=self._work["settings"],
            versions=self._work["versions"],
            inputs=[{**one, "rows": of_input[number]} for number, one in enumerate(self._work["inputs"])],
            counts={"rows": rows, "embedded": rows - invalid.total(), "invalid": invalid.total()},
            invalid=dict(invalid.most_common()),
            examples=[example for entry in entries for example in entry["examples"]][:_EXAMPLES],
            parts=[
                {**{key: entry[key] for key in ("name", "rows", "bytes", "sha256")}, "invalid": sum(entry["invalid"].values())}
                for entry in entries
                if "name" in entry
            ],
        )
        self._job.check_is_current()
        manifest.save(self._folder)
        self._remove_others()  # written by late tasks of other runs
        self._folder.remove(UNFINISHED)
        return manifest


@contextmanager
def _reported(folder: Folder) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"Embedding into {folder} stopped: {error}. Complete parts are kept. Fix the problem and rerun to resume."
        ) from error
