"""A run that starts from the weights of an existing model: `model.restore_from_path`."""

from __future__ import annotations

import warnings

from ..errors import CheckpointError, ConfigError
from ..inference.model_file import ModelFile
from ..inference.shipped import model_file_of
from ..mappings import to_mapping
from .checkpoints.export import load_plain, to_plain
from .model import MegatronCMIMModel

__all__ = ["start_from"]

_MAY_DIFFER = {"heads", "dropout", "init_std", "min_variance"}  # settings of the network that its other weights do not depend on
_HEADS = "heads."  # prefix of their weights


def start_from(place: str, model: MegatronCMIMModel) -> None:
    """Replaces the initial weights of a model. All tensor-parallel ranks must call it.

    Heads for observed properties are replaced only if both models have the same heads. Otherwise those of `model` keep their initial
    weights, and a warning says so.

    Args:
        place: A `.nemo` file, the name of a shipped model, or a file on the Hugging Face Hub; see `nemo_cmim.load`.
        model: The model to train.

    Raises:
        CheckpointError: If there is no such model, or if the file is damaged.
        ConfigError: If the network or the vocabulary differs from that of `model`.
    """
    setting = f"model.restore_from_path={place}"
    try:
        source = model_file_of(place)
    except CheckpointError as error:
        raise CheckpointError(f"{setting}: {error} `nemo-cmim export RUN -o FILE.nemo` writes the .nemo file of a run.") from error
    _check_same_vocabulary(setting, source, model)
    _check_same_network(setting, source, model)
    weights = dict(source.weights)
    if source.config.network.heads != model.model_config.network.heads:
        own = to_plain(model.network)
        if left_out := [name for name in weights if name.startswith(_HEADS)]:
            use = "start with random weights" if any(name.startswith(_HEADS) for name in own) else "are left out"
            warnings.warn(
                f"{setting} has heads for other observed properties than this run ({', '.join(left_out)}). The heads {use}.",
                stacklevel=2,
            )
        weights = {name: weight for name, weight in weights.items() if not name.startswith(_HEADS)}
        weights |= {name: weight for name, weight in own.items() if name.startswith(_HEADS)}
    load_plain(model.network, weights)


def _check_same_vocabulary(setting: str, source: ModelFile, model: MegatronCMIMModel) -> None:
    other, own = source.vocabulary.fingerprint, model.tokenizer.vocabulary.fingerprint
    if other != own:
        raise ConfigError(
            f"{setting} has the vocabulary {other[:12]}, but the training data have the vocabulary {own[:12]}. Prepare the data with the "
            "vocabulary of that model: nemo-cmim prepare --vocabulary vocabulary.txt. The file is in the .nemo file, which is a tar "
            "archive. (Shipped models have the vocabulary of the package: leave --vocabulary out.)"
        )


def _check_same_network(setting: str, source: ModelFile, model: MegatronCMIMModel) -> None:
    other, own = to_mapping(source.config.network), to_mapping(model.model_config.network)
    differ = [key for key in own if key not in _MAY_DIFFER and other[key] != own[key]]
    if differ:
        found = ", ".join(f"{key} {other[key]} (this run: {own[key]})" for key in differ)
        raise ConfigError(
            f"{setting} has a different network: {found}. Set {' '.join(f'model.network.{key}={other[key]}' for key in differ)}."
        )
