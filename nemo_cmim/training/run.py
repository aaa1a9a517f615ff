"""One training run, from overrides to a `.nemo` file."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import lightning.pytorch as pl
from hydra.errors import HydraException
from megatron.core import parallel_state
from nemo.utils.exp_manager import exp_manager
from omegaconf import DictConfig, OmegaConf

from ..config import ModelConfig, check_keys, from_mapping
from ..errors import ConfigError
from ..losses import build_objective
from .checkpoints.callback import CheckpointConfig, Checkpointing
from .checkpoints.run_folder import RunFolder, claim_run_folder
from .checkpoints.writer import CheckpointWriter
from .model import MegatronCMIMModel, check_views
from .observe import Observation, StepClock
from .precision import parse_precision
from .strategy import MegatronStrategy

__all__ = ["accumulation_of", "compose", "model_settings", "train"]

_OURS = {
    "strategy",
    "logger",
    "enable_checkpointing",
    "use_distributed_sampler",
    "plugins",
}  # arguments of Trainer that `train` sets


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


def _checked(cfg: DictConfig) -> tuple[dict[str, Any], dict[str, Any], CheckpointConfig]:
    """Refuses what the parts below `model:` would not notice; returns the settings of trainer, exp_manager and checkpoints."""
    check_keys(cfg, ("name", "seed", "model", "trainer", "exp_manager"), "")
    check_keys(cfg.trainer, inspect.signature(pl.Trainer).parameters, "trainer.")
    for key in _OURS & set(cfg.trainer):
        raise ConfigError(f"trainer.{key} is set by nemo_cmim itself: leave it out.")
    if not cfg.exp_manager.get("create_checkpoint_callback", True):
        raise ConfigError("exp_manager.create_checkpoint_callback=false is not offered: a run without checkpoints cannot go on.")
    if OmegaConf.is_missing(cfg.model.train_ds, "folder"):
        raise ConfigError(
            "model.train_ds.folder is not set. Name the folder that `nemo-cmim prepare` wrote: model.train_ds.folder=data."
        )
    manager = OmegaConf.to_container(cfg.exp_manager, resolve=True)
    params = manager.pop("checkpoint_callback_params", None) or {}
    return (
        OmegaConf.to_container(cfg.trainer, resolve=True),
        manager,
        from_mapping(CheckpointConfig, params, "exp_manager.checkpoint_callback_params"),
    )


def model_settings(cfg: DictConfig) -> ModelConfig:
    """Everything under `model:`, checked to fit together without building a network.

    Raises:
        ConfigError: An unknown or impossible setting, or a network that the objective cannot train.
    """
    config = from_mapping(ModelConfig, OmegaConf.to_container(cfg.model, resolve=True), "model")
    check_views(build_objective(config.objective, config.network), config)
    return config


def train(cfg: DictConfig) -> Path:
    """Trains as `conf/pretrain.yaml` says. Each process that a launcher has started calls it.

    Args:
        cfg: Composed config with the parts `model`, `trainer`, `exp_manager`, and `seed`.

    Returns:
        The run's folder: TensorBoard events, `metrics/steps.jsonl`, `checkpoints/` and in it the final `.nemo`.

    Raises:
        ConfigError: An unknown or impossible setting, or a folder that cannot be used.
        DataError: The data folder cannot be used.
        CheckpointError: There is nothing sound to go on from, or a checkpoint could not be written.
        DivergenceError: The loss is not finite or has risen too far.
        Preempted: A signal asked to end; all is saved.
    """
    trainer_settings, manager_settings, checkpoint_config = _checked(cfg)
    model_config = model_settings(cfg)
    dtype = parse_precision(trainer_settings.pop("precision", 32))
    writer = CheckpointWriter(in_background=checkpoint_config.async_save)
    strategy = MegatronStrategy(model_config.parallel, dtype, writer)
    pl.seed_everything(cfg.seed, verbose=False)
    trainer = pl.Trainer(
        strategy=strategy,
        logger=False,  # exp_manager brings it
        enable_checkpointing=False,  # `Checkpointing` does it
        use_distributed_sampler=False,  # the loader gives each rank its part
        **trainer_settings,
    )
    strategy.setup_distributed()
    ranks = parallel_state.get_data_parallel_world_size()
    trainer.accumulate_grad_batches = accumulation_of(model_config, ranks, trainer.accumulate_grad_batches)
    _count_intervals_in_steps(trainer)
    with claim_run_folder(manager_settings) as run:
        _manage(trainer, manager_settings, run)
        clock = StepClock()
        name = manager_settings.get("name") or "default"
        checkpointing = Checkpointing(checkpoint_config, writer, run, name)
        trainer.callbacks += [Observation(clock, run.path / "metrics" / "steps.jsonl"), checkpointing]
        model = MegatronCMIMModel(cfg.model, trainer, clock=clock)
        trainer.fit(model, ckpt_path=run.resume_from)
        checkpointing.finish(trainer)
    return run.path


def accumulation_of(config: ModelConfig, ranks: int, asked: int) -> int:
    """Micro-batches of a rank in an optimiser step.

    Args:
        config: With `train_ds.batch_size`, the micro-batch, and `global_batch_size`.
        ranks: Data-parallel ranks.
        asked: `trainer.accumulate_grad_batches`; 1 leaves the choice.

    Raises:
        ConfigError: The numbers do not multiply to the global batch.
    """
    if config.train_ds is None:
        raise ConfigError("model.train_ds is null. Set model.train_ds.folder to the folder that `nemo-cmim prepare` wrote.")
    micro, whole = config.train_ds.batch_size, config.global_batch_size
    if whole is None:
        return asked
    accumulation = whole // (micro * ranks)
    if whole % (micro * ranks) or asked not in (1, accumulation):
        turns = f" x trainer.accumulate_grad_batches {asked}" if asked != 1 else " x accumulation"
        near = micro * ranks * (max(1, accumulation) if asked == 1 else asked)
        raise ConfigError(
            f"model.global_batch_size ({whole}) must be model.train_ds.batch_size {micro} x {ranks} data-parallel ranks{turns} = "
            f"{micro * ranks * asked}{' x accumulation' if asked == 1 else ''}; {near} would do."
        )
    return accumulation


def _count_intervals_in_steps(trainer: pl.Trainer) -> None:
    """Lightning counts `val_check_interval` in micro-batches; here it is in optimiser steps, and a short run validates at its end."""
    interval = trainer.val_check_interval
    if isinstance(interval, int):
        trainer.val_check_interval = min(interval, max(trainer.max_steps, 1)) * trainer.accumulate_grad_batches


def _manage(trainer: pl.Trainer, settings: dict[str, Any], run: RunFolder) -> None:
    """Lets NeMo's exp_manager bring loggers and what else it is set to, but for what `training` does itself."""
    own = {"exp_dir", "version", "resume_if_exists", "resume_ignore_no_checkpoint", "resume_from_checkpoint"}
    settings = {key: value for key, value in settings.items() if key not in own}
    ours = {"explicit_log_dir": str(run.path), "create_checkpoint_callback": False, "create_preemption_callback": False}
    try:
        exp_manager(trainer, settings | ours)
    except OSError as error:
        raise ConfigError(f"The run folder {run.path} cannot be written: {error.strerror}.") from error
