"""Adds up the counts that the tasks of `prepare` saved, for the manifest."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..files import sha256_of
from ..observed import PropertyTable
from ..store.manifest import StoreManifest
from ..store.token_store import SPLITS, VOCABULARY
from ..tokenizers import Vocabulary
from ..zinc.tranches import Tranche
from .arrow import open_arrow
from .chunks import Chunk
from .cluster import versions
from .job import Job
from .merge import DUPLICATE, shards_of_range
from .rejects import REJECTED
from .scan import ScannedInput
from .workspace import FINISHED

__all__ = ["summarise"]


class _Tally:
    """Numbers of lines read, kept and rejected."""

    def __init__(self) -> None:
        self.read = 0
        self.kept = 0
        self.rejected: Counter[str] = Counter()

    def add(self, read: int, kept: int, rejected: Mapping[str, int]) -> None:
        self.read += read
        self.kept += kept
        self.rejected.update(rejected)

    def as_dict(self) -> dict[str, Any]:
        assert self.read == self.kept + self.rejected.total(), "lines were lost"
        return {"read": self.read, "kept": self.kept, "rejected": dict(self.rejected.most_common())}


def summarise(
    job: Job,
    names: Sequence[str],
    scanned: Sequence[ScannedInput],
    chunks: Sequence[Chunk],
    shards: int,
    vocabulary: Vocabulary,
    properties: PropertyTable | None,
) -> StoreManifest:
    """The manifest of the folder `finished`, which holds all its other files.

    Args:
        job: The job.
        names: Path of each input, as the user gave it.
        scanned: Result of each input's scan.
        chunks: All chunks.
        shards: Number of hash ranges.
        vocabulary: The vocabulary.
        properties: Table of the observed properties, if they were computed.
    """
    entries = [entry for number in range(shards) for entry in shards_of_range(number, job)]
    total, unknown, inputs = _Tally(), Counter[str](), [_Tally() for _ in names]
    tranches: dict[str, _Tally] = defaultdict(_Tally)
    for chunk, duplicates in zip(chunks, _duplicates_of_chunks(job, len(chunks), shards), strict=True):
        found = job.load("chunks", chunk.number)
        kept, rejected = found["kept"] - duplicates, found["rejected"] | ({DUPLICATE: duplicates} if duplicates else {})
        unknown.update(found["unknown_tokens"])
        tranche = Tranche.of_file(chunk.name)
        for tally in (total, inputs[chunk.input], *([tranches[tranche.code]] if tranche else [])):
            tally.add(chunk.lines, kept, rejected)
    counts = total.as_dict()
    splits = {split: [(entry.name, entry.counts) for entry in entries if entry.split == split] for split in SPLITS}
    assert total.kept == sum(shard["molecules"] for shards_of in splits.values() for _, shard in shards_of), "molecules were lost"
    uses = sum((Counter(shard["tokens"]) for shards_of in splits.values() for _, shard in shards_of), Counter[str]())
    tokens = {vocabulary.tokens[int(token)]: count for token, count in sorted(uses.items(), key=lambda use: (-use[1], int(use[0])))}
    return StoreManifest(
        versions=versions(),
        settings=job.settings.as_json(),
        vocabulary={"size": len(vocabulary), "fingerprint": vocabulary.fingerprint},
        counts={"read": total.read, "kept": total.kept, "rejected": total.rejected.total()},
        rejected=counts["rejected"],
        unknown_tokens=dict(unknown.most_common()),
        tokens=tokens,
        inputs=[
            {"file": name, "bytes": found.bytes, "sha256": found.sha256, **tally.as_dict()}
            for name, found, tally in zip(names, scanned, inputs)
        ],
        tranches={code: tally.as_dict() for code, tally in sorted(tranches.items())},
        splits={split: _split(shards_of) for split, shards_of in splits.items()},
        files=_files(job, splits, shards if properties is not None else 0),
        properties=None if properties is None else properties.as_json(),
    )


def _duplicates_of_chunks(job: Job, chunks: int, shards: int) -> list[int]:
    counts = np.zeros(chunks, np.int64)
    for shard in range(shards):
        counts += np.bincount(open_arrow(job.result("shards", shard, "duplicates.arrow"))["chunk"].to_numpy(), minlength=chunks)
    return counts.tolist()


def _split(shards: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    lengths = sum((Counter(shard["lengths"]) for _, shard in shards), Counter[str]())
    return {
        "molecules": lengths.total(),
        "tokens": sum(int(length) * count for length, count in lengths.items()),
        "lengths": {length: lengths[length] for length in sorted(lengths, key=int)},
        "shards": [{"name": name, "molecules": shard["molecules"]} for name, shard in shards],
    }


def _files(job: Job, splits: Mapping[str, Sequence[tuple[str, dict[str, Any]]]], records: int) -> dict[str, dict[str, Any]]:
    files = {name: entry for shards in splits.values() for _, shard in shards for name, entry in shard["files"].items()}
    for number in range(records):
        files |= job.load("records", number)["files"]
    for name in (REJECTED, VOCABULARY):
        path = job.folder / FINISHED / name
        files[name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    return dict(sorted(files.items()))
