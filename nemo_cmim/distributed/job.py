"""What every task of one run is given, and where tasks leave their results.

    FOLDER/part-00000-JOB.parquet           parts
    FOLDER/manifest.json                    written when all parts are complete
    FOLDER/_unfinished/job.json             what the run is
    FOLDER/_unfinished/JOB/inputs/0.json    how an input is cut into parts; for a compressed input also a decompressed copy
    FOLDER/_unfinished/JOB/parts/0.json     counts and checksum of a part, written after it

JOB is a hash of job.json, so that a late task of another run cannot replace a file of this one. A part counts as soon as its .json file
exists. `_unfinished` is removed when the manifest is complete.
"""

from __future__ import annotations

import functools
import socket
import threading
from typing import Any, NamedTuple

from ..errors import CheckpointError, ConfigError, DataError
from ..inference.embedding import EmbeddingModel
from ..inference.engines import TORCH
from ..inference.shipped import load
from ..prepare.cluster import version_of
from ..version import __version__
from .folder import Folder

__all__ = ["JOB", "UNFINISHED", "Embedding", "Job", "model_of", "versions"]

UNFINISHED = "_unfinished"
JOB = f"{UNFINISHED}/job.json"
_PACKAGES = ("rdkit", "numpy", "pyarrow")  # their versions, and that of the engine, may change the parts

_loading = threading.Lock()


def versions(engine: str) -> tuple[tuple[str, str], ...]:
    """Versions of the packages that the parts depend on."""
    packages = (*_PACKAGES, "torch" if engine == TORCH else "onnxruntime")
    return (("nemo_cmim", __version__), *((name, version_of(name)) for name in packages))


class Embedding(NamedTuple):
    """What is computed.

    Attributes:
        model: Name or path of the model, which every worker can load.
        loading: Further arguments of `load`: `device`, `precision` and `engine`.
        fingerprint: Fingerprint of the embedding.
        kind: "informative" or "mean".
        layers: See `CMIMModel.embed`.
        standardise: See `CMIMModel.embed`.
        batch_size: See `CMIMModel.embed`.
        width: Length of a vector.
        stored: Type of the numbers in the files, one of `tables.vectors.STORED`.
        versions: See `versions`.
    """

    model: str
    loading: tuple[tuple[str, Any], ...]
    fingerprint: str
    kind: str
    layers: tuple[int, ...] | None
    standardise: tuple[str, ...]
    batch_size: int | None
    width: int
    stored: str
    versions: tuple[tuple[str, str], ...]

    def described(self) -> dict[str, Any]:
        """What readers of the parts must know."""
        fields = ("model", "fingerprint", "kind", "layers", "standardise", "width", "stored")
        loading = {name: value for name, value in self.loading if name != "device"}
        return {**loading, **{name: getattr(self, name) for name in fields}}


class Job(NamedTuple):
    """One run.

    Attributes:
        folder: The output.
        name: Hash of everything that the parts depend on.
        embedding: What is computed.
        on_invalid: "raise" or "nan".
    """

    folder: Folder
    name: str
    embedding: Embedding
    on_invalid: str

    def entry(self, stage: str, number: int, suffix: str = "json") -> str:
        """A file that a task writes. Its .json file is written last, so the task is done if that file exists."""
        return f"{UNFINISHED}/{self.name}/{stage}/{number:06d}.{suffix}"

    def entries(self, stage: str) -> dict[int, Any]:
        """What the tasks of a stage have saved."""
        return {int(number): content for number, content in self.folder.read_all(f"{UNFINISHED}/{self.name}/{stage}").items()}

    def part(self, number: int) -> str:
        """Name of a Parquet file."""
        return f"part-{number:05d}-{self.name[:8]}.parquet"

    def check_is_current(self) -> None:
        """Checks that the folder is still that of this run, before a file is added.

        Raises:
            DataError: If a later run with other settings has taken it.
        """
        if (self.folder.read(JOB) or {}).get("job") != self.name:
            raise DataError(f"{self.folder} was taken by another run, or removed. Nothing more is written.")


def model_of(embedding: Embedding) -> EmbeddingModel:
    """The model, which is loaded once in each process.

    Raises:
        ConfigError: If this process has other versions of the packages.
        CheckpointError: If the model cannot be loaded, or its embedding has another fingerprint.
    """
    with _loading:  # a worker may have several threads
        return _load(embedding)


@functools.lru_cache(maxsize=1)
def _load(embedding: Embedding) -> EmbeddingModel:
    here = f"The worker on {socket.gethostname()}"
    loading = dict(embedding.loading)
    if (found := versions(loading["engine"])) != embedding.versions:
        different = [f"{name} {one}, not {other}" for (name, one), (_, other) in zip(found, embedding.versions) if one != other]
        raise ConfigError(f"{here} has {', '.join(different)}. Install the same versions everywhere.")
    try:
        model: EmbeddingModel = load(embedding.model, **loading)
    except (CheckpointError, ConfigError) as error:
        raise type(error)(f"{here} cannot load the model: {error}") from error
    if (fingerprint := model.fingerprint(embedding.kind, embedding.layers)) != embedding.fingerprint:
        raise CheckpointError(
            f"{here} has another model as {embedding.model}: the fingerprint of its embedding is {fingerprint[:12]}, not "
            f"{embedding.fingerprint[:12]}. Copy the same file to all workers."
        )
    model.use_device_of(_worker_number())
    return model


def _worker_number() -> int:
    """Number of this process among the workers of this machine; 0 on a cluster, where each worker is given its GPU when it is started."""
    import distributed

    try:
        name = distributed.get_worker().name
    except ValueError:  # not a worker
        return 0
    return name if isinstance(name, int) else 0
