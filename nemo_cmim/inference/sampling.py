"""New molecules: latents drawn at random, around molecules or from a density, and lines between molecules.

Shape letters: N rows, n molecules for a row, K latents, D width, Z = K * D.
"""

from __future__ import annotations

import itertools
import math
import secrets
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..arguments import check_choice, check_integer, check_radius, check_seed
from ..errors import ConfigError, InvalidSmilesError
from ..generation import DecodingSettings, Filter, LatentDensity, Seen
from ..molecules import shorten
from ..steps import Steps
from .batching import DECODED_MOLECULES
from .capabilities import model_name, require_bottleneck, require_decoder, require_prior
from .decoding import LARGEST, decode_batches
from .generating import GeneratingModel
from .inputs import InputOptions

__all__ = ["ATTEMPTS", "DENSITIES", "UNITS", "SamplingModel", "check_distance", "next_round"]

UNITS = ("spread", "posterior", "absolute")
DENSITIES = ("aggregated", "normal")
ATTEMPTS = 20
_FIRST_NUMBER = 2**63  # of the random numbers of latents; those of tokens have smaller numbers
_DRAWS_OF_A_ROW = 2**32
_LEAST_RATE = 0.1  # of accepted molecules, when the size of a round is chosen
_LARGEST_NOISE = 8.0  # a number from N(0, 1) is larger with a probability of 1e-15

DrawLatents = Callable[[int], np.ndarray]
"""Draws so many latents, float32 [n, Z]."""


class _Row(NamedTuple):
    """Molecules of a row that are accepted so far."""

    number: int
    draw: DrawLatents
    accepted: list[str]
    seen: Seen


