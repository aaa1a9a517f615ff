"""Settings of fine-tuning."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...arguments import check_choice, check_flag, check_fraction, check_integer, check_positive
from ...errors import ConfigError

__all__ = ["Recipe"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is fine-tuned.

    Attributes:
        scope: What is trained with the head: "all", the whole network; "last:N", the last N decoder layers and the final norm (for
            kind="mean": the last N encoder layers, their final norm and the posterior mean); or "lora:R", adapters of rank R on all
            linear layers.
        kind: Vector that the head reads: "informative" or "mean"; see `CMIMModel.embed`.
        start: Begin with a head on the vectors of the model as it is (see `frozen.fit_frozen`), and train the network to correct
            it. The network learns from the out-of-fold errors of that head. False: without it.
        hidden: Width of the head's hidden layer; 0: a linear head.
        epochs: Maximum number of epochs.
        patience: Epochs without a lower validation loss after which training stops.
        validation: Fraction of the molecules that early stopping is measured on; other ones for each member. 0: all molecules are
            trained on, for all epochs.
        batch_size: Molecules in a batch.
        head_rate: Maximum learning rate of the head.
        decoder_rate: Maximum learning rate of the decoder.
        encoder_rate: Maximum learning rate of encoder, token embedding and posterior.
        warm_up: Fraction of the steps in which the learning rates rise linearly from 0; afterwards they fall linearly to 0.
        weight_decay: Weight decay of AdamW, for matrices only.
        dropout: Dropout probability in the network and in the head.
        max_gradient_norm: The gradient is scaled down to this norm if it is larger.
        augment: Probability that a molecule is trained on as a randomized SMILES instead of the canonical one, drawn in each epoch.
        class_weight: None, or "balanced": each class of a target has the same total weight in the loss. Probabilities are then those
            of classes of equal size.

    Raises:
        ConfigError: If a setting is unknown or out of range.
    """

    scope: str = "all"
    kind: str = "informative"
    start: bool = True
    hidden: int = 128
    epochs: int = 8
    patience: int = 5
    validation: float = 0.1
    batch_size: int = 32
    head_rate: float = 1e-3
    decoder_rate: float = 1e-4
    encoder_rate: float = 1e-4
    warm_up: float = 0.1
    weight_decay: float = 0.01
    dropout: float = 0.1
    max_gradient_norm: float = 1.0
    augment: float = 0.5
    class_weight: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.scope, str) or not re.fullmatch(r"all|(last|lora):[1-9]\d{0,3}", self.scope):
            raise ConfigError(f'scope must be "all", "last:N" or "lora:R" with a number of at least 1, found {self.scope!r}.')
        check_choice("kind", self.kind, ("informative", "mean"))
        check_flag("start", self.start)
        check_integer("hidden", self.hidden, 0)
        for name in ("epochs", "patience", "batch_size"):
            check_integer(name, getattr(self, name))
        for name in ("head_rate", "decoder_rate", "encoder_rate", "max_gradient_norm"):
            check_positive(name, getattr(self, name))
        for name in ("warm_up", "weight_decay", "augment"):
            check_fraction(name, getattr(self, name))
        for name in ("validation", "dropout"):
            check_fraction(name, getattr(self, name))
            if getattr(self, name) == 1:
                raise ConfigError(f"{name} must be below 1, found {getattr(self, name)!r}.")
        if self.class_weight not in (None, "balanced"):
            raise ConfigError(f'class_weight must be None or "balanced", found {self.class_weight!r}.')

    @property
    def number(self) -> int:
        """N of "last:N" and R of "lora:R"; 0 for "all"."""
        return int(self.scope.partition(":")[2] or 0)
