"""A training run, from Hydra overrides to a `.nemo` file."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from megatron.core import parallel_state
from nemo.utils.exp_manager import ExpManagerConfig, exp_manager
from omegaconf import DictConfig, OmegaConf

from ..config import ModelConfig
from ..errors import ConfigError
from ..losses import build_objective
from ..mappings import check, check_keys, from_mapping
from .checkpoints.callback import CheckpointConfig, Checkpointing
from .checkpoints.run_folder import RunFolder, claim_run_folder
from .checkpoints.writer import CheckpointWriter
from .initial_weights import start_from
from .model import MegatronCMIMModel, check_views
from .observe import Observation, StepClock
from .overrides import compose_in
from .precision import parse_precision, set_matmul_precision
from .strategy import MegatronStrategy

__all__ = ["KEYS", "check_settings", "compose", "config_folder", "model_settings", "train"]

KEYS = ("name", "seed", "model", "trainer", "exp_manager")
"""The keys at the top level of conf/pretrain.yaml."""

_SET_HERE = {"strategy", "logger", "enable_checkpointing", "use_distributed_sampler", "plugins"}  # arguments of Trainer


def config_folder() -> Path:
    """The folder of the YAML files: next to the package in a checkout, inside the package if it was installed from a wheel."""
    package = Path(__file__).resolve().parents[1]
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def compose(overrides: Sequence[str], config_name: str = "pretrain") -> DictConfig:
    """Composes a training config as Hydra does on the command line.

    Args:
        overrides: Hydra overrides, such as `["model=tiny", "trainer.max_steps=100"]`. A value that Hydra cannot parse is quoted. Keys
            are not checked here, but by `check_settings` and `train`.
        config_name: Name of a file in `conf/`, without suffix.

    Raises:
        ConfigError: If Hydra cannot apply an override, or if the config name is unknown.
    """
    return compose_in(config_folder(), config_name, overrides)


def check_settings(cfg: DictConfig) -> ModelConfig:
    """Checks all settings of a run that can be checked before it starts. Returns those under `model:`.

    Raises:
        ConfigError: If a setting is unknown or out of range, or if the objective cannot train the network.
    """
    _checked(cfg)
    return model_settings(cfg)


def _checked(cfg: DictConfig) -> tuple[dict[str, Any], dict[str, Any], CheckpointConfig]:
    """Checks the settings that are not under `model:`. Returns those of the trainer, exp_manager and checkpoints."""
    check_keys(cfg, KEYS, "")
    for section in ("model", "trainer", "exp_manager"):
        check(
            OmegaConf.is_dict(cfg[section]),
            f"{section} must be a mapping, found {cfg[section]!r}. Set its keys: {section}.KEY=VALUE.",
        )
    check_keys(cfg.trainer, inspect.signature(pl.Trainer).parameters, "trainer.")
    check_keys(cfg.exp_manager, [field.name for field in dataclasses.fields(ExpManagerConfig)], "exp_manager.")
    for key in _SET_HERE & set(cfg.trainer):
        raise ConfigError(f"trainer.{key} is set by nemo_cmim. Remove trainer.{key}.")
    if not cfg.exp_manager.get("create_checkpoint_callback", True):
        raise ConfigError(
            "exp_manager.create_checkpoint_callback=false is not supported: a run without checkpoints cannot be resumed. Remove it."
        )
    if cfg.model.get("train_ds") is None or OmegaConf.is_missing(cfg.model.train_ds, "folder"):
        raise ConfigError(
            "model.train_ds.folder is not set. Set it to a folder that `nemo-cmim prepare` wrote: model.train_ds.folder=FOLDER."
        )
    manager = OmegaConf.to_container(cfg.exp_manager, resolve=True)
    params = manager.pop("checkpoint_callback_params", None) or {}
    return (
        OmegaConf.to_container(cfg.trainer, resolve=True),
        manager,
        from_mapping(CheckpointConfig, params, "exp_manager.checkpoint_callback_params"),
    )


def model_settings(cfg: DictConfig) -> ModelConfig:
    """The settings under `model:`. They are checked without building a network.

    Raises:
        ConfigError: If a setting is unknown or out of range, or if the objective cannot train the network.
    """
    config = from_mapping(ModelConfig, OmegaConf.to_container(cfg.model, resolve=True), "model")
    check_views(build_objective(config.objective, config.network), config)
    return config


def train(cfg: DictConfig) -> Path:
    """Trains with the settings of `conf/pretrain.yaml`. Every process that a launcher has started must call it.

    Args:
        cfg: Composed config with `model`, `trainer`, `exp_manager` and `seed`.

    Returns:
        The folder of the run with TensorBoard events, `metrics/steps.jsonl`, and `checkpoints/`, which contains the final `.nemo`.

    Raises:
        ConfigError: If a setting is unknown or out of range, or if the folder of the run cannot be used.
        DataError: If the token store cannot be used.
        CheckpointError: If there is no valid checkpoint to resume from, if a checkpoint could not be written, or if
            `model.restore_from_path` cannot be read.
        DivergenceError: If the loss or a gradient is not finite, or if the loss has risen too far.
        Preempted: If a signal has ended the run. The last step is saved.
    """
    trainer_settings, manager_settings, checkpoint_config = _checked(cfg)
    model_config = model_settings(cfg)
    precision = trainer_settings.pop("precision", 32)
    dtype = parse_precision(precision)
    set_matmul_precision(precision)
    writer = CheckpointWriter(in_background=checkpoint_config.async_save)
    strategy = MegatronStrategy(model_config.parallel, dtype, writer)
    pl.seed_everything(cfg.seed, verbose=False)
    trainer = pl.Trainer(
        strategy=strategy,
        logger=False,  # exp_manager adds loggers
        enable_checkpointing=False,  # `Checkpointing` saves
        use_distributed_sampler=False,  # the loader distributes molecules over ranks
        **trainer_settings,
    )
    strategy.setup_distributed()
    ranks = parallel_state.get_data_parallel_world_size()
    trainer.accumulate_grad_batches = _accumulation(model_config, ranks, trainer.accumulate_grad_batches)
    _count_intervals_in_steps(trainer)
    with claim_run_folder(manager_settings) as run:
        _manage(trainer, manager_settings, run)
        clock = StepClock()
        name = manager_settings.get("name") or "default"
        checkpointing = Checkpointing(checkpoint_config, writer, run, name)
        trainer.callbacks += [Observation(clock, run.path / "metrics" / "steps.jsonl"), checkpointing]
        model = MegatronCMIMModel(cfg.model, trainer, clock=clock)
        if model_config.restore_from_path is not None and run.resume_from is None:
            start_from(model_config.restore_from_path, model)
        trainer.fit(model, ckpt_path=run.resume_from)
        checkpointing.finish(trainer)
    return run.path


def _accumulation(config: ModelConfig, ranks: int, requested: int) -> int:
    """Micro-batches of a rank in a step.

    Args:
        config: `train_ds.batch_size` is the micro-batch, `global_batch_size` the number of molecules in a step.
        ranks: Number of data-parallel ranks.
        requested: `trainer.accumulate_grad_batches`; 1 leaves the choice to this function.

    Raises:
        ConfigError: If the global batch is not the product of the other numbers.
    """
    if config.train_ds is None or config.global_batch_size is None:
        return requested
    micro_batch, global_batch = config.train_ds.batch_size, config.global_batch_size
    accumulation = global_batch // (micro_batch * ranks)
    if global_batch % (micro_batch * ranks) or requested not in (1, accumulation):
        turns = f" x trainer.accumulate_grad_batches {requested}" if requested != 1 else " x accumulation"
        near = micro_batch * ranks * (max(1, accumulation) if requested == 1 else requested)
        raise ConfigError(
            f"model.global_batch_size ({global_batch}) must be model.train_ds.batch_size {micro_batch} x {ranks} data-parallel ranks"
            f"{turns} = {micro_batch * ranks * requested}{' x accumulation' if requested == 1 else ''}, for example {near}."
        )
    return accumulation


def _count_intervals_in_steps(trainer: pl.Trainer) -> None:
    """Converts `val_check_interval` from steps to micro-batches, Lightning's unit. A run shorter than it validates at its end."""
    interval = trainer.val_check_interval
    if isinstance(interval, int):
        trainer.val_check_interval = min(interval, max(trainer.max_steps, 1)) * trainer.accumulate_grad_batches


def _manage(trainer: pl.Trainer, settings: dict[str, Any], run: RunFolder) -> None:
    """Runs NeMo's exp_manager, which adds loggers. Folders, checkpoints and preemption are handled by this package."""
    handled = {"exp_dir", "version", "resume_if_exists", "resume_ignore_no_checkpoint", "resume_from_checkpoint"}
    settings = {key: value for key, value in settings.items() if key not in handled}
    settings |= {"explicit_log_dir": str(run.path), "create_checkpoint_callback": False, "create_preemption_callback": False}
    try:
        exp_manager(trainer, settings)
    except OSError as error:
        raise ConfigError(f"The run folder {run.path} cannot be written: {error.strerror}.") from error
