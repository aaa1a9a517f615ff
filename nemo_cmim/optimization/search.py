"""CMA-ES in the latent space, or random sampling with the same budget; many seeds are decoded together.

S seeds, P latents of a step for each seed, Z = K * D numbers of a latent. A latent is z = z_seed + L x, where L is the unit of the radius
and x is what is searched, with the standard deviation `scaled_radius` at the start.
"""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..arguments import check_choice, check_flag, check_fraction, check_integer, check_positive, check_seed
from ..errors import ConfigError
from ..molecules import canonical_or_none, contains, parse, similarity_to, substructures
from .objectives import Objective
from .result import Candidate, SearchResult

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ALGORITHMS", "SearchSettings", "Seed", "search"]

ALGORITHMS = ("CMA-ES", "none")
_MANY_DIMENSIONS = 1024  # above, CMA-ES adapts variances only
_FIRST_NUMBER = 2**62
_REASONS = _INVALID, _SEED, _NOT_WHOLE, _FRAGMENTS, _TOO_DISSIMILAR, _NO_SCORE = (
    "invalid", "the seed itself", "without the substructure", "with more fragments than the seed", "too dissimilar", "no score"
)  # fmt: skip

Decode = Callable[["NDArray[np.float64]", int], list[str]]
"""Decodes latents [N, Z] to N SMILES; the second argument is the number of the step, from 1."""


class Seed(NamedTuple):
    """A molecule from which a search starts.

    Attributes:
        smiles: Canonical SMILES.
        latent_Z: Its posterior mean, float32 [Z].
        number: Number of the row, on which its random numbers depend.
    """

    smiles: str
    latent_Z: NDArray[np.float32]
    number: int


@dataclass(frozen=True)
class SearchSettings:
    """Settings of a search, checked; see `CMIMModel.optimize`.

    Raises:
        ConfigError: If one is unknown or out of range.
    """

    algorithm: str = "CMA-ES"
    maximize: bool = True
    evaluations: int = 2000
    population: int = 30
    scaled_radius: float = 0.25
    min_similarity: float = 0.0
    must_contain: str | Sequence[str] = ()
    n: int | None = 10
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("algorithm", self.algorithm, ALGORITHMS)
        check_flag("maximize", self.maximize)
        check_integer("population", self.population, 2)
        check_integer("evaluations", self.evaluations)
        if self.evaluations < self.population:
            raise ConfigError(
                f"evaluations={self.evaluations} is less than population={self.population}, the number of molecules of one step. Pass "
                f"evaluations={self.population} or more."
            )
        if isinstance(self.scaled_radius, numbers.Real) and self.scaled_radius == 0:
            raise ConfigError(
                "scaled_radius must be a number above 0, found 0: with 0, a search stays at its molecule. `sample` gives reconstructions."
            )
        check_positive("scaled_radius", self.scaled_radius)
        check_integer("n", self.n, optional=True)
        check_seed(self.seed)
        check_fraction("min_similarity", self.min_similarity)
        substructures(self.must_contain)

    @property
    def steps(self) -> int:
        """Number of steps; a remainder of the budget that is less than a population is not used."""
        return self.evaluations // self.population


def search(
    seeds: Sequence[Seed],
    objective: Objective,
    decode: Decode,
    unit: NDArray[np.float32] | float,
    settings: SearchSettings,
    progress: Callable[[int, int], None] | None = None,
) -> list[SearchResult]:
    """Searches from each seed.

    Args:
        seeds: S seeds.
        objective: The score.
        decode: The decoder.
        unit: L, a lower triangular matrix [Z, Z], or a number.
        settings: Algorithm, budget and conditions.
        progress: Called after each step with the number of evaluations done, and of all.

    Returns:
        The result for each seed.

    Raises:
        ConfigError: If the scoring function does not return numbers, or if it raises an error for all seeds and for all molecules of the
            first step; or if CMA-ES needs the package cma and it is not installed.
    """
    if not seeds:
        return []
    runs = [_Run(seed, objective, settings) for seed in seeds]
    size = settings.population
    for step in range(1, settings.steps + 1):
        z_NZ = np.concatenate([run.ask(unit) for run in runs])
        texts = decode(z_NZ, step)
        for number, run in enumerate(runs):
            run.tell(texts[number * size : (number + 1) * size], step)
        if step == 1 and all(run.has_only_errors for run in runs):
            raise ConfigError(
                f"The scoring function raised an error for the seed and for all molecules of the first step. The first error: "
                f"{runs[0].result.error}."
            )
        if progress:
            progress(step * size * len(runs), settings.steps * size * len(runs))
    return [run.finish() for run in runs]


class _Judged(NamedTuple):
    """A valid molecule; `dropped` says why it cannot be used, and is empty if it can."""

    score: float
    similarity: float
    dropped: str


