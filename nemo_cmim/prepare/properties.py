"""Last stages of `prepare`, if observed properties are asked for: RDKit computes them for the molecules of the shards.

Pieces of shards are independent of each other. Each is computed in the unit of the properties; quantiles of a sample then give the table
by which values are stored as one byte each. The sample is the start of each piece of the training split, since shards are in the order of a
hash.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import molecules
from ..files import fsync, sha256_of
from ..observed import PROPERTIES, PropertyTable
from ..store.shards import LocalShards, ShardMap
from ..store.token_store import RECORDS
from ..tokenizers import SmilesTokenizer, Vocabulary
from .arrow import open_arrow, write_arrow
from .job import Job
from .merge import HashRange, shards_of_range
from .workspace import FINISHED

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ShardPiece", "compute_piece", "fit_table", "plan_pieces", "write_records"]

_SAMPLE = 100_000  # molecules whose quantiles are used


class ShardPiece(NamedTuple):
    """Consecutive molecules of a shard.

    Attributes:
        number: Number of the piece.
        split: Split of the shard.
        shard: Name of the shard.
        start: First molecule.
        stop: Molecule after the last.
        molecules: Number of molecules of the shard.
    """

    number: int
    split: str
    shard: str
    start: int
    stop: int
    molecules: int


def plan_pieces(job: Job, shards: int) -> list[ShardPiece]:
    """Divides all shards into pieces of at most `piece_lines` molecules."""
    pieces: list[ShardPiece] = []
    for number in range(shards):
        for split, name, counts in shards_of_range(number, job):
            count = counts["molecules"]
            for start in range(0, count, job.settings.piece_lines):
                stop = min(start + job.settings.piece_lines, count)
                pieces.append(ShardPiece(len(pieces), split, name, start, stop, count))
    return pieces


def compute_piece(piece: ShardPiece, job: Job) -> None:
    """Saves the properties of a piece as columns, and the packed bits of the fingerprint."""
    import pyarrow

    shard = LocalShards(job.folder / FINISHED, ShardMap([{"name": piece.shard, "molecules": piece.molecules}]))
    tokenizer = SmilesTokenizer(Vocabulary.load(job.vocabulary))
    smiles = [tokenizer.decode(tokens) for tokens in shard.gather(np.arange(piece.start, piece.stop))]
    values_NP, bits_NF = molecules.observed_properties(smiles, job.settings.property_names, job.settings.fingerprint_bits)
    columns: dict[str, Any] = {f"value {i}": column for i, column in enumerate(values_NP.T)}
    packed = np.packbits(bits_NF, axis=1)
    columns["bits"] = pyarrow.FixedSizeBinaryArray.from_buffers(
        pyarrow.binary(packed.shape[1]), len(packed), [None, pyarrow.py_buffer(np.ascontiguousarray(packed))]
    )
    write_arrow(job.result("properties", piece.number, "arrow"), columns)
    job.save("properties", piece.number, {"molecules": len(smiles)})


def _open_piece(piece: ShardPiece, job: Job, rows: slice = slice(None)) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Values float32 [N, P] and packed bits uint8 [N, F / 8] of some molecules of a piece."""
    columns = open_arrow(job.result("properties", piece.number, "arrow"))
    values = [columns[f"value {i}"].to_numpy()[rows] for i in range(len(job.settings.property_names))]
    packed = np.frombuffer(columns["bits"].buffers()[1] or b"", np.uint8)[
        : (piece.stop - piece.start) * job.settings.fingerprint_bits // 8
    ]
    bits = packed.reshape(piece.stop - piece.start, -1)[rows]
    return np.stack(values, 1) if values else np.empty((len(bits), 0), np.float32), bits


def fit_table(pieces: Sequence[ShardPiece], job: Job) -> PropertyTable:
    """The table of quantiles, which is also saved for the tasks."""
    sampled = [piece for piece in pieces if piece.split == "train"] or list(pieces)
    each = slice(-(-_SAMPLE // len(sampled)))
    sample_NP = np.concatenate([_open_piece(piece, job, each)[0] for piece in sampled])
    table = PropertyTable.fit(job.settings.property_names, job.settings.fingerprint_bits, sample_NP)
    (job.folder / PROPERTIES).write_text(table.dumps(), encoding="utf-8")
    return table


def write_records(hash_range: HashRange, job: Job, pieces: Sequence[ShardPiece]) -> None:
    """Writes the records of the shards of a hash range: a byte for each property, then the bits of the fingerprint."""
    table = _table(job)
    files: dict[str, dict[str, Any]] = {}
    for _, shard, _ in shards_of_range(hash_range.number, job):
        with tempfile.TemporaryDirectory(dir=job.folder / "records") as staging:  # see `merge`
            path = Path(staging) / f"{shard}{RECORDS}"
            with path.open("wb") as file:
                for piece in pieces:
                    if piece.shard == shard:
                        values_NP, packed = _open_piece(piece, job)
                        np.concatenate([table.encode(values_NP), packed], axis=1).tofile(file)
            fsync(path)
            files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
            path.replace(job.folder / FINISHED / path.name)
    job.save("records", hash_range.number, {"files": files})


@functools.lru_cache(maxsize=1)
def _table(job: Job) -> PropertyTable:
    path = job.folder / PROPERTIES
    return PropertyTable.loads(path.read_text(encoding="utf-8"), str(path))
