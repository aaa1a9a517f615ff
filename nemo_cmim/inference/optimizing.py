"""Search for molecules with better scores, around given ones. N rows, P latents of a step, K latents, D width, Z = K * D."""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ..arguments import check_choice, check_integer
from ..generation import DecodingSettings
from ..optimization import Objective, SearchResult, SearchSettings, Seed, search
from ..steps import Steps
from .batching import DECODED_MOLECULES
from .capabilities import require_bottleneck, require_decoder
from .decoding import LARGEST, decode_batches
from .inputs import InputOptions
from .sampling import SamplingModel, check_distance

__all__ = ["OptimizingModel"]


class OptimizingModel(SamplingModel):
    """A loaded model that searches its latent space."""

    def optimize(
        self,
        smiles: Any,
        objective: Any = "QED",
        *,
        algorithm: str = "CMA-ES",
        maximize: bool = True,
        evaluations: int = 2000,
        population: int = 30,
        scaled_radius: float = 0.25,
        unit: str = "spread",
        min_similarity: float = 0.0,
        must_contain: str | Sequence[str] = (),
        n: int | None = 10,
        temperature: float | None = None,
        seed: int | None = None,
        on_invalid: str = "raise",
        standardise: Steps = (),
        first_index: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[SearchResult | None]:
        """Searches around each molecule for molecules with better scores.

        Args:
            smiles: N seed molecules, see `embed`.
            objective: "QED"; "plogP", penalised logP; a function that takes a list of canonical SMILES and returns a number for each; or a
                mapping from these to weights. Molecules without a score are dropped: a function fails (a warning) or returns NaN.
            algorithm: "CMA-ES", which needs the extra [optimize], or "none", which samples around the seed.
            maximize: Search for high scores; False: for low ones.
            evaluations: Number of latents that are decoded for a seed, at most.
            population: P, number of latents of a step.
            scaled_radius: Standard deviation of the latents of the first step around the seed, in the `unit`.
            unit: "spread" or "absolute", see `sample`.
            min_similarity: Smallest Tanimoto similarity to the seed (Morgan fingerprints of radius 2), 0 to 1.
            must_contain: SMARTS of one or more substructures that all molecules contain.
            n: Number of molecules that are returned for a seed, at most; None: all that were found.
            temperature: See `decode`.
            seed: Seed of all random numbers; None: different in each call.
            on_invalid: "raise", or "nan" to return None for an invalid seed molecule.
            standardise: See `embed`.
            first_index: Index of the first row, for callers that pass a long list in chunks.
            progress: Called with the number of evaluations done and of all.

        Returns:
            For each seed molecule a `SearchResult`; its `explain` says why it has no molecules.

        Raises:
            InvalidSmilesError: If a molecule cannot be used and `on_invalid="raise"`.
            ConfigError: If an argument is unknown or out of range, or if the model has no decoder, bottleneck or fitted density, or if
                the package cma is missing; or if a function raises an error for all seeds and for all molecules of the first step.
        """
        require_decoder(self.config, "optimize")
        require_bottleneck(self.config, "optimize", "use a model that has one")
        check_integer("first_index", first_index, 0)
        number = secrets.randbits(63) if seed is None else seed
        settings = SearchSettings(
            algorithm, maximize, evaluations, population, scaled_radius, min_similarity, must_contain, n, number
        )
        decoding = DecodingSettings(temperature=temperature, seed=None if temperature is None else number)
        score = Objective(objective)
        check_choice("unit", unit, ("spread", "absolute"))
        step = self._unit_step(unit, 'unit="absolute"')
        check_distance(scaled_radius, unit, step)
        inputs = self._tokenize(smiles, InputOptions(on_invalid, True, standardise, first_index, placeholder="None"))
        mean_NZ = self._posterior_of(inputs).mean_BKD.flatten(1).numpy()
        rows = [(i, molecule) for i, molecule in enumerate(inputs.molecule_of_row.tolist()) if molecule >= 0]
        seeds = [Seed(self.tokenizer.decode(inputs.tokens[molecule]), mean_NZ[i], first_index + i) for i, molecule in rows]

        def decode(z_NZ: np.ndarray, step: int) -> list[str]:
            z_NZ = z_NZ.clip(-LARGEST, LARGEST).astype(np.float32)  # CMA-ES can leave the region of all molecules
            z = torch.from_numpy(z_NZ).view(-1, self.config.network.latents, self.config.network.hidden_size)
            batches = ((part.to(self.device), None) for part in z.split(DECODED_MOLECULES))
            numbers = ((one.number * settings.steps + step) * population + j for one in seeds for j in range(population))
            found = decode_batches(self.network, self.tokenizer, batches, decoding, numbers, report_truncated=False)
            return [text for text, *_ in found]

        results = search(seeds, score, decode, step, settings, progress)
        _warn_of_errors(results)
        found = {i: result for (i, _), result in zip(rows, results)}
        return [found.get(i) for i in range(len(inputs.molecule_of_row))]


def _warn_of_errors(results: Sequence[SearchResult]) -> None:
    """Warns of errors that scoring functions raised, with the first one."""
    failed = [result for result in results if result.error]
    if failed:
        warnings.warn(
            f"The scoring function raised errors in the searches of {len(failed)} of {len(results)} molecules. The first error: "
            f"{failed[0].error}.",
            stacklevel=3,
        )
