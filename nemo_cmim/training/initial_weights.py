"""A run that starts from the weights of an existing model: `model.restore_from_path`."""

from __future__ import annotations

from ..errors import ConfigError
from ..inference.shipped import model_file_of
from ..mappings import to_mapping
from .checkpoints.export import load_plain, to_plain
from .checkpoints.format import differing
from .model import MegatronCMIMModel

__all__ = ["start_from"]

_MAY_DIFFER = {"heads", "dropout", "init_std", "min_variance"}  # settings of the network that all other weights do not depend on


def start_from(place: str, model: MegatronCMIMModel) -> None:
    """Replaces the initial weights of a model. All tensor-parallel ranks must call it.

    Heads for observed properties are replaced only if both models have the same heads. Otherwise they keep their initial weights.

    Args:
        place: A `.nemo` file, the name of a shipped model, or another argument of `nemo_cmim.load`.
        model: The model to train.

    Raises:
        CheckpointError: If there is no such model, or if the file is damaged.
        ConfigError: If the network or the vocabulary differs from that of `model`.
    """
    source = model_file_of(place)
    name = f"model.restore_from_path={place}"
    own, other = (to_mapping(config.network) for config in (model.model_config, source.config))
    fixed = [key for key in own if key not in _MAY_DIFFER]
    if differences := differing({key: other[key] for key in fixed}, {key: own[key] for key in fixed}, "model.network."):
        raise ConfigError(
            f"{name} has a different network: {'; '.join(differences)}. Train a network with the settings of that model."
        )
    if (vocabulary := source.vocabulary.fingerprint) != model.tokenizer.vocabulary.fingerprint:
        raise ConfigError(
            f"{name} has the vocabulary {vocabulary[:12]}, but the training data have the vocabulary "
            f"{model.tokenizer.vocabulary.fingerprint[:12]}. Prepare the data with the vocabulary of that model: nemo-cmim prepare "
            "--vocabulary FILE."
        )
    weights = dict(source.weights)
    if other["heads"] != own["heads"]:
        weights = {key: weight for key, weight in weights.items() if not key.startswith("heads.")}
        weights |= {key: weight for key, weight in to_plain(model.network).items() if key.startswith("heads.")}
    load_plain(model.network, weights)
