"""One training run, from a composed config to a `.nemo` file."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
from nemo.utils.exp_manager import exp_manager
from omegaconf import DictConfig, OmegaConf

from ..config import ModelConfig, from_mapping
from .model import MegatronCMIMModel
from .strategy import MegatronStrategy

__all__ = ["train"]


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
    model_config = from_mapping(ModelConfig, OmegaConf.to_container(cfg.model, resolve=True), "model")
    pl.seed_everything(cfg.seed, verbose=False)
    trainer = pl.Trainer(
        strategy=MegatronStrategy(model_config.parallel),
        logger=False,  # exp_manager brings logger and checkpoints
        enable_checkpointing=False,
        use_distributed_sampler=False,  # the data set gives each rank its part
        **OmegaConf.to_container(cfg.trainer, resolve=True),
    )
    folder = exp_manager(trainer, OmegaConf.to_container(cfg.exp_manager, resolve=True))
    model = MegatronCMIMModel(cfg.model, trainer)
    trainer.fit(model)
    return Path(folder)
