"""How sequences are chosen when latents are decoded."""

from __future__ import annotations

import dataclasses
import secrets
from dataclasses import dataclass

from ..arguments import check_flag, check_integer, check_positive, check_seed
from ..errors import ConfigError

__all__ = ["MAX_BEAM", "DecodingSettings"]

MAX_BEAM = 10


@dataclass(frozen=True)
class DecodingSettings:
    """Settings of `decode`, checked. The default is greedy: the most likely token at each position.

    Attributes:
        beam_size: Number of partial sequences that are kept for each molecule, 1 to 10. 1 is greedy.
        temperature: None chooses the most likely tokens. A number above 0 draws each token from softmax(logits / temperature).
        top_k: Draw only from so many most likely tokens; None: all.
        top_p: Draw only from the most likely tokens whose probabilities, after `temperature` and `top_k`, add up to this number, at
            most 1; None: all.
        n_best: Sequences for each molecule: the best of the beam, or so many draws with a temperature.
        grammar: Allow only tokens that can continue a SMILES: no branch or ring is closed that is not open, and all are closed at
            the end. Valences and aromaticity are not checked.
        max_tokens: Maximum number of tokens to write; None: limited only by the positions of the model.
        seed: Seed of the draws; None: different in each call.

    Raises:
        ConfigError: If a setting is out of range or has no effect with the others.
    """

    beam_size: int = 1
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    n_best: int = 1
    grammar: bool = False
    max_tokens: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        check_flag("grammar", self.grammar)
        check_integer("beam_size", self.beam_size, 1, MAX_BEAM)
        check_integer("n_best", self.n_best)
        for name in ("top_k", "max_tokens"):
            check_integer(name, getattr(self, name), optional=True)
        check_seed(self.seed)
        check_positive("temperature", self.temperature, optional=True)
        check_positive("top_p", self.top_p, 1.0, optional=True)
        if self.temperature is None:
            for name in ("top_k", "top_p", "seed"):
                if getattr(self, name) is not None:
                    raise ConfigError(
                        f"{name}={getattr(self, name)} has no effect without a temperature. Pass temperature=1.0, or leave it out."
                    )
            if self.n_best > self.beam_size:
                wider = f"Pass beam_size={self.n_best}, or draw" if self.n_best <= MAX_BEAM else "Draw"
                raise ConfigError(
                    f"n_best={self.n_best} is more than beam_size={self.beam_size}. {wider} sequences with temperature=1.0."
                )
        elif self.beam_size != 1:
            raise ConfigError(
                f"temperature={self.temperature} draws tokens, and beam_size={self.beam_size} searches for the most likely ones. Pass one "
                "of them."
            )

    def seeded(self) -> DecodingSettings:
        """The same settings with a seed: a random one if there is none."""
        return self if self.seed is not None else dataclasses.replace(self, seed=secrets.randbits(63))
