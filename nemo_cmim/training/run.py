"""One training run, from overrides to a `.nemo` file."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import lightning.pytorch as pl
from hydra.errors import HydraException
from nemo.utils.exp_manager import exp_manager
from omegaconf import DictConfig, OmegaConf

from ..config import ModelConfig, check_keys, from_mapping
from ..errors import ConfigError
from ..losses import build_objective
from .model import MegatronCMIMModel, check_views
from .strategy import MegatronStrategy

__all__ = ["compose", "model_settings", "train"]


def config_folder() -> Path:
    """Where the YAML files are: beside the package in a checkout, inside it when installed from a wheel."""
    package = Path(__file__).resolve().parents[1]
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def compose(overrides: Sequence[str], config_name: str = "pretrain") -> DictConfig:
    """Composes a training config as Hydra's command line does.

    Args:
        overrides: Such as `["model=tiny", "trainer.max_steps=100"]`.
        config_name: A file of `conf/`, without suffix.

    Raises:
        ConfigError: An override that Hydra refuses, or an unknown config name.
    """
    try:
        with hydra.initialize_config_dir(str(config_folder()), version_base=None):
            return hydra.compose(config_name, list(overrides))
    except HydraException as error:
        raise ConfigError(str(error)) from error


def _checked(cfg: DictConfig) -> dict[str, Any]:
    """Refuses what the parts below `model:` would not notice; returns the trainer's settings."""
    check_keys(cfg, ("name", "seed", "model", "trainer", "exp_manager"), "")
    check_keys(cfg.trainer, inspect.signature(pl.Trainer).parameters, "trainer.")
    if OmegaConf.is_missing(cfg.model.train_ds, "folder"):
        raise ConfigError(
            "model.train_ds.folder is not set. Name the folder that `nemo-cmim prepare` wrote: model.train_ds.folder=data."
        )
    settings = OmegaConf.to_container(cfg.trainer, resolve=True)
    if str(settings.get("precision", 32)) not in ("32", "32-true"):
        raise ConfigError(
            f"trainer.precision is {settings['precision']!r}, but training runs in fp32 in this version. Set it to 32."
        )
    interval = settings.get("val_check_interval")
    if isinstance(interval, int):  # a short run validates at its end
        micro_batches = settings["max_steps"] * settings.get("accumulate_grad_batches", 1)
        settings["val_check_interval"] = min(interval, max(micro_batches, 1))
    return settings


def model_settings(cfg: DictConfig) -> ModelConfig:
    """Everything under `model:`, checked to fit together without building a network.

    Raises:
        ConfigError: An unknown or impossible setting, or a network that the objective cannot train.
    """
    config = from_mapping(ModelConfig, OmegaConf.to_container(cfg.model, resolve=True), "model")
    check_views(build_objective(config.objective, config.network), config)
    return config


def train(cfg: DictConfig) -> Path:
    """Trains as `conf/pretrain.yaml` says.

    Args:
        cfg: Composed config with the parts `model`, `trainer`, `exp_manager`, and `seed`.

    Returns:
        The run's folder: TensorBoard events, `checkpoints/` and in it the final `.nemo`.

    Raises:
        ConfigError: An unknown or impossible setting under `model:`.
        DataError: The data folder cannot be used.
    """
    trainer_settings = _checked(cfg)
    model_config = model_settings(cfg)
    pl.seed_everything(cfg.seed, verbose=False)
    trainer = pl.Trainer(
        strategy=MegatronStrategy(model_config.parallel),
        logger=False,  # exp_manager brings logger and checkpoints
        enable_checkpointing=False,
        use_distributed_sampler=False,  # the data set gives each rank its part
        **trainer_settings,
    )
    folder = exp_manager(trainer, OmegaConf.to_container(cfg.exp_manager, resolve=True))
    model = MegatronCMIMModel(cfg.model, trainer)
    trainer.fit(model)
    return Path(folder)
