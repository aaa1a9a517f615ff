"""What requests ask the worker for, and the errors with which it can fail. No HTTP, no torch."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidSmilesError

__all__ = ["BadMolecules", "Decode", "Dropped", "Embed", "Generate", "Hidden", "Molecules", "Request", "Sample"]


class BadMolecules(InvalidSmilesError):
    """Molecules of a request that cannot be used.

    Attributes:
        field: Name of the field of the request.
        reasons: Why a molecule cannot be used, by its index; None if the field is a single molecule.
    """

    def __init__(self, field: str, reasons: Mapping[Any, str]) -> None:
        super().__init__(f"{len(reasons)} molecules of {field} cannot be used")
        self.field, self.reasons = field, dict(reasons)


class Dropped(BaseException):
    """Raised inside a computation whose result nobody waits for any more. Functions that catch each `Exception` do not catch it."""


@dataclass(frozen=True)
class Molecules:
    """Molecules that get a vector each."""

    sequences: Sequence[str]

    @property
    def rows(self) -> int:
        """Number of molecules."""
        return len(self.sequences)


@dataclass(frozen=True)
class Embed(Molecules):
    """Vectors of molecules. `kind=None` is MolMIM's embedding: the posterior mean, averaged over the latents."""

    kind: str | None = None
    layers: tuple[int, ...] | None = None
    on_invalid: str = "raise"

    @property
    def key(self) -> Hashable:
        """Requests with equal keys are computed together; None: not together with others."""
        return "embed", "informative" if self.kind == "informative" else "mean", self.layers


@dataclass(frozen=True)
class Hidden(Molecules):
    """Posterior means of molecules."""

    @property
    def key(self) -> Hashable:
        """See `Embed`; the same computation as the posterior mean."""
        return "embed", "mean", None


@dataclass(frozen=True)
class Decode:
    """SMILES of latents, an array [N, K, D]."""

    latents: Any

    @property
    def key(self) -> Hashable:
        """See `Embed`."""
        return ("decode",)

    @property
    def rows(self) -> int:
        """Number of latents."""
        return len(self.latents)


@dataclass(frozen=True)
class Sample:
    """Molecules around molecules; see `CMIMModel.sample`."""

    sequences: Sequence[str]
    beam_size: int
    num_molecules: int
    scaled_radius: float
    unit: str
    seed: int | None
    temperature: float | None = None
    must_contain: str | Sequence[str] | None = ()
    unique: bool = False
    attempts: int = 1
    key: Hashable = None

    @property
    def rows(self) -> int:
        """Largest number of molecules that are decoded."""
        return len(self.sequences) * self.num_molecules * self.beam_size * self.attempts


@dataclass(frozen=True)
class Generate:
    """A search; see `CMIMModel.optimize`."""

    smi: str
    algorithm: str
    num_molecules: int
    property_name: str
    minimize: bool
    min_similarity: float
    particles: int
    iterations: int
    scaled_radius: float
    unit: str
    seed: int | None
    key: Hashable = None

    @property
    def rows(self) -> int:
        """Number of molecules that are decoded."""
        return self.particles * self.iterations


Request = Embed | Hidden | Decode | Sample | Generate
