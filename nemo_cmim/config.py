"""All settings, with the paper's values as defaults (Sec. D.2). YAML files override them; an unknown key is an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .mappings import check, to_mapping

__all__ = [
    "AugmentationConfig",
    "DataConfig",
    "LossScaleConfig",
    "ModelConfig",
    "NetworkConfig",
    "ObjectiveConfig",
    "OptimConfig",
    "ParallelConfig",
    "SchedConfig",
    "StabilityConfig",
    "ValidationConfig",
]

ENCODERS = ("perceiver", "transformer", "hybrid")
POSTERIORS = ("gaussian", "point")
NEGATIVES = ("local", "global")
STRINGS = ("canonical", "same_random", "different_random")
_OF_MUON = ("momentum", "iterations")  # settings of OptimConfig that other optimisers do not have


@dataclass(frozen=True, kw_only=True)
class HeadsConfig:
    """Linear heads that predict observed properties. Training sets them from `objective.properties` and the data."""

    sources: str = ""  # "h": from the mean of the decoder's states; "z": from the latents; "hz": from each of them
    values: tuple[str, ...] = ()  # names of the properties
    bits: int = 0  # bits of the Morgan fingerprint

    def __post_init__(self) -> None:
        check(self.sources in ("", "h", "z", "hz"), f'network.heads.sources must be "", "h", "z" or "hz", found {self.sources!r}.')
        check(self.bits >= 0, f"network.heads.bits must be at least 0, found {self.bits}.")
        check(
            not self.sources or self.width > 0, f"network.heads.sources={self.sources} has nothing to predict: set values or bits."
        )

    @property
    def width(self) -> int:
        """Number of outputs of a head."""
        return len(self.values) + self.bits


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Sizes of the network (Sec. D.2), for both implementations: PyTorch and Megatron-Core."""

    vocabulary_size: int = 523
    vocabulary_multiple: int = 128  # the number of rows of the embedding table is rounded up to a multiple of this
    hidden_size: int = 512  # D
    encoder: str = "perceiver"  # perceiver | transformer (no bottleneck: one state for each token) | hybrid
    latents: int = 1  # K: 1 for MIM and cMIM, 4 for Perceiver AE and MolVAE
    posterior: str = (
        "gaussian"  # gaussian | point (deterministic latent: the encoder's output, without heads for mean and variance)
    )
    encoder_layers: int = 6  # Perceiver blocks, or transformer layers; hybrid: transformer layers before its single Perceiver block
    decoder_layers: int = 6  # 0: no decoder
    attention_heads: int = 8
    ffn_size: int = 2048
    max_positions: int = 512  # a SMILES has at most max_positions - 1 tokens, since the decoder input starts with <BOS>
    dropout: float = 0.1
    layer_norm_eps: float = 1e-5
    min_variance: float = 1e-6  # Sec. 3.1
    init_std: float = 0.02
    heads: HeadsConfig = field(default_factory=HeadsConfig)

    def __post_init__(self) -> None:
        for name in (
            "vocabulary_size",
            "vocabulary_multiple",
            "hidden_size",
            "latents",
            "encoder_layers",
            "attention_heads",
            "ffn_size",
        ):
            check(getattr(self, name) >= 1, f"network.{name} must be at least 1, found {getattr(self, name)}.")
        check(self.decoder_layers >= 0, f"network.decoder_layers must be at least 0 (no decoder), found {self.decoder_layers}.")
        for name, known in (("encoder", ENCODERS), ("posterior", POSTERIORS)):
            check(getattr(self, name) in known, f"network.{name} must be {' | '.join(known)}, found {getattr(self, name)!r}.")
        if not self.has_bottleneck:
            why = "with network.encoder=transformer, which has one state for each token and no bottleneck"
            check(self.latents == 1, f"network.latents={self.latents} has no effect {why}. Set it to 1.")
            check(self.posterior == "point", f"network.posterior={self.posterior} is not supported {why}. Set it to point.")
        heads = self.heads.sources
        check(
            self.decoder_layers > 0 or "h" not in heads, f"network.heads.sources={heads} needs a decoder, but decoder_layers is 0."
        )
        check(
            self.has_bottleneck or "z" not in heads,
            f"network.heads.sources={heads} needs latents: encoder={self.encoder} has none.",
        )
        check(self.max_positions >= 2, f"network.max_positions must be at least 2, found {self.max_positions}.")
        check(0.0 <= self.dropout < 1.0, f"network.dropout must be in [0, 1), found {self.dropout}.")
        check(self.min_variance > 0, f"network.min_variance must be positive, found {self.min_variance}.")
        check(
            self.hidden_size % self.attention_heads == 0,
            f"network.hidden_size ({self.hidden_size}) must be a multiple of network.attention_heads ({self.attention_heads}).",
        )

    @property
    def has_bottleneck(self) -> bool:
        """True if the encoder has K latents for a molecule of any length."""
        return self.encoder != "transformer"

    @property
    def has_single_latent(self) -> bool:
        """True if attention to the latents is attention to a single key."""
        return self.has_bottleneck and self.latents == 1

    @property
    def is_stochastic(self) -> bool:
        """True if q(z|x) has a variance, so that z can be sampled."""
        return self.posterior == "gaussian"

    @property
    def encoder_depth(self) -> int:
        """Number of layers in sequence in the encoder; residual branches are initialised with a scale of 1 / sqrt(2 depth)."""
        return {"perceiver": 2 * self.encoder_layers, "transformer": self.encoder_layers, "hybrid": self.encoder_layers + 2}[
            self.encoder
        ]

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.attention_heads

    @property
    def padded_vocabulary_size(self) -> int:
        """Rows of the embedding table: `vocabulary_size` rounded up to a multiple of `vocabulary_multiple`."""
        return -(-self.vocabulary_size // self.vocabulary_multiple) * self.vocabulary_multiple

    @property
    def max_tokens(self) -> int:
        """Maximum number of tokens of a SMILES; one position is used by `<BOS>`."""
        return self.max_positions - 1


@dataclass(frozen=True, kw_only=True)
class ObservedPropertiesConfig:
    """Weights of log p(y | .) for observed properties y, which `nemo-cmim prepare --properties` computes; 0: the term is not used.

    Values are properties as normal scores, under a Gaussian; bits are those of the Morgan fingerprint. h is the mean of the decoder's
    states, which is the informative embedding; z are the latents.
    """

    values_given_h: float = 0.0
    bits_given_h: float = 0.0
    values_given_z: float = 0.0
    bits_given_z: float = 0.0
    sigma: float = 1.0  # standard deviation of the Gaussian, in normal scores

    def __post_init__(self) -> None:
        for name, weight in self.weights.items():
            check(weight >= 0, f"objective.properties.{name.removeprefix('log_p_')} must be at least 0, found {weight}.")
        check(self.sigma > 0, f"objective.properties.sigma must be positive, found {self.sigma}.")

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each term, by its name in `LossTerms`."""
        return {
            f"log_p_{what}_given_{given}": getattr(self, f"{what}_given_{given}") for given in "hz" for what in ("values", "bits")
        }

    @property
    def sources(self) -> str:
        """What properties are decoded from: "h", "z", "hz", or "" if no term is used."""
        return "".join(given for given in "hz" if any(w for name, w in self.weights.items() if name.endswith(given)))


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """The objective of `losses.objective` that training minimises, and its settings."""

    name: str = "cmim"
    tau: float = 1.0  # temperature of the contrastive term: 1 for molecules, 0.1 for images (Sec. 3)
    negatives: str = "local"  # local (the micro-batch of one rank, as in the paper) | global (of all data-parallel ranks)
    queue: int = 0  # M: number of latents of earlier batches that are also negatives (Sec. 2.2.2); 0 in the paper
    beta: float | None = None  # weight of the KL term of beta_vae; None: 1 / (K D), as in the paper
    weights: dict[str, float] = field(default_factory=dict)  # replaces weights of terms, such as log_p_k1: 40; default: Eq. 9
    properties: ObservedPropertiesConfig = field(default_factory=ObservedPropertiesConfig)

    def __post_init__(self) -> None:
        check(self.tau > 0, f"objective.tau must be positive, found {self.tau}.")
        check(self.negatives in NEGATIVES, f"objective.negatives must be {' | '.join(NEGATIVES)}, found {self.negatives!r}.")
        check(self.queue >= 0, f"objective.queue must be at least 0, found {self.queue}.")
        check(self.beta is None or self.beta > 0, f"objective.beta must be positive, found {self.beta}.")


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Augmentation of SMILES in training and validation (Sec. D.2). It depends only on data seed, epoch and molecule."""

    strings: str = "canonical"  # canonical | same_random (one randomized SMILES) | different_random (two for encoder and decoder)
    mask_fraction: float = 0.0  # fraction of the encoder's tokens that is replaced by <MASK>, in spans
    mask_span: float = 3.0  # mean length of a span in tokens; Poisson distribution, as in BART

    def __post_init__(self) -> None:
        check(self.strings in STRINGS, f"augmentation.strings must be {' | '.join(STRINGS)}, found {self.strings!r}.")
        check(0.0 <= self.mask_fraction < 1.0, f"augmentation.mask_fraction must be in [0, 1), found {self.mask_fraction}.")
        check(self.mask_span > 0, f"augmentation.mask_span must be positive, found {self.mask_span}.")

    @property
    def is_identity(self) -> bool:
        """True if SMILES are not changed."""
        return self.strings == "canonical" and self.mask_fraction == 0.0

    @classmethod
    def upgrade(cls, mapping: Mapping[str, Any]) -> Mapping[str, Any]:
        """Maps the key `enumerate_smiles` of earlier versions to `strings`; false leaves `strings` as it is."""
        if not isinstance(mapping.get("enumerate_smiles"), bool):
            return mapping
        renamed = {key: value for key, value in mapping.items() if key != "enumerate_smiles"}
        if mapping["enumerate_smiles"] and renamed.get("strings", "canonical") == "canonical":
            renamed["strings"] = "different_random"
        return renamed


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """One split of a folder that `nemo-cmim prepare` wrote."""

    folder: str = "???"  # a path, or a URL that fsspec supports: s3://, gs://, http://, ...
    split: str = "train"
    batch_size: int = 256  # molecules in a micro-batch of one rank
    buckets: int = 4  # a micro-batch is computed in this many buckets of molecules of similar length, for speed
    seed: int = 0
    workers: int = 2
    limit: int | None = None  # use only this many molecules, a fixed random sample; None: all
    shuffle_block: int = 1  # consecutive molecules that are shuffled as one block; 1: each on its own; about 4096 for a URL

    def __post_init__(self) -> None:
        for name in ("batch_size", "buckets"):
            check(getattr(self, name) >= 1, f"{name} must be at least 1, found {getattr(self, name)}.")
        check(self.workers >= 0, f"workers must be at least 0, found {self.workers}.")
        check(self.limit is None or self.limit >= 1, f"limit must be at least 1, found {self.limit}.")
        check(self.shuffle_block >= 1, f"shuffle_block must be at least 1, found {self.shuffle_block}.")
        check(
            self.shuffle_block > 1 or "://" not in self.folder,
            f"shuffle_block={self.shuffle_block} would request one molecule at a time from folder={self.folder}. Set "
            "shuffle_block=4096, which shuffles blocks of 4096 molecules, or copy the folder to a local disk.",
        )
        check(self.split in ("train", "valid", "test"), f"split must be train, valid or test, found {self.split!r}.")


@dataclass(frozen=True, kw_only=True)
class SchedConfig:
    """Learning-rate schedule, with NeMo's names. `lr` of the optimiser is the maximum, reached at the end of the warm-up."""

    name: str = "NoamAnnealing"
    warmup_ratio: float | None = 0.008
    warmup_steps: int | None = None
    hold_ratio: float | None = (
        None  # WarmupHoldAnnealLinear, ...OneMinusSquareRoot: share of all steps at the maximum, after the warm-up
    )
    min_lr: float = 1e-5

    def __post_init__(self) -> None:
        if self.hold_ratio is not None:
            check(0.0 <= self.hold_ratio <= 1.0, f"optim.sched.hold_ratio must be in [0, 1], found {self.hold_ratio}.")
            check(
                self.name.startswith("WarmupHoldAnneal"),
                f"optim.sched.hold_ratio has no effect with optim.sched.name={self.name}. Remove it, or use WarmupHoldAnnealLinear.",
            )


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimiser, with NeMo's names."""

    name: str = (
        "adam"  # adam, adamw, ...: a name in NeMo's registry | muon: Muon for the hidden matrices, Adam for the other weights
    )
    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    momentum: float = 0.95  # muon only
    iterations: int = 5  # muon only: Newton-Schulz iterations per update
    sched: SchedConfig | None = field(default_factory=SchedConfig)

    def __post_init__(self) -> None:
        check(self.lr > 0, f"optim.lr must be positive, found {self.lr}.")
        check(0.0 <= self.momentum < 1.0, f"optim.momentum must be in [0, 1), found {self.momentum}.")
        check(1 <= self.iterations <= 6, f"optim.iterations must be from 1 to 6, found {self.iterations}.")
        for name in () if self.name == "muon" else _OF_MUON:
            value, default = getattr(self, name), getattr(OptimConfig, name)
            check(
                value == default, f"optim.{name}={value} has no effect with optim.name={self.name}. Remove it, or set name to muon."
            )

    @property
    def arguments(self) -> dict[str, Any]:
        """The settings of the optimiser that `name` names, without the schedule."""
        return {k: v for k, v in to_mapping(self).items() if k != "sched" and (self.name == "muon" or k not in _OF_MUON)}


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """How the network is divided among devices."""

    tensor_model_parallel_size: int = 1
    pipeline_model_parallel_size: int = 1
    transformer_engine: bool = True  # use its linear layers and norms on a GPU in half precision, if it is installed

    def __post_init__(self) -> None:
        check(
            self.tensor_model_parallel_size >= 1,
            f"parallel.tensor_model_parallel_size must be at least 1, found {self.tensor_model_parallel_size}.",
        )
        check(
            self.pipeline_model_parallel_size == 1,
            f"parallel.pipeline_model_parallel_size is {self.pipeline_model_parallel_size}, but pipeline parallelism is not "
            "supported: the network is small enough for tensor and data parallelism. Set it to 1.",
        )


@dataclass(frozen=True, kw_only=True)
class LossScaleConfig:
    """Dynamic loss scale of fp16: halved when gradients overflow, doubled after steps without overflow. Ignored in fp32 and bf16."""

    initial: float = 65536.0
    growth_interval: int = 1000  # number of steps without overflow after which the scale is doubled
    hysteresis: int = 2  # number of overflows, since the scale was last doubled, that halve it
    minimum: float = 1.0  # the run stops if gradients overflow at this scale

    def __post_init__(self) -> None:
        check(self.minimum > 0, f"loss_scale.minimum must be positive, found {self.minimum}.")
        check(
            self.initial >= self.minimum,
            f"loss_scale.initial ({self.initial}) must be at least loss_scale.minimum ({self.minimum}).",
        )
        for name in ("growth_interval", "hysteresis"):
            check(getattr(self, name) >= 1, f"loss_scale.{name} must be at least 1, found {getattr(self, name)}.")


@dataclass(frozen=True, kw_only=True)
class StabilityConfig:
    """When a diverged run is stopped and its last batch is saved. A loss that is not finite always stops the run."""

    divergence_margin: float | None = (
        100.0  # nats per molecule by which the loss may rise, see `training.divergence`; null: no limit
    )

    def __post_init__(self) -> None:
        margin = self.divergence_margin
        check(margin is None or margin > 0, f"stability.divergence_margin must be positive or null, found {margin}.")


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """What validation measures in addition to the loss: exact reconstruction of a fixed sample, decoded greedily."""

    reconstruct: int = 64  # number of molecules that each validation decodes; 0: none

    def __post_init__(self) -> None:
        check(self.reconstruct >= 0, f"validation.reconstruct must be at least 0, found {self.reconstruct}.")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The section `model:` of a training config, which is also stored in model files."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loss_scale: LossScaleConfig = field(default_factory=LossScaleConfig)
    stability: StabilityConfig = field(default_factory=StabilityConfig)
    train_ds: DataConfig | None = None
    validation_ds: DataConfig | None = None
    global_batch_size: int | None = None  # molecules per optimiser step: micro-batch x data-parallel ranks x accumulation
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    vocabulary: str | None = None  # a vocabulary file; None: that of train_ds.folder, or the shipped one
    restore_from_path: str | None = None  # a `.nemo` file, or a shipped name, with the weights that a run starts from; None: random

    def __post_init__(self) -> None:
        size = self.global_batch_size
        check(size is None or size >= 1, f"global_batch_size must be at least 1, found {size}.")
        tp, net = self.parallel.tensor_model_parallel_size, self.network
        for name in ("attention_heads", "ffn_size", "padded_vocabulary_size"):
            check(
                getattr(net, name) % tp == 0,
                f"network.{name} ({getattr(net, name)}) must be a multiple of parallel.tensor_model_parallel_size ({tp}).",
            )
