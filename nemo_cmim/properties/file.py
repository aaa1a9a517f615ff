"""Files of property models.

A file is a tar archive with checksums, like a `.nemo` file (see `inference.model_archive`), and these members:

* `property.json`: settings, targets, fingerprints of the embeddings, metrics, and the card.
* `head.skops`: the fitted heads, in the format of skops. Only types of a fixed list are made from it.
* `arrays.safetensors`: conformal scores, and the training molecules: SMILES, fingerprints, embeddings.

Nothing is pickled. Reading a file runs no code of the file. The weights of the embeddings are not in the file.
"""

from __future__ import annotations

import itertools
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import safetensors
import safetensors.numpy

from ..errors import CheckpointError, ConfigError
from ..inference.model_archive import MANIFEST, ArchiveLayout, read_members, write_members
from .domain import Domain
from .feature_sets import FeatureSet
from .predictor import FeaturePredictor
from .state import State
from .targets import Targets
from .transforms import TargetTransform

if TYPE_CHECKING:
    from ..inference import CMIMModel

__all__ = ["TRUSTED", "read_state", "write_state"]

_SETTINGS, _HEAD, _ARRAYS = "property.json", "head.skops", "arrays.safetensors"
_LAYOUT = ArchiveLayout(
    "nemo_cmim property model 1",
    "a property model of nemo_cmim",
    {MANIFEST: 2**20, _SETTINGS: 2**24, _HEAD: 2**34, _ARRAYS: 2**34},
    (_SETTINGS, _HEAD, _ARRAYS),
)
TRUSTED = (
    "nemo_cmim.properties.heads.FeatureScaler",
    "nemo_cmim.properties.heads.MLPHead",
    "nemo_cmim.properties.heads._Weights",
    "numpy.clip",
    "numpy.dtype",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
    "sklearn.gaussian_process.kernels.ConstantKernel",
    "sklearn.gaussian_process.kernels.Product",
    "sklearn.gaussian_process.kernels.RBF",
    "sklearn.gaussian_process.kernels.Sum",
    "sklearn.gaussian_process.kernels.WhiteKernel",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
)
"""Types in `head.skops`, besides those that skops trusts itself: scikit-learn's estimators, arrays, numbers, lists."""


def write_state(path: Path, settings: Mapping[str, Any], state: State) -> None:
    """Writes a file atomically.

    Args:
        path: The file.
        settings: Arguments of `PropertyModel` that JSON can hold.
        state: What was learnt.

    Raises:
        ConfigError: If the head has types that are not in `TRUSTED`.
    """
    import skops.io

    if not isinstance(state.predictor, FeaturePredictor):
        raise ConfigError(f"A {type(state.predictor).__name__} cannot be saved.")
    head = skops.io.dumps({"heads": state.predictor.heads_, "scales": [list(pair) for pair in state.predictor.scales_]})
    unknown = sorted(set(skops.io.get_untrusted_types(data=head)) - set(TRUSTED))
    if unknown:
        raise ConfigError(
            f"The head contains {', '.join(unknown)}, which a file of a property model may not contain. Use a head by its name, or an "
            "estimator of scikit-learn that skops trusts."
        )
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
    }
    members = {
        _SETTINGS: json.dumps(content, indent=1).encode(),
        _HEAD: head,
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
            "model=FILE."
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
                "that it was fitted on, or fit again."
            )


def _state(
    content: Mapping[str, Any], members: Mapping[str, bytes], features: FeatureSet, settings: Mapping[str, Any], path: Path
) -> State:
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    arrays = safetensors.numpy.load(members[_ARRAYS])
    targets = content["targets"]
    classes = tuple(np.array(labels) for labels in targets["classes"])
    try:
        head = skops.io.loads(members[_HEAD], trusted=list(TRUSTED))
    except (UntrustedTypesFoundException, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: {_HEAD} is not opened, because it is damaged or contains other types: {error}.") from error
    _check_trees(head["heads"], path)
    chosen = content["chosen"]
    predictor = FeaturePredictor(
        features,
        chosen["head"],
        settings["task"],
        [len(labels) for labels in classes],
        chosen["settings"],
        settings["random_state"],
    )
    predictor.heads_, predictor.scales_ = head["heads"], [tuple(pair) for pair in head["scales"]]
    return State(
        targets=Targets(tuple(targets["names"]), np.empty((0, len(targets["names"]))), classes, targets["one_column"]),
        transform=TargetTransform(settings["target_transform"], arrays.get("quantiles")),
        predictor=predictor,
        features=features,
        fingerprints=content["embeddings"],
        columns=features.columns(),
        scores=[arrays[f"scores_{number}"] for number in range(len(targets["names"]))],
        domain=Domain.from_arrays(arrays),
        metrics=pd.DataFrame(content["metrics"]),
        chosen=chosen,
        card=content["card"],
    )


def _check_trees(heads: Sequence[Any], path: Path) -> None:
    """Raises a `CheckpointError` if a tree of gradient boosting points out of its arrays, which scikit-learn does not check."""
    for head in heads:
        boosting = head
        while hasattr(boosting, "steps"):
            boosting = boosting.steps[-1][1]
        for tree in itertools.chain.from_iterable(getattr(boosting, "_predictors", ())):
            nodes = tree.nodes
            inner = np.flatnonzero(nodes["is_leaf"] == 0)
            children = np.stack([nodes["left"][inner], nodes["right"][inner]]).astype(np.int64)
            right = (children > inner).all() and (children < len(nodes)).all() and not nodes["is_categorical"][inner].any()
            columns = nodes["feature_idx"][inner]
            if not len(nodes) or not right or not ((columns >= 0) & (columns < boosting.n_features_in_)).all():
                raise CheckpointError(f"{path}: {_HEAD} contains a tree that is not valid. The file is corrupt or malicious.")
