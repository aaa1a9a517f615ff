"""The part of a property model's file that holds the predictor: fitted heads, or the weights of fine-tuned networks."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from ..errors import CheckpointError, ConfigError
from .feature_sets import FeatureSet
from .fine_tuning import FineTuner
from .predictor import FeaturePredictor, Predictor
from .safe_heads import invalid_part, other_types

__all__ = ["HEAD", "NETWORK", "TRUSTED", "predictor_members", "read_predictor"]

HEAD, NETWORK = "head.skops", "network.safetensors"
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
    "sklearn.metrics._scorer._PassthroughScorer",
    "sklearn.model_selection._split.KFold",
    "sklearn.model_selection._split.StratifiedKFold",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.utils._bunch.Bunch",
)
"""Types in `head.skops`, besides those that skops trusts itself: scikit-learn's estimators, arrays, numbers, lists. Their content is
checked by `safe_heads`."""


def predictor_members(predictor: Predictor) -> tuple[dict[str, bytes], dict[str, Any] | None]:
    """The members of a fitted predictor, and for fine-tuned networks their settings, which JSON can hold.

    Raises:
        ConfigError: If a head has types that are not in `TRUSTED`, or if it is another kind of predictor.
    """
    if isinstance(predictor, FineTuner):
        arrays, settings = predictor.state()
        return {NETWORK: safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in arrays.items()})}, settings
    if not isinstance(predictor, FeaturePredictor):
        raise ConfigError(f"A {type(predictor).__name__} cannot be saved.")
    import skops.io

    head = skops.io.dumps({"heads": predictor.heads_, "scales": [list(pair) for pair in predictor.scales_]})
    unknown = sorted(set(skops.io.get_untrusted_types(data=head)) - set(TRUSTED)) or other_types(predictor.heads_)
    if unknown:
        raise ConfigError(
            f"The head contains {', '.join(unknown)}, which a file of a property model may not contain. Use a head by its name, or an "
            "estimator of scikit-learn that such files may contain: see docs/properties.md."
        )
    return {HEAD: head}, None


def read_predictor(
    content: Mapping[str, Any],
    members: Mapping[str, bytes],
    features: FeatureSet,
    classes: Sequence[int],
    path: Path,
) -> Predictor:
    """The predictor of a file.

    Args:
        content: The settings of the file.
        members: Its members.
        features: The features, which are those of the fit.
        classes: Number of classes of each target.
        path: The file, for messages.

    Raises:
        CheckpointError: If a member is missing, damaged, contains other types than those of `TRUSTED` or arrays that do not fit together,
            or if a class is not in this version of scikit-learn.
    """
    if content.get("fine_tuned") is not None:
        if NETWORK not in members:
            raise CheckpointError(f"{path} has no {NETWORK}. It is incomplete: copy it again.")
        arrays = safetensors.numpy.load(members[NETWORK])
        return FineTuner.from_state(
            arrays, content["fine_tuned"], features.model, batch_size=features.batch_size, device=features.device
        )
    if HEAD not in members:
        raise CheckpointError(f"{path} has no {HEAD}. It is incomplete: copy it again.")
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    hint = _version_hint(content)
    try:
        head = skops.io.loads(members[HEAD], trusted=list(TRUSTED))
    except (UntrustedTypesFoundException, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path}: {HEAD} is not opened, because it is damaged or contains other types: {error}.{hint}"
        ) from error
    except (ImportError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: {HEAD} cannot be read, because a class is missing or has changed ({error}).{hint}"
        ) from error
    _check_heads(head, path, hint)
    settings, chosen = content["settings"], content["chosen"]
    predictor = FeaturePredictor(features, chosen["head"], settings["task"], classes, chosen["settings"], settings["random_state"])
    predictor.heads_, predictor.scales_ = head["heads"], [tuple(pair) for pair in head["scales"]]
    return predictor


def _version_hint(content: Mapping[str, Any]) -> str:
    """A sentence with the version of scikit-learn that the file was written with, if it is another one or not known."""
    here = version("scikit-learn")
    try:
        written = str(content["card"]["versions"]["scikit-learn"])
    except (LookupError, TypeError):
        return f" This is scikit-learn {here}; if the file was written with another version, install that one, or fit again."
    if written == here:
        return ""
    return f" It was written with scikit-learn {written}, and this is {here}: install the version that it was written with, or fit again."


def _check_heads(head: Any, path: Path, hint: str) -> None:
    """Raises a `CheckpointError` if scikit-learn's compiled code could read outside of arrays of the heads, see `safe_heads`."""
    if others := other_types(head):
        raise CheckpointError(
            f"{path}: {HEAD} contains {', '.join(others)}, which a file of a property model may not contain. Fit again with another "
            f"head.{hint}"
        )
    if part := invalid_part(head):
        raise CheckpointError(f"{path}: {HEAD} contains {part} that is not valid. The file is corrupt or malicious.{hint}")
