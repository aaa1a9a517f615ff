"""Augmentation of Sec. D.2: randomized SMILES, and spans of encoder tokens that `<MASK>` replaces.

The result depends only on (seed, epoch, index of the molecule): not on workers, ranks, batch size, or interruptions of the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..config import AugmentationConfig
from ..errors import UnknownTokenError
from ..molecules import randomized_smiles
from ..tokenizers import SmilesTokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ..tokenizers import Vocabulary

__all__ = ["Augmentation", "mask_spans"]

_ATTEMPTS = 3  # some randomized SMILES are too long, or contain an unknown token


class Augmentation:
    """Computes the encoder's and the decoder's tokens of a molecule.

    Args:
        config: The augmentations.
        vocabulary: Vocabulary of the token ids.
        max_tokens: Maximum number of tokens of a randomized SMILES.
        seed: Seed of randomized SMILES and spans.
    """

    def __init__(self, config: AugmentationConfig, vocabulary: Vocabulary, *, max_tokens: int, seed: int) -> None:
        self.config, self.max_tokens, self.seed = config, max_tokens, seed
        self.tokenizer = SmilesTokenizer(vocabulary)

    def __call__(self, tokens: NDArray[np.integer], epoch: int, index: int) -> tuple[Sequence[int], Sequence[int]]:
        """The encoder's and the decoder's tokens of molecule `index`, whose stored tokens are `tokens`."""
        rng = np.random.default_rng((self.seed, epoch, index))
        encoder = decoder = tokens.tolist()
        if self.config.strings != "canonical":
            encoder, decoder = self._randomized(encoder, rng, 2 if self.config.strings == "different_random" else 1)
        if self.config.mask_fraction:
            mask_id = self.tokenizer.vocabulary.mask_id
            encoder = mask_spans(encoder, rng, self.config.mask_fraction, self.config.mask_span, mask_id)
        return encoder, decoder

    def _randomized(self, stored: list[int], rng: np.random.Generator, count: int) -> tuple[list[int], list[int]]:
        """One randomized SMILES for both, or two different ones. If the attempts find fewer, the stored SMILES replaces them."""
        usable: list[list[int]] = []
        smiles = self.tokenizer.decode(stored)
        for _ in range(_ATTEMPTS):
            for randomized in randomized_smiles(smiles, count, int(rng.integers(1, 2**31))):
                try:
                    ids = self.tokenizer.encode(randomized)
                except UnknownTokenError:
                    continue
                if len(ids) <= self.max_tokens and ids not in usable:
                    usable.append(ids)
            if len(usable) >= count:
                break
        chosen = [*usable, stored, stored][:count]
        return chosen[0], chosen[-1]


def mask_spans(tokens: Sequence[int], rng: np.random.Generator, fraction: float, mean_span: float, mask_id: int) -> list[int]:
    """Replaces spans of tokens by one `mask_id` each, as in BART's text infilling (Sec. D.2).

    The number of replaced tokens is rounded at random, so that `fraction` is exact on average. Spans have Poisson lengths and
    never touch.

    Differs from BART: a span has at least one token.

    Args:
        tokens: Ids of one molecule.
        rng: Random number generator.
        fraction: Fraction of tokens to replace, in [0, 1).
        mean_span: Mean of the Poisson distribution.
        mask_id: Id that replaces a span.
    """
    hidden = int(len(tokens) * fraction + rng.random())
    lengths: list[int] = []
    while sum(lengths) < hidden:
        lengths.append(min(max(1, int(rng.poisson(mean_span))), hidden - sum(lengths)))
    rng.shuffle(lengths)  # the last one was shortened
    visible = len(tokens) - hidden
    lengths[visible:] = [sum(lengths[visible:])] if len(lengths) > visible else []  # at most as many spans as gaps
    gaps = np.sort(rng.choice(visible + 1, size=len(lengths), replace=False))  # the visible token before which each span is
    masked: list[int] = []
    place = seen = 0
    for gap, length in zip(gaps.tolist(), lengths):
        masked += [*tokens[place : place + gap - seen], mask_id]
        place += gap - seen + length
        seen = gap
    return [*masked, *tokens[place:]]
