"""The NeMo model: cMIM and its baselines on Megatron-Core, trained by Lightning. Shape letters as in `types`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from lightning.pytorch import Trainer
from megatron.core import parallel_state
from nemo.core import ModelPT
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from ..config import DataConfig, ModelConfig
from ..errors import ConfigError, DivergenceError
from ..loader.dataset import make_loader, make_validation_loader, open_store
from ..losses import Objective, ObjectiveOutput, build_objective, property_terms
from ..losses.candidates import gather_with_gradient
from ..mappings import from_mapping
from ..mcore.network import MegatronCMIMNetwork
from ..mcore.parallel import initialise, runs_on_gpu
from ..mcore.random import seed_generators
from ..observed import PropertyTable
from ..scaling.flops import Workload, training_flops
from ..store.token_store import TokenStore
from ..tokenizers import SmilesTokenizer, Vocabulary
from ..types import MicroBatch, TokenBatch
from .checkpoints.nemo_file import CMIMSaveRestoreConnector
from .divergence import LossWatch, save_batch
from .forward import NetworkOutput, compute
from .health import latent_health
from .metrics import PER_TOKEN, StepTotals, readable
from .muon import hidden_matrices
from .observe import StepClock, TimedLoader
from .optimisation import nemo_optim_config, use_fused_kernel
from .property_heads import check_table, find_table, with_heads
from .reconstruction import reconstruct
from .state import TrainingState
from .strategy import MegatronStrategy

__all__ = ["MegatronCMIMModel", "check_views"]

_HEALTH_SAMPLE = 2048  # molecules whose posteriors are compared with each other at validation


class MegatronCMIMModel(ModelPT):
    """A Megatron encoder-decoder for training. The default is a Perceiver bottleneck under the cMIM objective (Eq. 9).

    Args:
        cfg: The settings of `config.ModelConfig`, which a training config has under `model:`.
        trainer: Lightning trainer.
        vocabulary: Vocabulary; None reads `cfg.vocabulary` or, if that is null, the vocabulary of the training data. Without training
            data, the shipped vocabulary is used.
        properties: Table of the observed properties that the heads predict; None: that of the training data, if the objective uses them.
        clock: Measures how long training waits for batches.

    Raises:
        ConfigError: If a setting is unknown or out of range, or if the vocabulary size differs from the network's.
    """

    _batch: MicroBatch  # the last micro-batch, or the first one of the step whose loss is not finite

    def __init__(
        self,
        cfg: DictConfig,
        trainer: Trainer | None = None,
        *,
        vocabulary: Vocabulary | None = None,
        properties: PropertyTable | None = None,
        clock: StepClock | None = None,
    ) -> None:
        plain = OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else dict(cfg)
        nemo_keys = {"target", "nemo_version"}  # added by ModelPT
        self.model_config = from_mapping(ModelConfig, {k: v for k, v in plain.items() if k not in nemo_keys}, "model")
        vocabulary = vocabulary or _find_vocabulary(self.model_config)
        if len(vocabulary) != self.model_config.network.vocabulary_size:
            raise ConfigError(
                f"model.network.vocabulary_size is {self.model_config.network.vocabulary_size}, but the vocabulary has "
                f"{len(vocabulary)} tokens. Set model.network.vocabulary_size={len(vocabulary)}, or model.vocabulary to another file."
            )
        self.tokenizer = SmilesTokenizer(vocabulary)
        self.property_table = properties or find_table(self.model_config)
        self.model_config = with_heads(self.model_config, self.property_table)
        strategy = trainer.strategy if trainer else None
        # The loaders of `super().__init__` need the ranks.
        initialise(self.model_config.parallel, device=strategy.root_device.type if strategy else "cpu")
        super().__init__(cfg=OmegaConf.create(plain), trainer=trainer)
        self._save_restore_connector = CMIMSaveRestoreConnector()
        network = self.model_config.network
        self.objective = build_objective(self.model_config.objective, network, group=parallel_state.get_data_parallel_group())
        check_views(self.objective, self.model_config)
        self._dtype = strategy.dtype if isinstance(strategy, MegatronStrategy) else torch.float32
        self.network = MegatronCMIMNetwork(network, self.model_config.parallel, self._dtype)
        self._clock = clock or StepClock()
        self.training_state: TrainingState | None = None  # set by the strategy when training starts
        self.step_totals: dict[str, float] = {}  # averages of the last step over all ranks; see `StepTotals.reduce`
        self._totals = StepTotals(parallel_state.get_data_parallel_group())
        self._loss_watch = LossWatch(self.model_config.stability.divergence_margin)
        self._validation_latents: list[tuple[Tensor, Tensor]] = []
        self._validated = 0

    @classmethod
    def list_available_models(cls) -> list[Any]:
        """Returns an empty list: there are no models on NGC."""
        return []

    @classmethod
    def restore_from(cls, restore_path: str, *args: Any, **kwargs: Any) -> Any:
        """Loads a `.nemo` file of this package; see `CMIMSaveRestoreConnector`."""
        kwargs.setdefault("save_restore_connector", CMIMSaveRestoreConnector())
        return super().restore_from(restore_path, *args, **kwargs)

    # ---- data

    def setup_training_data(self, train_data_config: DictConfig | Mapping[str, Any]) -> None:
        """Reads the settings of the training split and checks its token store. `train_dataloader` makes the loader."""
        self._train_config = _data_config(train_data_config, "model.train_ds")
        self._train_molecules = len(self._open_store(self._train_config))

    def setup_validation_data(self, val_data_config: DictConfig | Mapping[str, Any]) -> None:
        """Makes the loader of the validation split, which reads each molecule once, in a fixed order."""
        config = _data_config(val_data_config, "model.validation_ds")
        store = self._open_store(config)
        rank, ranks = _data_parallel()
        self._validation_dl = make_validation_loader(
            config,
            rank=rank,
            ranks=ranks,
            vocabulary=self.tokenizer.vocabulary,
            max_tokens=self.model_config.network.max_tokens,
            augmentation=self.model_config.augmentation,
            with_properties=self._uses_properties,
            pin_memory=runs_on_gpu(),
        )
        molecules = min(len(store), config.limit or len(store))
        self._health_stride = -(-molecules // _HEALTH_SAMPLE)
        chosen = np.linspace(0, len(store) - 1, min(self.model_config.validation.reconstruct, len(store))).astype(int)
        of_this_rank = chosen[rank::ranks] if len(chosen) >= ranks else chosen
        self._reconstruct_tokens = [store.tokens(int(i)) for i in of_this_rank]

    def _open_store(self, config: DataConfig) -> TokenStore:
        store = open_store(config, self.tokenizer.vocabulary)
        if self._uses_properties:
            check_table(self.property_table, store)
        return store

    @property
    def _uses_properties(self) -> bool:
        return bool(self.model_config.objective.properties.sources)

    def train_dataloader(self) -> TimedLoader:
        """The micro-batches from the current step to the last. The molecules of a step depend only on the seed and the step number."""
        rank, ranks = _data_parallel()
        loader = make_loader(
            self._train_config,
            start_step=self.trainer.global_step,
            steps=self.trainer.max_steps,
            rank=rank,
            ranks=ranks,
            accumulation=self.trainer.accumulate_grad_batches,
            vocabulary=self.tokenizer.vocabulary,
            max_tokens=self.model_config.network.max_tokens,
            augmentation=self.model_config.augmentation,
            with_properties=self._uses_properties,
            pin_memory=runs_on_gpu(),
        )
        return TimedLoader(loader, self._clock)

    @property
    def order(self) -> dict[str, int]:
        """The values that determine the molecules of each step; see `BatchOrder`."""
        config, ranks = self._train_config, _data_parallel()[1]
        parts = ranks * self.trainer.accumulate_grad_batches
        order = {
            "seed": config.seed,
            "molecules": min(config.limit or self._train_molecules, self._train_molecules),
            "global batch": config.batch_size * parts,
            "order version": 2,  # 1: micro-batches of molecules of similar length
        }
        return order if config.shuffle_block == 1 else {**order, "shuffle block": config.shuffle_block, "micro-batches": parts}

    # ---- optimisation

    def setup_optimization(self, optim_config: Any = None, optim_kwargs: dict[str, Any] | None = None) -> Any:
        """Builds optimiser and schedule by NeMo's names. None reads the settings from `cfg.optim`."""
        if optim_config is None:
            optim_config = OmegaConf.create(nemo_optim_config(self.model_config.optim, self.trainer.max_steps))
        made = super().setup_optimization(optim_config, optim_kwargs)
        if runs_on_gpu():
            use_fused_kernel(self._optimizer)
        return made

    def setup_optimizer_param_groups(self) -> None:
        """Chooses the weights that Muon updates as matrices; any other optimiser gets one group. A hook of `ModelPT`."""
        super().setup_optimizer_param_groups()
        if self.model_config.optim.name == "muon":
            matrices = hidden_matrices(self.network)
            is_matrix = set(matrices)
            others = [parameter for parameter in self.parameters() if parameter not in is_matrix]
            matrix_group = {"params": matrices, "is_matrix": True, "in_bf16": self._dtype == torch.bfloat16}
            self._optimizer_param_groups = [matrix_group, {"params": others}]

    # ---- steps

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the state of the loss watch. Random number generators need not be saved: they are seeded for each step."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["loss_watch"] = self._loss_watch.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Loads the state of the loss watch."""
        super().on_load_checkpoint(checkpoint)
        self._loss_watch.load_state_dict(checkpoint["loss_watch"])

    def forward(self, batch: MicroBatch, noise: torch.Generator | None = None) -> tuple[ObjectiveOutput, NetworkOutput]:
        """One pass of Alg. 1: loss and terms, and what the network computed.

        Args:
            batch: Tokens, and observed properties if the objective uses them.
            noise: Generator of the latent noise; None is torch's default generator.
        """
        output = compute(self.network, batch, needs_positive=self.objective.composition.needs_positive, noise=noise)
        log_p_y = None
        if batch.observed is not None:
            predicted = self.network.heads(output.h_BD, output.z_BKD)
            log_p_y = property_terms(predicted, batch.observed, self.model_config.objective.properties.sigma)
        objective = self.objective(output.log_p_x_given_z_B, output.z_BKD, output.posterior, output.positive_BKD, log_p_y)
        return objective, output

    def training_step(self, batch: MicroBatch, batch_idx: int) -> Tensor:
        """Loss of one micro-batch, nats per molecule. Its random numbers depend only on the seed and its position in the run."""
        rank, ranks = _data_parallel()
        micro_batch = batch_idx % self.trainer.accumulate_grad_batches * ranks + rank
        seed_generators(self._train_config.seed, self.trainer.global_step, micro_batch)
        objective, output = self(batch)
        if self._totals.loss_is_finite():  # otherwise, an earlier micro-batch of this step is the cause
            self._batch = batch
        flops = sum(training_flops(self.model_config.network, self._workload(bucket, batch, ranks)) for bucket in batch.buckets)
        self._totals.add(objective.loss, readable(objective.terms, batch, output), batch, flops)
        return objective.loss

    def _workload(self, bucket: TokenBatch, batch: MicroBatch, ranks: int) -> Workload:
        composition, config = self.objective.composition, self.model_config.objective
        compared = batch.molecules * (ranks if config.negatives == "global" else 1) + config.queue
        return Workload(
            molecules=len(bucket.encoder_BS),
            encoder_tokens=bucket.encoder_BS.shape[1],
            decoder_tokens=bucket.decoder_BT.shape[1],
            candidates=compared if composition.is_contrastive else 0,
            encodings=2 if composition.needs_positive else 1,
        )

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Logs the averages over all micro-batches of all ranks.

        Raises:
            ConfigError: If the trainer's strategy is not `MegatronStrategy`.
            DivergenceError: If the loss or a gradient is not finite, or if the loss has risen too far. The batch is saved.
        """
        if self.training_state is None:
            raise ConfigError("MegatronCMIMModel requires MegatronStrategy. Start training with nemo_cmim.training.run.train.")
        own_loss_is_finite = self._totals.loss_is_finite()
        self.step_totals = self._totals.reduce()
        loss, scale = self.step_totals["train_loss"], self.training_state.loss_scale
        norm = float(self.training_state.gradients.norm)
        if not math.isfinite(loss):
            self._stop(f"The loss is {loss}", is_cause=not own_loss_is_finite)
        if not math.isfinite(norm) and not scale.can_fall:
            self._stop("A gradient is not finite", is_cause=True)
        if self._loss_watch.has_diverged(loss):
            watch = self._loss_watch
            self._stop(f"The loss has risen to {watch.smoothed:.1f} nats per molecule from {watch.lowest:.1f}", is_cause=True)
        if (self.trainer.global_step + 1) % self.trainer.log_every_n_steps:
            return  # Lightning needs milliseconds for each value, even if it does not log the value
        self.log("train_loss", loss, prog_bar=True)
        self.log("lr", optimizer.param_groups[0]["lr"])
        self.log_dict({name: value for name, value in self.step_totals.items() if name.startswith("train/")})
        self.log("train/gradient_norm", norm)
        if scale.is_dynamic:
            self.log_dict({"train/loss_scale": scale.scale, "train/skipped_steps": float(scale.skipped)})

    def _stop(self, why: str, is_cause: bool) -> NoReturn:
        """Stops training on all ranks. Ranks whose batch may be the cause save it."""
        step, (rank, _) = self.trainer.global_step, _data_parallel()
        folder = Path(self.trainer.default_root_dir) / "failed"
        if is_cause and parallel_state.get_tensor_model_parallel_rank() == 0:
            facts = {"why": why, "step": step, "rank": rank, "totals": self.step_totals}
            save_batch(folder, f"step={step:08d}-rank={rank}", self._batch, self.tokenizer, facts)
        raise DivergenceError(
            f"{why} at step {step}. The micro-batch is saved in {folder}; earlier checkpoints are not changed. Inspect the saved "
            "micro-batch, or start a new run with a lower model.optim.lr."
        )

    def validation_step(self, batch: MicroBatch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Loss terms and token accuracy of one batch, with the same noise at each validation."""
        rank, ranks = _data_parallel()
        objective, output = self(batch, torch.Generator().manual_seed(batch_idx * ranks + rank))
        size, posterior = batch.molecules, output.posterior
        self.log("val_loss", objective.loss, prog_bar=True, batch_size=size, sync_dist=True)
        tokens = int(batch.tokens)
        for name, value in readable(objective.terms, batch, output).items():
            self.log(f"val/{name}", value, batch_size=tokens if name in PER_TOKEN else size, sync_dist=True)
        sampled = slice(-self._validated % self._health_stride, None, self._health_stride)
        self._validation_latents.append((posterior.pooled()[sampled].clone(), posterior.variance_BKD[sampled].sqrt().mean()))
        self._validated += size
        return objective.loss

    def on_validation_epoch_end(self) -> None:
        """Logs the latent health of a sample of the validation split, and the exact reconstruction of a fixed sample."""
        vectors, deviations = zip(*self._validation_latents)
        self._validation_latents.clear()
        self._validated = 0
        vectors_NH, _ = gather_with_gradient(torch.cat(vectors), parallel_state.get_data_parallel_group())
        metrics = latent_health(vectors_NH) if len(vectors_NH) > 1 else {}
        if self.model_config.network.is_stochastic:
            metrics["posterior_std"] = float(torch.stack(deviations).nanmean())
        if self._reconstruct_tokens and self.model_config.network.decoder_layers and not self.trainer.sanity_checking:
            metrics |= reconstruct(self.network, self._reconstruct_tokens, self.tokenizer)
        size = max(1, len(self._reconstruct_tokens))
        self.log_dict({f"val/{name}": value for name, value in metrics.items()}, sync_dist=True, batch_size=size)


