"""The NeMo model: cMIM and its baselines on Megatron-Core, trained by Lightning. Shape letters as in `types`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from megatron.core import parallel_state
from nemo.core import ModelPT
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.utils.data import DataLoader

from ..config import DataConfig, ModelConfig, from_mapping
from ..data.dataset import make_loader, make_validation_loader
from ..data.store import TokenStore
from ..errors import CheckpointError, ConfigError
from ..losses import Objective, ObjectiveOutput, build_objective
from ..mcore.network import MegatronCMIMNetwork
from ..mcore.parallel import initialise
from ..tokenizers import SmilesTokenizer, Vocabulary
from ..types import Posterior, TokenBatch
from .connector import CMIMSaveRestoreConnector
from .health import latent_health
from .metrics import PER_TOKEN, readable
from .optimisation import nemo_optim_config
from .reconstruction import reconstruct

__all__ = ["MegatronCMIMModel", "check_views"]

_HEALTH_SAMPLE = 2048  # molecules whose posteriors are compared with each other at validation


class MegatronCMIMModel(ModelPT):
    """A Megatron encoder-decoder, with a Perceiver bottleneck under the cMIM objective (Eq. 9) unless the settings name others.

    Args:
        cfg: The settings of `config.ModelConfig`, as a NeMo config has them under `model:`.
        trainer: Lightning trainer.
        vocabulary: Token table; None takes `cfg.vocabulary`, or that of the training data, or the shipped one.

    Raises:
        ConfigError: An unknown or impossible setting.
    """

    def __init__(self, cfg: DictConfig, trainer: Trainer | None = None, *, vocabulary: Vocabulary | None = None) -> None:
        plain = OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else dict(cfg)
        nemo_keys = {"target", "nemo_version"}  # ModelPT adds them
        self.model_config = from_mapping(ModelConfig, {k: v for k, v in plain.items() if k not in nemo_keys}, "model")
        vocabulary = vocabulary or _find_vocabulary(self.model_config)
        if len(vocabulary) != self.model_config.network.vocabulary_size:
            raise ConfigError(
                f"model.network.vocabulary_size is {self.model_config.network.vocabulary_size}, but the vocabulary has "
                f"{len(vocabulary)} tokens. Set it to {len(vocabulary)}, or model.vocabulary to the right file."
            )
        self.tokenizer = SmilesTokenizer(vocabulary)
        super().__init__(cfg=OmegaConf.create(plain), trainer=trainer)
        self._save_restore_connector = CMIMSaveRestoreConnector()
        initialise(self.model_config.parallel)
        network = self.model_config.network
        self.objective = build_objective(self.model_config.objective, network, group=parallel_state.get_data_parallel_group())
        check_views(self.objective, self.model_config)
        self.network = MegatronCMIMNetwork(network, self.model_config.parallel)
        self._validation_latents: list[tuple[Tensor, Tensor]] = []
        self._validated = 0
        self._rng_state: Tensor | None = None

    @classmethod
    def list_available_models(cls) -> list[Any]:
        """Nothing is offered on NGC."""
        return []

    @classmethod
    def restore_from(cls, restore_path: str, *args: Any, **kwargs: Any) -> Any:
        """Reads a `.nemo` of this project; see `CMIMSaveRestoreConnector`."""
        kwargs.setdefault("save_restore_connector", CMIMSaveRestoreConnector())
        return super().restore_from(restore_path, *args, **kwargs)

    # ---- data

    def setup_training_data(self, train_data_config: DictConfig | Mapping[str, Any]) -> None:
        """Reads the settings of the training split, and checks its folder. The loader starts where training stands."""
        self._train_config = _data_config(train_data_config, "model.train_ds")
        self._open_store(self._train_config)

    def setup_validation_data(self, val_data_config: DictConfig | Mapping[str, Any]) -> None:
        """Makes the loader of the validation split: each molecule once, in a fixed order."""
        config = _data_config(val_data_config, "model.validation_ds")
        store = self._open_store(config)
        self._validation_dl = make_validation_loader(
            config,
            vocabulary=self.tokenizer.vocabulary,
            max_tokens=self.model_config.network.max_tokens,
            augmentation=self.model_config.augmentation,
        )
        molecules = min(len(store), config.limit or len(store))
        self._health_stride = -(-molecules // _HEALTH_SAMPLE)
        chosen = torch.linspace(0, len(store) - 1, min(self.model_config.validation.reconstruct, len(store))).long()
        self._reconstruct_tokens = [store.tokens(int(i)) for i in chosen]

    def _open_store(self, config: DataConfig) -> TokenStore:
        return TokenStore.open(Path(config.folder), config.split, vocabulary=self.tokenizer.vocabulary)

    def train_dataloader(self) -> DataLoader:
        """The batches from the current step to the last; the order depends on the seed and the step alone."""
        micro_batches = self.trainer.accumulate_grad_batches
        return make_loader(
            self._train_config,
            start_step=self.trainer.global_step * micro_batches,
            steps=self.trainer.max_steps * micro_batches,
            vocabulary=self.tokenizer.vocabulary,
            max_tokens=self.model_config.network.max_tokens,
            augmentation=self.model_config.augmentation,
        )

    # ---- optimisation

    def setup_optimization(self, optim_config: Any = None, optim_kwargs: dict[str, Any] | None = None) -> Any:
        """Optimiser and schedule by NeMo's names, from `cfg.optim` where no other settings are given."""
        if optim_config is None:
            optim_config = OmegaConf.create(nemo_optim_config(self.model_config.optim, self.trainer.max_steps))
        return super().setup_optimization(optim_config, optim_kwargs)

    # ---- steps

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the state of the random numbers, so that a resumed run draws what the uninterrupted one would have."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["rng_state"] = torch.get_rng_state()
        checkpoint["vocabulary_fingerprint"] = self.tokenizer.vocabulary.fingerprint

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps that state until training starts: what happens before must not use it up.

        Raises:
            CheckpointError: The checkpoint was trained with another vocabulary than this model's.
        """
        super().on_load_checkpoint(checkpoint)
        trained, own = checkpoint["vocabulary_fingerprint"], self.tokenizer.vocabulary.fingerprint
        if trained != own:
            raise CheckpointError(
                f"The checkpoint was trained with the vocabulary {trained[:12]}, but the data have {own[:12]}. Prepare them with "
                "the model's vocabulary: nemo-cmim prepare --vocabulary FILE."
            )
        self._rng_state = checkpoint["rng_state"]

    def on_train_start(self) -> None:
        """Takes up random numbers and the logged step where a checkpoint left them.

        Lightning's own count of logged steps is one behind in a checkpoint that a validation wrote.
        """
        super().on_train_start()
        if self._rng_state is not None:
            torch.set_rng_state(self._rng_state)
            self._rng_state = None
        self.trainer.fit_loop.epoch_loop._batches_that_stepped = self.trainer.global_step

    def forward(self, batch: TokenBatch, noise: torch.Generator | None = None) -> tuple[ObjectiveOutput, Posterior, Tensor | None]:
        """One pass of Alg. 1, through the parts that network and objective have.

        Args:
            batch: Tokens.
            noise: Where the latents' noise comes from; None is the global generator.

        Returns:
            Loss and terms, q(z|x), and the most likely token at each target [B, T] if there is a decoder.
        """
        config, composition = self.model_config.network, self.objective.composition
        posterior = self.network.encode(batch.encoder_BS, batch.is_token_BS)
        z_BKD = posterior.mean_BKD
        if config.is_stochastic:
            drawn = None if noise is None else torch.randn(z_BKD.shape, generator=noise).to(z_BKD.device)
            z_BKD = posterior.sample(drawn)
        positive_BKD = self.network.encode(*batch.decoder_view).mean_BKD if composition.needs_positive else None
        log_p_x_B = predicted_BT = None
        if config.decoder_layers:
            logits_TBv = self.network(batch.decoder_BT, z_BKD, posterior.is_latent_BK)
            predicted_BT = self.network.predicted_tokens(logits_TBv)
            log_p_x_B = self.network.log_p_x_given_z(logits_TBv, batch.target_BT, batch.is_target_BT)
        return self.objective(log_p_x_B, z_BKD, posterior, positive_BKD), posterior, predicted_BT

    def training_step(self, batch: TokenBatch, batch_idx: int) -> Tensor:
        """Loss of one micro-batch, nats per molecule."""
        output, posterior, predicted_BT = self(batch)
        self.log("train_loss", output.loss, prog_bar=True)
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"])
        metrics = readable(output.terms, batch, posterior, predicted_BT)
        self.log_dict({f"train/{name}": value for name, value in metrics.items()})
        return output.loss

    def validation_step(self, batch: TokenBatch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Loss terms and token accuracy of one batch, with noise that is the same at each validation."""
        output, posterior, predicted_BT = self(batch, torch.Generator().manual_seed(batch_idx))
        size = len(batch.encoder_BS)
        self.log("val_loss", output.loss, prog_bar=True, batch_size=size, sync_dist=True)
        tokens = int(batch.is_target_BT.sum())
        for name, value in readable(output.terms, batch, posterior, predicted_BT).items():
            self.log(f"val/{name}", value, batch_size=tokens if name in PER_TOKEN else size, sync_dist=True)
        sampled = slice(-self._validated % self._health_stride, None, self._health_stride)
        self._validation_latents.append((posterior.pooled()[sampled].clone(), posterior.variance_BKD[sampled].sqrt().mean()))
        self._validated += size
        return output.loss

    def on_validation_epoch_end(self) -> None:
        """Latent health over a sample of the validation set, and exact reconstruction of a fixed sample by greedy decoding."""
        vectors, deviations = zip(*self._validation_latents)
        self._validation_latents.clear()
        self._validated = 0
        vectors_NH = torch.cat(vectors)
        metrics = latent_health(vectors_NH) if len(vectors_NH) > 1 else {}
        if self.model_config.network.is_stochastic:
            metrics["posterior_std"] = float(torch.stack(deviations).nanmean())
        if self._reconstruct_tokens and self.model_config.network.decoder_layers and not self.trainer.sanity_checking:
            metrics |= reconstruct(self.network, self._reconstruct_tokens, self.tokenizer)
        self.log_dict({f"val/{name}": value for name, value in metrics.items()}, sync_dist=True)


def check_views(objective: Objective, config: ModelConfig) -> None:
    """Refuses an objective of two views without the augmentation that makes them differ.

    Raises:
        ConfigError: Names the setting.
    """
    if objective.composition.needs_positive and not config.augmentation.enumerate_smiles:
        raise ConfigError(
            f"objective {config.objective.name} compares two spellings of each molecule: set augmentation.enumerate_smiles=true, as "
            f"objective={config.objective.name} does in a training config."
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
