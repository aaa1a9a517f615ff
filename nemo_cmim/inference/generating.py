"""What a model generates: SMILES from latents.

Shape letters: N rows, K latents, D width.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..arguments import check_integer
from ..errors import InvalidShapeError
from ..generation import DecodingSettings
from ..molecules import Mol
from ..steps import Steps
from .batching import DECODED_MOLECULES, Progress
from .capabilities import require_bottleneck, require_decoder
from .decoding import as_latents, decode_batches
from .inputs import InputOptions
from .likelihood import token_log_p
from .loaded import LoadedModel

__all__ = ["GeneratingModel"]


_FAR = 8.0  # times the spread of the aggregated posterior; drugs have 0.5 to 1, ethanol 3, water 7, draws of N(0, I) more than 100


class GeneratingModel(LoadedModel):
    """A loaded model that decodes latents, and says how likely it writes a molecule."""

    def decode(
        self,
        z: Any,
        *,
        beam_size: int = 1,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        n_best: int | None = None,
        grammar: bool = False,
        max_tokens: int | None = None,
        batch_size: int = DECODED_MOLECULES,
        seed: int | None = None,
        first_index: int = 0,
    ) -> list[Any]:
        """Decodes latents to SMILES, by default greedily; only chemical tokens are written.

        Args:
            z: Latents, tensor, array or DataFrame, [N, K, D] or [N, K * D].
            beam_size: Partial sequences that are kept for each latent, 1 to 10; 1 is greedy. See `generation.DecodingSettings`, also for
                the following arguments.
            temperature: Draw tokens from softmax(logits / temperature); None takes the most likely ones.
            top_k: Draw only from so many most likely tokens.
            top_p: Draw only from the most likely tokens with this total probability.
            n_best: SMILES for each latent: the best of the beam, or so many draws. None gives one, as a string.
            grammar: Allow only tokens that can continue a SMILES.
            max_tokens: Maximum number of tokens of a SMILES; None: limited only by the positions of the model.
            batch_size: Number of molecules that are decoded together.
            seed: Seed of the draws; None: different in each call.
            first_index: Index of the first latent, for callers that pass a long array in chunks. Draws depend on the seed and on the
                index.

        Returns:
            N strings, or N lists of strings if `n_best` is given. They may be invalid SMILES; check them with `molecules.is_valid`. A
            warning reports how many were truncated at `max_tokens`. Another one reports latents that are more than 8 times as far from the
            mean as the spread of the aggregated posterior, if the model has a fitted density.

        Raises:
            InvalidShapeError: If `z` has a different shape.
            InvalidLatentError: If `z` contains NaN or infinity, or is an informative embedding of the last layer, which with K = 1 has the
                shape of latents. Embeddings of other layers cannot be recognised.
            ConfigError: If the model has no decoder or no bottleneck, or if a setting is out of range.
        """
        require_decoder(self.config, "decode")
        require_bottleneck(self.config, "decode", "call reconstruct with the SMILES")
        settings = DecodingSettings(
            beam_size, temperature, top_k, top_p, 1 if n_best is None else n_best, grammar, max_tokens, seed
        )
        check_integer("batch_size", batch_size)
        check_integer("first_index", first_index, 0)
        latents = as_latents(z, self.network, self.device, first_index)
        far = self.far_from_molecules(latents, first_index)
        if far is not None:
            warnings.warn(far, stacklevel=2)
        batches = ((batch, None) for batch in latents.split(batch_size) if len(batch))
        texts = decode_batches(self.network, self.tokenizer, batches, settings, itertools.count(first_index))
        return texts if n_best is not None else [text for (text,) in texts]

    def reconstruct(
        self,
        smiles: Any,
        *,
        on_invalid: str = "raise",
        canonical: bool = True,
        standardise: Steps = (),
        max_tokens: int | None = None,
    ) -> list[Any]:
        """Decodes the posterior mean of each molecule, None for an invalid one; see `embed` and `decode` for arguments and errors."""
        require_decoder(self.config, "reconstruct")
        inputs = self._tokenize(smiles, InputOptions(on_invalid, canonical, standardise, placeholder="None"))
        order: list[int] = []

        def latents() -> Iterator[tuple[Tensor, Tensor | None]]:
            for rows, posterior in self._encode(inputs.tokens, self._limits(DECODED_MOLECULES)):
                order.extend(rows.tolist())
                yield posterior.mean_BKD, posterior.is_latent_BK

        texts = decode_batches(self.network, self.tokenizer, latents(), DecodingSettings(max_tokens=max_tokens))
        of_molecule = {molecule: text for molecule, (text,) in zip(order, texts)}
        return [of_molecule.get(molecule) for molecule in inputs.molecule_of_row.tolist()]  # -1 is an invalid one

    def log_likelihood(
        self,
        smiles: Any,
        given: Any = None,
        *,
        per_token: bool = False,
        on_invalid: str = "raise",
        canonical: bool = True,
        standardise: Steps = (),
        batch_size: int | None = None,
        progress: Progress | None = None,
    ) -> Any:
        """log p(x|z) of molecules under the decoder, in nats: how likely it writes each of them from a latent.

        Args:
            smiles: N molecules x, see `embed`, also for the other arguments.
            given: What z comes from: None is the posterior mean of each molecule itself; one molecule, or N molecules as in `embed`,
                stand for their posterior means; or latents as in `decode`, one or N.
            per_token: Return the terms of the sum: one for each token of the SMILES, and one for `<EOS>`.
            on_invalid: "raise", or "nan" to return NaN for a row that cannot be used (None with `per_token`).
            canonical: Canonicalise each SMILES first, as the training data were; False scores the text as it is.
            standardise: See `embed`.
            batch_size: Maximum number of molecules in a batch; None: chosen for speed.
            progress: Called with the number of molecules done and of all molecules. Duplicates are not counted without `given`.

        Returns:
            float64 [N]; with `per_token` a list of N arrays, float32 [tokens + 1].

        Raises:
            InvalidSmilesError: If a molecule cannot be used and `on_invalid="raise"`.
            InvalidShapeError: If `given` is neither one nor N.
            InvalidLatentError: See `decode`.
            ConfigError: If the model has no decoder, or no bottleneck and `given` is not None.
        """
        require_decoder(self.config, "log_likelihood")
        check_integer("batch_size", batch_size, optional=True)
        options = InputOptions(on_invalid, canonical, standardise, placeholder="None" if per_token else "NaN")
        inputs = self._tokenize(smiles, options)
        tokens, index, z_NKD = inputs.tokens, inputs.molecule_of_row, None
        if given is not None:  # each row is a pair of a molecule and a latent
            latents = self._latents_of(given, len(index))
            usable = np.flatnonzero((index >= 0) & latents.isfinite().all((1, 2)).numpy())
            tokens, z_NKD = [tokens[molecule] for molecule in index[usable]], latents[torch.from_numpy(usable)]
            index = np.full_like(index, -1)
            index[usable] = np.arange(len(usable))
        found: list[NDArray[np.float32] | None] = [None] * (len(tokens) + 1)  # the last one, -1, is that of invalid rows
        scored = token_log_p(self.network, self.tokenizer.vocabulary, tokens, z_NKD, self._limits(batch_size))
        for done, (number, log_p_T) in enumerate(scored, 1):
            found[number] = log_p_T
            if progress:
                progress(done, len(tokens))
        terms = [found[number] for number in index]
        if per_token:
            return terms
        return np.array([np.nan if term is None else term.sum(dtype=np.float64) for term in terms])

    def far_from_molecules(self, latents: Tensor, first_index: int = 0) -> str | None:
        """The text of the warning of `decode` about latents [N, K, D] that are far from those of all molecules.

        Args:
            latents: Latents.
            first_index: Index of the first one in the text.

        Returns:
            The text; None if no latent is far, or if the model has no fitted density.
        """
        if self.density is None:
            return None
        distance_N = self.density.distance(latents.flatten(1).cpu().numpy())
        far = np.flatnonzero(distance_N > _FAR)
        if not len(far):
            return None
        return (
            f"{len(far)} of {len(latents)} latents are far from those of molecules, and their SMILES may have no meaning. The first is "
            f"row {first_index + far[0]}, counted from 0, at {distance_N[far[0]]:.3g} times the spread of the aggregated posterior."
        )

    def _latents_of(self, given: Any, rows: int) -> Tensor:
        """The latents [rows, K, D] of `given`, on the CPU."""
        require_bottleneck(self.config, "log_likelihood(given=...)", "leave given out")
        if isinstance(given, (str, Mol)):
            given = [given]
        elif isinstance(given, Iterator):
            given = list(given)
        if _holds_molecules(given):
            latents = self.encode(given).mean_BKD
        else:
            latents = as_latents(given, self.network, torch.device("cpu"))
        if len(latents) not in (1, rows):
            raise InvalidShapeError(
                f"given has {len(latents)} rows, but there are {rows} molecules. Pass one, or one for each molecule."
            )
        return latents.expand(rows, -1, -1)


def _holds_molecules(given: Any) -> bool:
    """Whether this is a list, an array or a column of SMILES or RDKit molecules, and not latents."""
    values = given.to_pylist() if hasattr(given, "to_pylist") else given  # pyarrow iterates over scalars
    if getattr(values, "ndim", 1) != 1 or not isinstance(values, Iterable):
        return False
    return any(isinstance(value, (str, Mol)) for value in values)
