"""NeMo's `save_to` and `restore_from` for the model files of this package: safetensors and YAML, at any tensor-parallel size."""

from __future__ import annotations

from typing import Any

import torch
from nemo.core import ModelPT
from nemo.core.connectors.save_restore_connector import SaveRestoreConnector
from omegaconf import DictConfig, OmegaConf

from ...config import ModelConfig
from ...errors import ConfigError
from ...inference.model_file import ModelFile, read_model_file, write_model_file
from ...mappings import from_mapping, to_mapping
from .export import load_plain, to_plain

__all__ = ["CMIMSaveRestoreConnector"]


def _content(model: Any, weights: dict[str, torch.Tensor]) -> ModelFile:
    return ModelFile(model.model_config, model.tokenizer.vocabulary, weights, properties=model.property_table)


class CMIMSaveRestoreConnector(SaveRestoreConnector):
    """Writes and reads the model files of `nemo_cmim.load`: settings, vocabulary and the weights of the plain network, no pickle."""

    def save_to(self, model: ModelPT, save_path: str) -> None:
        """Writes a `MegatronCMIMModel` to a `.nemo` file. All tensor-parallel ranks must call it; rank 0 writes."""
        weights = to_plain(model.network)
        if torch.distributed.get_rank() == 0:
            write_model_file(save_path, _content(model, weights))

    def restore_from(
        self,
        calling_cls: type[ModelPT],
        restore_path: str,
        override_config_path: DictConfig | str | None = None,
        map_location: torch.device | None = None,
        strict: bool = True,
        return_config: bool = False,
        trainer: Any = None,
        validate_access_integrity: bool = True,
    ) -> ModelPT | DictConfig:
        """Builds a `MegatronCMIMModel` from a `.nemo` file. Call `setup_training_data` to give it training data.

        Raises:
            CheckpointError: If the file is damaged, is not a model file, or does not match `override_config_path`.
            ConfigError: If `strict` is False.
        """
        if not strict:
            raise ConfigError("restore_from(strict=False) is not supported: the weights must match the network. Use strict=True.")
        checkpoint = read_model_file(restore_path)
        config = OmegaConf.create(to_mapping(checkpoint.config))
        if override_config_path is not None:
            override = (
                override_config_path if isinstance(override_config_path, DictConfig) else OmegaConf.load(override_config_path)
            )
            config = OmegaConf.create(OmegaConf.to_container(override.get("model", override), resolve=True))
            from_mapping(ModelConfig, OmegaConf.to_container(config), "model")
        if return_config:
            return config
        calling_cls._set_model_restore_state(is_being_restored=True)
        try:
            model = calling_cls(config, trainer, vocabulary=checkpoint.vocabulary, properties=checkpoint.properties)
        finally:
            calling_cls._set_model_restore_state(is_being_restored=False)
        load_plain(model.network, checkpoint.weights)
        return model if map_location is None else model.to(map_location)
