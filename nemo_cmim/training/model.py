"""The NeMo model: cMIM on Megatron-Core, trained by Lightning. Shape letters as in `types`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from nemo.core import ModelPT
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.utils.data import DataLoader

from ..config import DataConfig, ModelConfig, from_mapping
from ..data.dataset import make_loader, make_validation_loader
from ..data.store import TokenStore
from ..errors import CheckpointError, ConfigError
from ..losses import ObjectiveOutput, build_objective
from ..mcore.network import MegatronCMIMNetwork
from ..mcore.parallel import initialise
from ..tokenizers import SmilesTokenizer, Vocabulary
from ..types import LossTerms, Posterior, TokenBatch
from .connector import CMIMSaveRestoreConnector
from .health import latent_health
from .optimisation import nemo_optim_config
from .reconstruction import reconstruct

__all__ = ["MegatronCMIMModel"]

_PER_TOKEN = ("log_p_x_given_z_per_token", "token_accuracy")
_HEALTH_SAMPLE = 2048  # molecules whose posteriors are compared with each other at validation


class MegatronCMIMModel(ModelPT):
    """A Megatron encoder-decoder with a Perceiver bottleneck under the cMIM objective (Eq. 9).

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
        self.network = MegatronCMIMNetwork(self.model_config.network, self.model_config.parallel)
        self.objective = build_objective(self.model_config.objective)
        self._validation_posteriors: list[Posterior] = []
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
            config, vocabulary=self.tokenizer.vocabulary, max_tokens=self.model_config.network.max_tokens
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

    def forward(self, batch: TokenBatch, noise_BKD: Tensor | None = None) -> tuple[ObjectiveOutput, Posterior, Tensor]:
        """One pass of Alg. 1.

        Args:
            batch: Tokens.
            noise_BKD: Standard normal noise of the latents; None draws it.

        Returns:
            Loss and terms, q(z|x), and the most likely token at each target [B, T].
        """
        posterior = self.network.encode(batch.encoder_BS, batch.is_token_BS)
        z_BKD = posterior.sample(noise_BKD)
        logits_TBv = self.network(batch.decoder_BT, z_BKD)
        predicted_BT = self.network.predicted_tokens(logits_TBv)
        log_p_x = self.network.log_p_x_given_z(logits_TBv, batch.target_BT, batch.is_target_BT)
        return self.objective(log_p_x, z_BKD, posterior), posterior, predicted_BT

    def training_step(self, batch: TokenBatch, batch_idx: int) -> Tensor:
        """Loss of one micro-batch, nats per molecule."""
        output, _, predicted_BT = self(batch)
        metrics = self._metrics(output, batch, predicted_BT)
        self.log("train_loss", output.loss, prog_bar=True)
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"])
        self.log_dict({f"train/{name}": value for name, value in metrics.items()})
        return output.loss

    def validation_step(self, batch: TokenBatch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Loss terms and token accuracy of one batch, with noise that is the same at each validation."""
        config = self.model_config.network
        generator = torch.Generator().manual_seed(batch_idx)
        noise = torch.randn(len(batch.encoder_BS), config.latents, config.hidden_size, generator=generator)
        output, posterior, predicted_BT = self(batch, noise.to(self.device))
        size = len(batch.encoder_BS)
        self.log("val_loss", output.loss, prog_bar=True, batch_size=size, sync_dist=True)
        metrics = self._metrics(output, batch, predicted_BT)
        tokens = int(batch.is_target_BT.sum())
        for name, value in metrics.items():
            weight = tokens if name in _PER_TOKEN else size
            self.log(f"val/{name}", value, batch_size=weight, sync_dist=True)
        sampled = slice(-self._validated % self._health_stride, None, self._health_stride)
        self._validation_posteriors.append(Posterior(*(field[sampled].clone() for field in posterior)))
        self._validated += size
        return output.loss

    def on_validation_epoch_end(self) -> None:
        """Latent health over a sample of the validation set, and exact reconstruction of a fixed sample by greedy decoding."""
        posterior = Posterior(*(torch.cat(parts) for parts in zip(*self._validation_posteriors)))
        self._validation_posteriors.clear()
        self._validated = 0
        metrics = latent_health(posterior) if len(posterior.mean_BKD) > 1 else {}
        if self._reconstruct_tokens and not self.trainer.sanity_checking:
            metrics |= reconstruct(self.network, self._reconstruct_tokens, self.tokenizer)
        self.log_dict({f"val/{name}": value for name, value in metrics.items()}, sync_dist=True)

    def _metrics(self, output: ObjectiveOutput, batch: TokenBatch, predicted_BT: Tensor) -> dict[str, Tensor]:
        right = (predicted_BT == batch.target_BT) & batch.is_target_BT
        latents = self.model_config.network.latents * self.model_config.network.hidden_size
        return _readable(output.terms, batch.is_target_BT, latents) | {"token_accuracy": right.sum() / batch.is_target_BT.sum()}


def _readable(terms: LossTerms, is_target_BT: Tensor, latents: int) -> dict[str, Tensor]:
    """Each term under its own key, nats: per token, per molecule, or per latent dimension."""
    named = {
        "log_p_x_given_z_per_token": terms.log_p_x_given_z_B.sum() / is_target_BT.sum(),
        "log_p_k1": None if terms.log_p_k1_B is None else terms.log_p_k1_B.mean(),
        "log_q_z_given_x_per_dim": None if terms.log_q_z_given_x_B is None else terms.log_q_z_given_x_B.mean() / latents,
        "log_p_z_per_dim": None if terms.log_p_z_B is None else terms.log_p_z_B.mean() / latents,
    }
    return {name: value.detach() for name, value in named.items() if value is not None}


def _data_config(config: DictConfig | Mapping[str, Any], where: str) -> DataConfig:
    plain = OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else dict(config)
    return from_mapping(DataConfig, plain, where)


def _find_vocabulary(config: ModelConfig) -> Vocabulary:
    if config.vocabulary is not None:
        return Vocabulary.load(Path(config.vocabulary))
    if config.train_ds is not None:
        return TokenStore.open(config.train_ds.folder, config.train_ds.split).vocabulary
    return SmilesTokenizer().vocabulary