def _data_parallel() -> tuple[int, int]:
    """Data-parallel rank and number of data-parallel ranks."""
    return parallel_state.get_data_parallel_rank(), parallel_state.get_data_parallel_world_size()


def check_views(objective: Objective, config: ModelConfig) -> None:
    """Checks that an objective that compares two views of a molecule has the augmentation that makes the views differ.

    Raises:
        ConfigError: If `augmentation.strings` is not `different_random` for such an objective.
    """
    if objective.composition.needs_positive and config.augmentation.strings != "different_random":
        raise ConfigError(
            f"objective {config.objective.name} compares two randomized SMILES of each molecule, but "
            f"augmentation.strings is {config.augmentation.strings}. Set model.augmentation.strings=different_random, or choose "
            f"objective={config.objective.name}, which sets it."
        )


def _data_config(config: DictConfig | Mapping[str, Any], where: str) -> DataConfig:
    plain = OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else dict(config)
    return from_mapping(DataConfig, plain, where)


def _find_vocabulary(config: ModelConfig) -> Vocabulary:
    if config.vocabulary is not None:
        return Vocabulary.load(Path(config.vocabulary))
    if config.train_ds is not None:
        return TokenStore.open(config.train_ds.folder, config.train_ds.split).vocabulary
    return SmilesTokenizer().vocabulary
