"""Adds up what the tasks of `prepare` left, for the manifest."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..tokenizers import Vocabulary
from .cluster import versions
from .manifest import Manifest, sha256_of
from .merge import DUPLICATE
from .pieces import Job, Piece, Survey, open_table
from .rejects import REJECTED
from .store import SPLITS, VOCABULARY
from .tranches import Tranche
from .workplace import FINISHED

__all__ = ["summarise"]


class _Tally:
    """What became of the lines of something."""

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
    job: Job, names: Sequence[str], surveys: Sequence[Survey], pieces: Sequence[Piece], shards: int, vocabulary: Vocabulary
) -> Manifest:
    """The manifest of the folder `finished`, whose other files are all there."""
    of_shards = [job.load("shards", number) for number in range(shards)]
    total, unknown, inputs = _Tally(), Counter[str](), [_Tally() for _ in names]
    tranches: dict[str, _Tally] = defaultdict(_Tally)
    for piece, duplicates in zip(pieces, _duplicates_of_pieces(job, len(pieces), shards), strict=True):
        found = job.load("pieces", piece.number)
        kept, rejected = found["kept"] - duplicates, found["rejected"] | ({DUPLICATE: duplicates} if duplicates else {})
        unknown.update(found["unknown_tokens"])
        tranche = Tranche.of_file(piece.name)
        for tally in (total, inputs[piece.input], *([tranches[tranche.code]] if tranche else [])):
            tally.add(piece.lines, kept, rejected)
    counts = total.as_dict()
    splits = {split: list(_shards_of(split, of_shards)) for split in SPLITS}
    assert total.kept == sum(shard["molecules"] for shards_of in splits.values() for _, shard in shards_of), "molecules were lost"
    uses = sum((Counter(shard["tokens"]) for shards_of in splits.values() for _, shard in shards_of), Counter[str]())
    tokens = {vocabulary.tokens[int(token)]: count for token, count in sorted(uses.items(), key=lambda use: (-use[1], int(use[0])))}
    return Manifest(
        versions=versions(),
        settings=job.settings.as_json(),
        vocabulary={"size": len(vocabulary), "fingerprint": vocabulary.fingerprint},
        counts={"read": total.read, "kept": total.kept, "rejected": total.rejected.total()},
        rejected=counts["rejected"],
        unknown_tokens=dict(unknown.most_common()),
        tokens=tokens,
        inputs=[
            {"file": name, "bytes": found.bytes, "sha256": found.sha256, **tally.as_dict()}
            for name, found, tally in zip(names, surveys, inputs)
        ],
        tranches={code: tally.as_dict() for code, tally in sorted(tranches.items())},
        splits={split: _split(shards_of) for split, shards_of in splits.items()},
        files=_files(job, splits),
    )


def _duplicates_of_pieces(job: Job, pieces: int, shards: int) -> list[int]:
    counts = np.zeros(pieces, np.int64)
    for shard in range(shards):
        counts += np.bincount(open_table(job.result("shards", shard, "duplicates.arrow"))["piece"].to_numpy(), minlength=pieces)
    return counts.tolist()


def _shards_of(split: str, of_shards: Sequence[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and counts of a split's shards, in their order."""
    for shard in of_shards:
        if split in shard["shards"]:
            found = shard["shards"][split]
            yield next(iter(found["files"])).removesuffix(".bin"), found


def _split(shards: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    lengths = sum((Counter(shard["lengths"]) for _, shard in shards), Counter[str]())
    return {
        "molecules": lengths.total(),
        "tokens": sum(int(length) * count for length, count in lengths.items()),
        "lengths": {length: lengths[length] for length in sorted(lengths, key=int)},
        "shards": [{"name": name, "molecules": shard["molecules"]} for name, shard in shards],
    }


def _files(job: Job, splits: Mapping[str, Sequence[tuple[str, dict[str, Any]]]]) -> dict[str, dict[str, Any]]:
    files = {name: entry for shards in splits.values() for _, shard in shards for name, entry in shard["files"].items()}
    for name in (REJECTED, VOCABULARY):
        path = job.folder / FINISHED / name
        files[name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    return dict(sorted(files.items()))
