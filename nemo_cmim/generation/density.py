"""Density of the aggregated posterior: where the latents of molecules lie.

MIM drives the variance of q(z|x) towards 0, and the latents of all molecules together are not N(0, I). Most draws from N(0, I) are
therefore far from all latents that the decoder was trained on. The density is estimated after training, from the posteriors of molecules
(ex-post density estimation, Ghosh et al. 2020): as a mixture of a few Gaussians, or as a kernel density estimate, which is the aggregated
posterior of some of the molecules with wider posteriors.

N latents, M components, F factors (one of each component, or 1 that all share), Z = K * D numbers of a latent.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from ..arguments import check_integer, check_positive, check_seed
from ..errors import DataError

__all__ = ["BANDWIDTH", "DENSITY", "KERNELS", "MAX_COMPONENTS", "MAX_KERNELS", "LatentDensity"]

DENSITY = "latent_density.safetensors"
"""Name of the member of a model file."""

MAX_COMPONENTS = 64
"""Largest number of Gaussians of a mixture."""

MAX_KERNELS = 16_384
"""Largest number of kernels; 256 numbers of each take 8 MB."""

_NAMES = ("weights", "means", "factors", "mean", "spread")  # of the arrays of the file, in the order of the fields

KERNELS = 1024
BANDWIDTH = 0.25
"""Defaults of `LatentDensity.fit_kernels`; the bandwidth is also the default radius of samples around molecules."""


@dataclass(frozen=True)
class LatentDensity:
    """A mixture of M Gaussians with full covariance matrices, either their own ones or one that all share.

    Attributes:
        weights_M: Probabilities of the components, float32.
        means_MZ: Their means, float32 or float16.
        factors_FZZ: Cholesky factors of their covariance matrices, lower triangular, float32. F is M, or 1 if they share one.
        mean_Z: Mean of the aggregated posterior, float32.
        spread_ZZ: Cholesky factor L of its covariance, float32: the unit of radii. L @ noise has this covariance. It is estimated from
            all N posteriors, so that it does not depend on the number of kernels or their bandwidth.
    """

    weights_M: NDArray[np.float32]
    means_MZ: NDArray[np.floating]
    factors_FZZ: NDArray[np.float32]
    mean_Z: NDArray[np.float32]
    spread_ZZ: NDArray[np.float32]

    @classmethod
    def fit(
        cls, means_NZ: NDArray[np.floating], variances_NZ: NDArray[np.floating], components: int = 1, seed: int = 0
    ) -> LatentDensity:
        """Fits a mixture of a few Gaussians to N posteriors q(z|x).

        One component has the Ledoit-Wolf estimate of the covariance, which is shrunk towards a multiple of the identity; several are
        fitted by expectation maximisation. The mean of the posterior variances is added to each covariance.

        Args:
            means_NZ: Means of the posteriors.
            variances_NZ: Their variances.
            components: M, 1 to 64.
            seed: Seed of the initialisation of several components.

        Raises:
            ConfigError: If `components` or `seed` is out of range.
            DataError: If there are fewer than 2 molecules, or fewer than Z / 4 for each component.
        """
        from sklearn.mixture import GaussianMixture

        check_integer("components", components, 1, MAX_COMPONENTS)
        check_seed(seed)
        z_NZ = np.asarray(means_NZ, np.float64)
        _check_count(z_NZ, components)
        noise_Z = np.asarray(variances_NZ, np.float64).mean(0)
        if components == 1:
            mean_Z, covariance_ZZ = _shrunk(z_NZ)
            weights, means, covariances = np.ones(1), mean_Z[None], covariance_ZZ[None]
        else:
            smallest = 1e-4 * z_NZ.var(0).mean()
            mixture = GaussianMixture(components, reg_covar=smallest, random_state=int(seed) % 2**32).fit(z_NZ)
            weights, means, covariances = mixture.weights_, mixture.means_, mixture.covariances_
            mean_Z, covariance_ZZ = _moments(weights, means, covariances)
        factors, spread_ZZ = _factors(covariances + np.diag(noise_Z)), _factors(covariance_ZZ + np.diag(noise_Z))
        return cls(*(part.astype(np.float32) for part in (weights, means, factors, mean_Z, spread_ZZ)))

    @classmethod
    def fit_kernels(
        cls,
        means_NZ: NDArray[np.floating],
        variances_NZ: NDArray[np.floating],
        kernels: int = KERNELS,
        bandwidth: float = BANDWIDTH,
        seed: int = 0,
    ) -> LatentDensity:
        """Fits a kernel density estimate to N posteriors q(z|x).

        The kernels are Gaussians around the means of M random posteriors. Their covariance is the mean of the posterior variances, and
        the squared bandwidth times the covariance of the means (Ledoit-Wolf estimate). The centres are moved towards the mean of all
        by the factor sqrt(1 - bandwidth^2), so that the whole density has the covariance of the aggregated posterior (West 1993).

        Args:
            means_NZ: Means of the posteriors.
            variances_NZ: Their variances.
            kernels: M, 2 to 16,384; all N posteriors if there are fewer.
            bandwidth: Spread of a kernel in units of the spread of all means, above 0 and at most 1. A small one gives valid molecules that
                are close to known ones, 1 the single Gaussian of `fit`.
            seed: Seed of the choice of the posteriors.

        Raises:
            ConfigError: If an argument is out of range.
            DataError: If there are too few molecules, see `fit`.
        """
        check_integer("kernels", kernels, 2, MAX_KERNELS)
        check_positive("bandwidth", bandwidth, 1)
        check_seed(seed)
        z_NZ = np.asarray(means_NZ, np.float64)
        _check_count(z_NZ, 1)
        mean_Z, covariance_ZZ = _shrunk(z_NZ)
        noise_ZZ = np.diag(np.asarray(variances_NZ, np.float64).mean(0))
        chosen = np.random.default_rng(seed).permutation(len(z_NZ))[:kernels]
        centres = mean_Z + np.sqrt(1 - bandwidth**2) * (z_NZ[chosen] - mean_Z)
        stored = np.float16 if np.abs(centres).max() < np.finfo(np.float16).max else np.float32
        factor_ZZ, spread_ZZ = _factors(bandwidth**2 * covariance_ZZ + noise_ZZ), _factors(covariance_ZZ + noise_ZZ)
        weights = np.full(len(chosen), 1 / len(chosen), np.float32)
        return cls(weights, centres.astype(stored), *(part.astype(np.float32) for part in (factor_ZZ[None], mean_Z, spread_ZZ)))

    def __str__(self) -> str:
        count, shared = len(self.weights_M), len(self.factors_FZZ) == 1 < len(self.weights_M)
        return f"a kernel density estimate of {count:,} kernels" if shared else f"a mixture of {count} Gaussian{'s' * (count > 1)}"

    @property
    def size(self) -> int:
        """Z."""
        return self.means_MZ.shape[1]

    def sample(self, n: int, generator: np.random.Generator) -> NDArray[np.float32]:
        """Draws n latents, float32 [n, Z]."""
        component_n = generator.choice(len(self.weights_M), n, p=self._probabilities_M)
        noise_nZ = generator.standard_normal((n, self.size), np.float32)
        z_nZ = self.means_MZ[component_n].astype(np.float32)
        if len(self.factors_FZZ) == 1:
            return z_nZ + noise_nZ @ self.factors_FZZ[0].T
        for component in np.unique(component_n):
            rows = component_n == component
            z_nZ[rows] += noise_nZ[rows] @ self.factors_FZZ[component].T
        return z_nZ

    def distance(self, z_NZ: NDArray[np.floating]) -> NDArray[np.float64]:
        """Distance from the mean in units of the spread: the root mean square of L^-1 (z - mean), float64 [N].

        It is 1 or less for most molecules, since the estimate of the covariance widens directions with hardly any variance.
        """
        from scipy.linalg import solve_triangular

        whitened_ZN = solve_triangular(self.spread_ZZ.astype(np.float64), (z_NZ - self.mean_Z).T, lower=True)
        return np.sqrt(np.square(whitened_ZN).mean(0))

    def dumps(self) -> bytes:
        """The bytes of the member `DENSITY`."""
        parts = zip(_NAMES, dataclasses.astuple(self), strict=True)
        return safetensors.numpy.save({name: np.ascontiguousarray(part) for name, part in parts})

    @classmethod
    def loads(cls, content: bytes) -> LatentDensity:
        """Reads the bytes of `dumps`.

        Raises:
            DataError: If they are not a density.
        """
        try:
            parts = safetensors.numpy.load(content)
            density = cls(*(parts.pop(name) for name in _NAMES))
            density._check_arrays()
            if parts:
                raise ValueError(f"it has the unknown array {min(parts)}")
        except (safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
            raise DataError(f"{DENSITY} is not a density of latents ({error}).") from error
        return density

    def _check_arrays(self) -> None:
        count, size = self.means_MZ.shape
        factors = self.factors_FZZ
        shapes = (self.weights_M.shape, self.mean_Z.shape, self.spread_ZZ.shape) == ((count,), (size,), (size, size))
        if not shapes or factors.shape not in ((count, size, size), (1, size, size)):
            raise ValueError("the shapes of its arrays do not match")
        if not 1 <= count <= (MAX_KERNELS if len(factors) == 1 else MAX_COMPONENTS):
            raise ValueError(f"it has {count} components")
        float32 = all(part.dtype == np.float32 for part in (self.weights_M, factors, self.mean_Z, self.spread_ZZ))
        if not float32 or self.means_MZ.dtype not in (np.float16, np.float32):
            raise ValueError("its numbers must be float32, and the means float32 or float16")
        if not all(np.isfinite(part).all() for part in dataclasses.astuple(self)):
            raise ValueError("its numbers must be finite")
        diagonals = (np.diagonal(factors, axis1=1, axis2=2), np.diagonal(self.spread_ZZ))
        if any((diagonal <= 0).any() for diagonal in diagonals):
            raise ValueError("the diagonals of its factors must be positive")
        if (self.weights_M <= 0).any() or abs(self.weights_M.sum() - 1) > 1e-3:
            raise ValueError("its weights must be positive with the sum 1")

    @cached_property
    def _probabilities_M(self) -> NDArray[np.float64]:
        weights_M = self.weights_M.astype(np.float64)
        return weights_M / weights_M.sum()


def _check_count(z_NZ: NDArray[np.float64], components: int) -> None:
    needed = max(2, components * z_NZ.shape[1] // 4)
    if len(z_NZ) < needed:
        raise DataError(
            f"A density of latents in {z_NZ.shape[1]} dimensions needs at least {needed:,} molecules for {components} component(s), "
            f"found {len(z_NZ):,}. Pass more molecules."
        )


def _factors(covariances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cholesky factors [..., Z, Z]."""
    try:
        return np.asarray(np.linalg.cholesky(covariances), np.float64)
    except np.linalg.LinAlgError as error:
        raise DataError("All molecules have the same latent, so there is no density to fit. Pass different molecules.") from error


def _moments(
    weights_M: NDArray[np.float64], means_MZ: NDArray[np.float64], covariances_MZZ: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and covariance of a mixture."""
    mean_Z = weights_M @ means_MZ
    offsets_MZ = means_MZ - mean_Z
    return mean_Z, np.einsum("m,mij->ij", weights_M, covariances_MZZ) + (offsets_MZ.T * weights_M) @ offsets_MZ


def _shrunk(z_NZ: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and Ledoit-Wolf estimate of the covariance."""
    from sklearn.covariance import LedoitWolf

    fitted = LedoitWolf().fit(z_NZ)
    return fitted.location_, fitted.covariance_