class SamplingModel(GeneratingModel):
    """A loaded model that draws new molecules and interpolates."""

    def sample(
        self,
        n: int = 1,
        *,
        smiles: Any = None,
        scaled_radius: float = 0.25,
        unit: str = "spread",
        density: str = "aggregated",
        beam_size: int = 1,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        grammar: bool = False,
        must_contain: str | Sequence[str] = (),
        unique: bool = False,
        valid_only: bool = False,
        attempts: int = ATTEMPTS,
        seed: int | None = None,
        max_tokens: int | None = None,
        on_invalid: str = "raise",
        standardise: Steps = (),
        first_index: int = 0,
    ) -> list[Any]:
        """New molecules: latents drawn at random, and decoded.

        Args:
            n: Number of molecules; around each molecule if `smiles` is given.
            smiles: Molecules to sample around, see `embed`; None draws from the `density`.
            scaled_radius: Distance from each molecule, in the `unit`: z = mean of q(z|x) + scaled_radius * L * noise, noise ~ N(0, I). 0
                gives reconstructions.
            unit: "spread": L L^T is the covariance of the aggregated posterior, so that with 1 the noise is as large as the
                differences between molecules and their mean. The model needs a fitted density, see `nemo-cmim fit-prior`. "posterior":
                L holds the standard deviations of q(z|x), which are small for MIM. "absolute": L is the identity, as in the service of
                MolMIM.
            density: Without `smiles`: "aggregated", the fitted density of the aggregated posterior, or "normal", N(0, I).
            beam_size: See `decode`, also for the next four.
            temperature: See `decode`.
            top_k: See `decode`.
            top_p: See `decode`.
            grammar: See `decode`.
            must_contain: SMARTS of one or more substructures; molecules without them are replaced.
            unique: Replace molecules that repeat an earlier one of the same row. They are compared by canonical SMILES.
            valid_only: Replace SMILES that RDKit cannot parse.
            attempts: With `must_contain`, `unique` or `valid_only`: up to `attempts * n` latents are drawn for a row.
            seed: Seed; None: different in each call. A row's molecules depend on the seed and on its index, not on other rows.
            max_tokens: See `decode`.
            on_invalid: "raise", or "nan" to return None in the place of the list of an invalid molecule.
            standardise: See `embed`.
            first_index: Index of the first row, for callers that pass a long list in chunks.

        Returns:
            n strings; with `smiles` a list of n for each row. Fewer with a warning, if not enough were accepted. Without `valid_only`
            they may be invalid SMILES; check them with `molecules.is_valid`.

        Raises:
            InvalidSmilesError: If a molecule cannot be used and `on_invalid="raise"`.
            ConfigError: If an argument is unknown, out of range or has no effect, if the model has no decoder or no variance of q(z|x), or
                if it has no fitted density and one is needed.
        """
        require_decoder(self.config, "sample")
        require_prior(self.config, "sample", "call reconstruct")
        for name, value, least in (("n", n, 1), ("attempts", attempts, 1), ("first_index", first_index, 0)):
            check_integer(name, value, least)
        check_radius(scaled_radius)
        check_seed(seed)
        check_choice("unit", unit, UNITS)
        check_choice("density", density, DENSITIES)
        accept = Filter(valid_only, unique, must_contain)
        seed = secrets.randbits(63) if seed is None else int(seed)
        settings = DecodingSettings(beam_size, temperature, top_k, top_p, 1, grammar, max_tokens, seed if temperature else None)
        if smiles is None:
            _check_no_effect(scaled_radius=scaled_radius, unit=unit, on_invalid=on_invalid, standardise=standardise)
            draws: list[DrawLatents | None] = [self._draw_from(density, _generator(seed, first_index))]
        else:
            options = InputOptions(on_invalid, True, standardise, first_index, placeholder="None")
            draws = self._draw_around(smiles, options, float(scaled_radius), unit, seed)
        rows = [_Row(first_index + i, draw, [], Seen()) for i, draw in enumerate(draws) if draw is not None]
        self._fill(rows, int(n), accept, settings, 1 if accept.keeps_all else int(attempts))
        accepted = {row.number - first_index: row.accepted for row in rows}
        return accepted[0] if smiles is None else [accepted.get(i) for i in range(len(draws))]

    def interpolate(
        self,
        a: str,
        b: str,
        steps: int = 10,
        *,
        spherical: bool = False,
        unique: bool = False,
        max_tokens: int | None = None,
        on_invalid: str = "raise",
        standardise: Steps = (),
    ) -> list[Any]:
        """Decodes `steps` latents on a path between the posterior means of two molecules, both ends included.

        Args:
            a: The first molecule.
            b: The last molecule.
            steps: Number of latents.
            spherical: Follow an arc: the direction turns at a constant angle and the length changes at a constant rate (slerp). The line
                is straight otherwise. The centre is the mean of the aggregated posterior if its density was fitted, else 0.
            unique: Leave out molecules that occurred before on the path. They are compared by canonical SMILES.
            max_tokens: See `decode`.
            on_invalid: "raise", or "nan" to return None for all of them if an end is invalid.
            standardise: See `embed`.

        Returns:
            `steps` strings, or fewer with `unique`.

        Raises:
            InvalidSmilesError: If a molecule cannot be used and `on_invalid="raise"`.
            ConfigError: If `steps` is below 2, or if the model has no bottleneck or no decoder.
        """
        self._check_interpolation(steps)
        ends = self._posterior([a, b], InputOptions(on_invalid, True, standardise, placeholder="None")).mean_BKD
        found = self._decode_paths(ends, int(steps), spherical, unique, max_tokens)[0]
        return [None] * int(steps) if found is None else found

    def interpolate_pairs(
        self,
        pairs: Sequence[tuple[str, str]],
        steps: int = 10,
        *,
        spherical: bool = False,
        unique: bool = False,
        max_tokens: int | None = None,
        on_invalid: str = "raise",
        standardise: Steps = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> list[list[str] | None]:
        """`interpolate` for many pairs of molecules, which are encoded and decoded together. The latents of one batch are in memory.

        Args:
            pairs: N pairs of a first and a last molecule.
            steps: See `interpolate`, also for the other arguments.
            spherical: Follow an arc.
            unique: Leave out molecules that occurred before on the path of the same pair.
            max_tokens: See `decode`.
            on_invalid: "raise", or "nan" to return None for a pair with an invalid molecule.
            standardise: See `embed`.
            progress: Called with the number of valid pairs done and of all valid pairs.

        Returns:
            For each pair what `interpolate` returns; None for an invalid one.

        Raises:
            InvalidSmilesError: If there are no pairs, if an item is not a pair, or if a molecule cannot be used and
                `on_invalid="raise"`. Its index counts both molecules of each pair: 2 * i is the first molecule of pair i.
            ConfigError: See `interpolate`.
        """
        self._check_interpolation(steps)
        options = InputOptions(on_invalid, True, standardise, placeholder="None")
        ends = self._posterior(_ends(pairs), options).mean_BKD
        return self._decode_paths(ends, int(steps), spherical, unique, max_tokens, progress)

    def _check_interpolation(self, steps: int) -> None:
        require_decoder(self.config, "interpolate")
        require_bottleneck(self.config, "interpolate", "use a model that has one")
        check_integer("steps", steps, 2)

    def _decode_paths(
        self,
        ends: Tensor,
        steps: int,
        spherical: bool,
        unique: bool,
        max_tokens: int | None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[list[str] | None]:
        """What is decoded on the path of each pair of neighbouring rows of `ends`, [2 N, K, D]; None if one of them is NaN."""
        found: list[list[str] | None] = [None] * (len(ends) // 2)
        usable = (ends[::2] + ends[1::2]).isfinite().all((1, 2)).nonzero().flatten().tolist()
        at_once = max(1, DECODED_MOLECULES // steps)
        only_new = Filter(unique=unique)
        for start in range(0, len(usable), at_once):
            group = usable[start : start + at_once]
            paths = [self._path(ends[2 * pair], ends[2 * pair + 1], steps, spherical) for pair in group]
            texts = iter(self.decode(torch.cat(paths), max_tokens=max_tokens))
            for pair in group:
                seen = Seen()
                found[pair] = [text for text in itertools.islice(texts, steps) if only_new.accepts(text, seen)]
            if progress:
                progress(start + len(group), len(usable))
        return found

    def _path(self, start: Tensor, end: Tensor, steps: int, spherical: bool) -> Tensor:
        """Latents from one [K, D] to another, both included, [steps, K, D]."""
        fractions = torch.linspace(0, 1, steps)[:, None, None]
        if not spherical:
            return torch.lerp(start, end, fractions)
        centre = torch.zeros_like(start) if self.density is None else torch.from_numpy(self.density.mean_Z).view_as(start)
        return centre + _slerp(start - centre, end - centre, fractions)

    def _require_density(self, what: str, instead: str) -> LatentDensity:
        """The fitted density of the aggregated posterior.

        Raises:
            ConfigError: If the model has none; the message names what needs it and what to do instead.
        """
        if self.density is None:
            raise ConfigError(
                f"{what} needs a density of the aggregated posterior, and {model_name(self.config)} has none. Fit one with "
                f"`nemo-cmim fit-prior MODEL MOLECULES -o NEW.nemo`, or pass {instead}."
            )
        return self.density

    def _unit_step(self, unit: str, instead: str = 'unit="posterior" or unit="absolute"') -> np.ndarray | float:
        """What noise of N(0, I) is multiplied with for a radius of 1 in this unit: a matrix [Z, Z], or 1.0."""
        if unit == "spread":
            return self._require_density('unit="spread"', instead).spread_ZZ
        return 1.0

    def _draw_from(self, density: str, generator: np.random.Generator) -> DrawLatents:
        if density == "aggregated":
            fitted = self._require_density('density="aggregated"', 'density="normal"')
            return lambda n: fitted.sample(n, generator)
        size = self.config.network.latents * self.config.network.hidden_size
        return lambda n: generator.standard_normal((n, size), np.float32)

    def _draw_around(self, smiles: Any, options: InputOptions, radius: float, unit: str, seed: int) -> list[DrawLatents | None]:
        """How to draw latents around each molecule; None for an invalid one."""
        step = self._unit_step(unit)
        posterior = self._posterior(smiles, options)
        check_distance(radius, unit, posterior.variance_BKD.nan_to_num().sqrt().flatten(1).numpy() if unit == "posterior" else step)
        draws: list[DrawLatents | None] = []
        pairs = zip(posterior.mean_BKD.flatten(1).numpy(), posterior.variance_BKD.flatten(1).sqrt().numpy())
        for index, (mean_Z, std_Z) in enumerate(pairs):
            scale = std_Z if unit == "posterior" else step
            generator = _generator(seed, options.first_index + index)
            draws.append(_around(mean_Z, radius, scale, generator) if np.isfinite(mean_Z).all() else None)
        return draws

    def _fill(self, rows: list[_Row], n: int, accept: Filter, settings: DecodingSettings, attempts: int) -> None:
        """Draws and decodes until each row has n accepted molecules, or until it has drawn attempts * n."""
        while True:
            plan = {i: next_round(n, row.seen.kept, row.seen.drawn, attempts * n) for i, row in enumerate(rows)}
            plan = {i: count for i, count in plan.items() if count}
            if not plan:
                break
            owners = [i for i, count in plan.items() for _ in range(count)]
            numbers = (rows[i].number * _DRAWS_OF_A_ROW + rows[i].seen.drawn + j for i, count in plan.items() for j in range(count))
            texts = decode_batches(self.network, self.tokenizer, self._batches(rows, plan), settings, numbers)
            for i, (text, *_) in zip(owners, texts):
                if rows[i].seen.kept < n and accept.accepts(text, rows[i].seen):
                    rows[i].accepted.append(text)
        short = [row for row in rows if row.seen.kept < n]
        if short:
            warnings.warn(
                f"Fewer than {n:,} molecules met the conditions in {len(short)} of {len(rows)} rows; in row {short[0].number}, counted "
                f"from 0: {short[0].seen}. Allow more than attempts={attempts}, change the radius, or drop a condition.",
                stacklevel=3,
            )

    def _batches(self, rows: list[_Row], plan: dict[int, int]) -> Iterator[tuple[Tensor, None]]:
        """The latents of a round, in batches."""
        shape = (self.config.network.latents, self.config.network.hidden_size)
        pieces: list[np.ndarray] = []
        for i, count in plan.items():
            for start in range(0, count, DECODED_MOLECULES):
                pieces.append(rows[i].draw(min(DECODED_MOLECULES, count - start)))
                if sum(map(len, pieces)) >= DECODED_MOLECULES:
                    yield torch.from_numpy(np.concatenate(pieces)).view(-1, *shape).to(self.device), None
                    pieces = []
        if pieces:
            yield torch.from_numpy(np.concatenate(pieces)).view(-1, *shape).to(self.device), None


def _ends(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """The molecules of N pairs, [2 N]."""
    if isinstance(pairs, (str, bytes)) or not isinstance(pairs, Iterable):
        raise InvalidSmilesError(f"pairs must be a sequence of pairs of molecules, found {shorten(pairs)}. Pass [(a, b)].")
    ends: list[str] = []
    for i, pair in enumerate(pairs):
        if isinstance(pair, (str, bytes)) or not hasattr(pair, "__len__") or len(pair) != 2:
            raise InvalidSmilesError(
                f"pairs must be a sequence of pairs of molecules, but item {i} is {shorten(pair)}. Pass [(a, b)]."
            )
        ends.extend(pair)
    return ends


def check_distance(radius: float, unit: str, scale: np.ndarray | float) -> None:
    """Checks that draws around molecules are latents that can be decoded.

    Args:
        radius: `scaled_radius`.
        unit: Its unit, for the message.
        scale: What noise is multiplied with for a radius of 1: L [Z, Z], standard deviations [N, Z], or a number.

    Raises:
        ConfigError: If draws may exceed `decoding.LARGEST`.
    """
    size = np.linalg.norm(scale, axis=1) if unit == "spread" else np.abs(scale)
    largest = _LARGEST_NOISE * radius * float(np.max(size))
    if largest > LARGEST:
        raise ConfigError(
            f"scaled_radius={radius:g} with unit={unit} gives latents of up to {largest:.3g}, but latents are numbers of the order of 1, "
            f"and at most {LARGEST:g}. Pass a smaller radius."
        )


def next_round(n: int, accepted: int, drawn: int, most: int) -> int:
    """How many latents to draw next: as many as the rate of acceptance so far makes necessary, within what is left of `most`."""
    if accepted >= n:
        return 0
    rate = max(_LEAST_RATE, accepted / drawn) if drawn else 1.0
    return min(math.ceil((n - accepted) / rate), most - drawn)


def _around(mean_Z: np.ndarray, radius: float, scale: np.ndarray | float, generator: np.random.Generator) -> DrawLatents:
    def draw(n: int) -> np.ndarray:
        noise_nZ = generator.standard_normal((n, len(mean_Z)), np.float32)
        scaled_nZ = noise_nZ @ scale.T if np.ndim(scale) == 2 else noise_nZ * scale  # type: ignore[union-attr]
        return (mean_Z + radius * scaled_nZ).astype(np.float32)

    return draw


def _generator(seed: int, row: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([seed, _FIRST_NUMBER + row], np.uint64)))


def _slerp(a: Tensor, b: Tensor, fractions: Tensor) -> Tensor:
    """Spherical interpolation between two vectors; a straight line if their directions are equal or opposite."""
    length_a, length_b = a.norm(), b.norm()
    cosine = ((a * b).sum() / (length_a * length_b)).clamp(-1, 1)
    angle = torch.arccos(cosine)
    if not 1e-4 < float(angle) < math.pi - 1e-4:
        return torch.lerp(a, b, fractions)
    turned = (torch.sin((1 - fractions) * angle) * a / length_a + torch.sin(fractions * angle) * b / length_b) / torch.sin(angle)
    return turned * torch.lerp(length_a, length_b, fractions)


def _check_no_effect(**arguments: Any) -> None:
    """Raises a `ConfigError` if an argument that has no effect without `smiles` is not the default."""
    defaults = {"scaled_radius": (0.25,), "unit": ("spread",), "on_invalid": ("raise",), "standardise": ((), [], "", False)}
    for name, value in arguments.items():
        if value not in defaults[name]:
            raise ConfigError(f"{name} has no effect without smiles. Pass smiles=[...], or leave {name} out.")
