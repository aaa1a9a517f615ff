"""Models that earlier releases shipped: which release has them, by name or by the fingerprint of an embedding.

`python -m tools.remove_model` writes the list when a model is removed.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import NamedTuple

__all__ = ["REMOVED", "RemovedModel", "fingerprint_hint", "name_hint", "removed_models"]

REMOVED = Path(__file__).resolve().parents[1] / "shipped" / "removed.json"


class RemovedModel(NamedTuple):
    """A model that no longer ships.

    Attributes:
        name: Its name.
        release: The last release that has it.
        fingerprints: Of its embeddings of canonical SMILES, with the default layers and pooling, in all precisions.
    """

    name: str
    release: str
    fingerprints: tuple[str, ...]


@functools.cache
def removed_models(file: Path = REMOVED) -> tuple[RemovedModel, ...]:
    """The models of the list, in the order in which they were removed."""
    if not file.exists():
        return ()
    return tuple(RemovedModel(one["name"], one["release"], tuple(one["fingerprints"])) for one in json.loads(file.read_bytes()))


def name_hint(name: str) -> str:
    """A sentence about the release that has the model of this name; empty if no release had one."""
    return next((_hint(one, f"{name} no longer ships") for one in removed_models() if one.name == name), "")


def fingerprint_hint(fingerprint: str) -> str:
    """A sentence about the release whose model gives embeddings with this fingerprint; empty if none is known."""
    found = (one for one in removed_models() if fingerprint in one.fingerprints)
    return next((_hint(one, f"That embedding is of {one.name}, which no longer ships") for one in found), "")


def _hint(model: RemovedModel, what: str) -> str:
    return f" {what}: nemo_cmim {model.release} has it (pip install nemo_cmim=={model.release})."