class _Run:
    """The search from one seed."""

    def __init__(self, seed: Seed, objective: Objective, settings: SearchSettings) -> None:
        self._seed, self._objective, self._settings = seed, objective, settings
        key = np.array([settings.seed, _FIRST_NUMBER + seed.number], np.uint64)
        self._generator = np.random.Generator(np.random.Philox(key=key))
        self._patterns = substructures(settings.must_contain)
        self._sign = 1.0 if settings.maximize else -1.0
        self._known: dict[str, _Judged] = {}
        self._found: dict[str, Candidate] = {}
        self._best_x: NDArray[np.float64] = np.zeros(len(seed.latent_Z))
        self._best_score = -math.inf
        self._strategy = self._new_strategy() if settings.algorithm == "CMA-ES" else None
        self._x_PZ: list[NDArray[np.float64]] = []
        self.result = SearchResult(seed.smiles, math.nan, objective.name, dropped=dict.fromkeys(_REASONS, 0))
        self._scored = self._failed = 0
        (self.result.seed_score,) = self._score([seed.smiles])

    @property
    def has_only_errors(self) -> bool:
        """Whether the scoring function raised an error for all molecules so far, the seed and at least one other."""
        return self._failed == self._scored > 1

    def ask(self, unit: NDArray[np.float32] | float) -> NDArray[np.float64]:
        """The latents of the next step, [P, Z]."""
        settings = self._settings
        if self._strategy is None:
            shape = (settings.population, len(self._seed.latent_Z))
            self._x_PZ = list(settings.scaled_radius * self._generator.standard_normal(shape))
        else:
            if self._strategy.stop():
                self._strategy = self._new_strategy()
            self._x_PZ = self._strategy.ask()
        x_PZ = np.stack(self._x_PZ)
        return self._seed.latent_Z + (x_PZ @ unit.T if isinstance(unit, np.ndarray) else unit * x_PZ)

    def tell(self, texts: Sequence[str], step: int) -> None:
        """Scores the decoded SMILES of a step."""
        self.result.evaluations += len(texts)
        molecules = [canonical_or_none(text) or None for text in texts]
        self._score_new({molecule for molecule in molecules if molecule is not None})
        costs = [self._cost(molecule, x, step) for molecule, x in zip(molecules, self._x_PZ)]
        if self._strategy is not None:
            order = sorted(set(costs))
            self._strategy.tell(self._x_PZ, [float(order.index(cost)) for cost in costs])  # it uses ranks only
        scores = [self._sign * one.score for one in self._found.values()]
        self.result.history.append(self._sign * max(scores) if scores else math.nan)

    def finish(self) -> SearchResult:
        """The result, with the best molecules."""
        ordered = sorted(self._found.values(), key=lambda one: (-self._sign * one.score, one.smiles))
        self.result.molecules = ordered[: self._settings.n]
        return self.result

    def _score_new(self, molecules: set[str]) -> None:
        """Scores molecules that were not met before, each once."""
        new = sorted(molecules - self._known.keys())
        similarity = dict(zip(new, similarity_to(self._seed.smiles, new).tolist()))
        dropped = {smiles: self._failed_condition(smiles, similarity[smiles]) for smiles in new}
        wanted = [smiles for smiles in new if not dropped[smiles]]
        scores = dict(zip(wanted, self._score(wanted)))
        for smiles in new:
            score = scores.get(smiles, math.nan)
            reason = dropped[smiles] or (_NO_SCORE if math.isnan(score) else "")
            self._known[smiles] = _Judged(score, similarity[smiles], reason)
            if smiles != self._seed.smiles:
                self.result.best_similarity = float(np.fmax(self.result.best_similarity, similarity[smiles]))

    def _score(self, smiles: list[str]) -> list[float]:
        """Scores of molecules, NaN where there is none; errors are counted, and the first one is kept."""
        scores = self._objective(smiles).tolist()
        self._scored += len(smiles)
        self._failed += len(self._objective.errors)
        self.result.error = self.result.error or next(iter(self._objective.errors.values()), "")
        return scores

    def _failed_condition(self, smiles: str, similarity: float) -> str:
        if not contains(parse(smiles), self._patterns):
            return _NOT_WHOLE
        if smiles.count(".") > self._seed.smiles.count("."):  # a molecule of water raises QED for nothing
            return _FRAGMENTS
        return _TOO_DISSIMILAR if similarity < self._settings.min_similarity else ""

    def _cost(self, smiles: str | None, x_Z: NDArray[np.float64], step: int) -> tuple[int, float]:
        """A sort key: molecules that meet all conditions by their score, then others by similarity, then what cannot be used."""
        if smiles is None:
            self.result.dropped[_INVALID] += 1
            return 3, 0.0
        judged = self._known[smiles]
        if judged.dropped:
            self.result.dropped[judged.dropped] += 1
            return 1 if judged.dropped == _TOO_DISSIMILAR else 2, -judged.similarity
        if smiles == self._seed.smiles:
            self.result.dropped[_SEED] += 1
        elif smiles not in self._found:
            self._found[smiles] = Candidate(smiles, judged.score, judged.similarity, step)
        if self._sign * judged.score > self._best_score:
            self._best_score, self._best_x = self._sign * judged.score, x_Z
        return 0, -self._sign * judged.score

    def _new_strategy(self) -> Any:
        """CMA-ES around the best latent so far, at first around the seed."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of optional packages that cma does not find
                import cma
        except ImportError as error:
            raise ConfigError(
                'algorithm="CMA-ES" needs the package cma: pip install "nemo_cmim[optimize]". algorithm="none" does not need it.'
            ) from error
        options = {
            "popsize": self._settings.population,
            "randn": lambda *shape: self._generator.standard_normal(shape),
            "seed": math.nan,  # the global generator of NumPy is left alone
            "verbose": -9,
            "CMA_diagonal": len(self._best_x) > _MANY_DIMENSIONS,
        }
        return cma.CMAEvolutionStrategy(self._best_x, float(self._settings.scaled_radius), options)
