"""Files of property models.

A file is a tar archive with checksums, like a `.nemo` file (see `inference.model_archive`), and these members:

* `property.json`: settings, targets, fingerprints of the embeddings, metrics, and the card.
* `head.skops`: the fitted heads, in the format of skops. Only types of a fixed list are made from it (`predictor_file.TRUSTED`).
* `network.safetensors`, in place of heads: the weights of fine-tuned networks that differ from those of the embeddings.
* `arrays.safetensors`: conformal scores, and the training molecules: SMILES, fingerprints, embeddings.

Nothing is pickled. Reading a file runs no code of the file. The weights of the embeddings are not in the file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import safetensors
import safetensors.numpy

from ..errors import CheckpointError
from ..inference.model_archive import MANIFEST, ArchiveLayout, read_members, write_members
from ..inference.removed import fingerprint_hint, name_hint
from .domain import Domain
from .feature_sets import FeatureSet
from .predictor_file import HEAD, NETWORK, predictor_members, read_predictor
from .state import State
from .targets import Targets
from .transforms import TargetTransform

if TYPE_CHECKING:
    from ..inference import CMIMModel

__all__ = ["read_state", "write_state"]

_SETTINGS, _ARRAYS = "property.json", "arrays.safetensors"
_LAYOUT = ArchiveLayout(
    "nemo_cmim property model 1",
    "a property model of nemo_cmim",
    {MANIFEST: 2**20, _SETTINGS: 2**24, HEAD: 2**34, NETWORK: 2**36, _ARRAYS: 2**34},
    (_SETTINGS, _ARRAYS),
)


def write_state(path: Path, settings: Mapping[str, Any], state: State) -> None:
    """Writes a file atomically.

    Args:
        path: The file.
        settings: Arguments of `PropertyModel` that JSON can hold.
        state: What was learnt.

    Raises:
        ConfigError: If the head has types that are not in `TRUSTED`.
    """
    of_predictor, fine_tuned = predictor_members(state.predictor)
    arrays = {f"scores_{number}": scores for number, scores in enumerate(state.scores)} | state.domain.arrays()
    if state.transform.values_QT is not None:
        arrays["quantiles"] = state.transform.values_QT
    content = {
        "settings": dict(settings),
        "targets": {
            "names": list(state.targets.names),
            "one_column": state.targets.one_column,
            "classes": [labels.tolist() for labels in state.targets.classes],
        },
        "embeddings": state.fingerprints,
        "columns": state.columns,
        "metrics": json.loads(state.metrics.to_json(orient="records", double_precision=15)),
        "chosen": state.chosen if isinstance(state.chosen["head"], str) else {**state.chosen, "head": repr(state.chosen["head"])},
        "card": state.card,
        "fine_tuned": fine_tuned,
    }
    members = {
        _SETTINGS: json.dumps(content, indent=1).encode(),
        **of_predictor,
        _ARRAYS: safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in arrays.items()}),
    }
    write_members(path, members, _LAYOUT)


def read_state(path: Path, model: str | os.PathLike[str] | CMIMModel | None, device: str | None) -> tuple[dict[str, Any], State]:
    """Reads a file.

    Args:
        path: The file.
        model: The model of the embeddings; None: the shipped model of the name in the file.
        device: Its device.

    Returns:
        Arguments of `PropertyModel`, and what was learnt.

    Raises:
        CheckpointError: If the file is missing, damaged, of another kind or version, or contains other types than those of `TRUSTED`; or
            if the embedding is not the one that the model was fitted on.
    """
    if not path.is_file():
        raise CheckpointError(
            f"There is no property model at {path}. Pass a file that PropertyModel.save or `nemo-cmim fit` wrote."
        )
    members = read_members(path, None, _LAYOUT)
    if MANIFEST not in members:
        raise CheckpointError(f"{path} has no {MANIFEST}: it is not {_LAYOUT.noun}.")
    try:
        content = json.loads(members[_SETTINGS])
        settings = content["settings"]
        settings["device"] = device
        if model is not None:
            settings["model"] = model
        features = _features(path, content, settings, device)
        return settings, _state(content, members, features, settings, path)
    except CheckpointError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"{path} is damaged or was changed ({type(error).__name__}: {error}). Save the model again."
        ) from error


def _features(path: Path, content: Mapping[str, Any], settings: Mapping[str, Any], device: str | None) -> FeatureSet:
    """The features, after a check that they are those of the fit."""
    from ..inference.shipped import list_models

    name = settings["model"]
    expected: dict[str, str] = content["embeddings"]
    if expected and isinstance(name, str) and name not in list_models() and not Path(name).exists():
        raise CheckpointError(
            f"{path} was fitted on embeddings of the model {name!r}, which is neither a shipped model nor a file here. Pass its file as "
            f"model=FILE.{name_hint(name)}"
        )
    features = FeatureSet(settings["features"], name, device, settings["batch_size"])
    check_embedding(features, expected, str(path))
    columns = [tuple(pair) for pair in content["columns"]]
    if features.columns() != columns:
        raise CheckpointError(
            f"{path} was fitted on features with the columns {columns}, but they have {features.columns()} here. Install the version of "
            f"RDKit that it was fitted with ({content['card']['versions']['rdkit']}), or fit again."
        )
    return features


def check_embedding(features: FeatureSet, expected: Mapping[str, str], name: str) -> None:
    """Raises a `CheckpointError` unless the embeddings have these fingerprints.

    Args:
        features: The features.
        expected: Fingerprints at the time of the fit.
        name: The property model, for the message.
    """
    for kind, found in features.fingerprints.items():
        if found != expected.get(kind):
            raise CheckpointError(
                f"{name} was fitted on a different embedding: the fingerprint of {kind!r} was {str(expected.get(kind))[:12]}, and is "
                f"{found[:12]} for the model {features.model if isinstance(features.model, str) else 'that was passed'!r}. Pass the model "
                f"that it was fitted on, or fit again.{fingerprint_hint(str(expected.get(kind)))}"
            )


def _state(
    content: Mapping[str, Any], members: Mapping[str, bytes], features: FeatureSet, settings: Mapping[str, Any], path: Path
) -> State:
    arrays = safetensors.numpy.load(members[_ARRAYS])
    targets = content["targets"]
    classes = tuple(np.array(labels) for labels in targets["classes"])
    return State(
        targets=Targets(tuple(targets["names"]), np.empty((0, len(targets["names"]))), classes, targets["one_column"]),
        transform=TargetTransform(settings["target_transform"], arrays.get("quantiles")),
        predictor=read_predictor(content, members, features, [len(labels) for labels in classes], path),
        features=features,
        fingerprints=content["embeddings"],
        columns=features.columns(),
        scores=[arrays[f"scores_{number}"] for number in range(len(targets["names"]))],
        domain=Domain.from_arrays(arrays),
        metrics=pd.DataFrame(content["metrics"]),
        chosen=content["chosen"],
        card=content["card"],
    )
