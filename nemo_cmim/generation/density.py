"""Density of the aggregated posterior: where the latents of molecules lie.

MIM drives the variance of q(z|x) towards 0, and the latents of all molecules together are not N(0, I). Most draws from N(0, I) are
therefore far from all latents that the decoder was trained on. The density is estimated after training, from the posteriors of molecules
(ex-post density estimation, Ghosh et al. 2020): as a mixture of a few Gaussians, or as a kernel density estimate, which is the aggregated
posterior of some of the molecules with wider posteriors.

N latents, M components, F factors (one of each component, or 1 that all share), Z = K * D numbers of a latent.
"""

from __future__ import annotations

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
    """

    weights_M: NDArray[np.float32]
    means_MZ: NDArray[np.floating]
    factors_FZZ: NDArray[np.float32]

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
            location_Z, covariance_ZZ = _shrunk(z_NZ)
            weights, means, covariances = np.ones(1), location_Z[None], covariance_ZZ[None]
        else:
            smallest = 1e-4 * z_NZ.var(0).mean()
            mixture = GaussianMixture(components, reg_covar=smallest, random_state=int(seed) % 2**32).fit(z_NZ)
            weights, means, covariances = mixture.weights_, mixture.means_, mixture.covariances_
        factors = _factors(covariances + np.diag(noise_Z))
        return cls(*(part.astype(np.float32) for part in (weights, means, factors)))

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
        location_Z, covariance_ZZ = _shrunk(z_NZ)
        chosen = np.random.default_rng(seed).permutation(len(z_NZ))[:kernels]
        centres = location_Z + np.sqrt(1 - bandwidth**2) * (z_NZ[chosen] - location_Z)
        factor = _factors(bandwidth**2 * covariance_ZZ + np.diag(np.asarray(variances_NZ, np.float64).mean(0)))
        weights = np.full(len(chosen), 1 / len(chosen), np.float32)
        return cls(weights, centres.astype(np.float16), factor[None].astype(np.float32))

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

    @cached_property
    def mean_Z(self) -> NDArray[np.float32]:
        """Mean of the density, float32 [Z]."""
        return (self._probabilities_M @ self.means_MZ).astype(np.float32)

    @cached_property
    def spread_ZZ(self) -> NDArray[np.float32]:
        """Cholesky factor L of the covariance of the whole density, float32 [Z, Z]: the unit of radii. L @ noise has this covariance."""
        if len(self.weights_M) == 1:
            return self.factors_FZZ[0]
        factors, offsets = self.factors_FZZ.astype(np.float64), self.means_MZ - self.mean_Z.astype(np.float64)
        shares = self._probabilities_M if len(factors) > 1 else np.ones(1)
        within = np.einsum("f,fij,fkj->ik", shares, factors, factors)
        between = (offsets.T * self._probabilities_M) @ offsets
        return np.linalg.cholesky(within + between).astype(np.float32)

    def distance(self, z_NZ: NDArray[np.floating]) -> NDArray[np.float64]:
        """Distance from the mean in units of the spread: the root mean square of L^-1 (z - mean), float64 [N]. Near 1 for draws."""
        from scipy.linalg import solve_triangular

        whitened_ZN = solve_triangular(self.spread_ZZ.astype(np.float64), (z_NZ - self.mean_Z).T, lower=True)
        return np.sqrt(np.square(whitened_ZN).mean(0))

    def dumps(self) -> bytes:
        """The bytes of the member `DENSITY`."""
        parts = {"weights": self.weights_M, "means": self.means_MZ, "factors": self.factors_FZZ}
        return safetensors.numpy.save({name: np.ascontiguousarray(part) for name, part in parts.items()})

    @classmethod
    def loads(cls, content: bytes) -> LatentDensity:
        """Reads the bytes of `dumps`.

        Raises:
            DataError: If they are not a density.
        """
        try:
            parts = safetensors.numpy.load(content)
            density = cls(parts.pop("weights"), parts.pop("means"), parts.pop("factors"))
            count, size = density.means_MZ.shape
            factors = density.factors_FZZ
            shapes = density.weights_M.shape == (count,) and factors.shape in ((count, size, size), (1, size, size))
            if parts or not shapes or not 1 <= count <= (MAX_KERNELS if len(factors) == 1 else MAX_COMPONENTS):
                raise ValueError("the shapes of its arrays do not match")
            half = np.float16 if density.means_MZ.dtype == np.float16 else np.float32
            arrays = (density.weights_M, density.means_MZ, factors)
            if any(part.dtype != kind or not np.isfinite(part).all() for part, kind in zip(arrays, (np.float32, half, np.float32))):
                raise ValueError("its numbers must be finite and float32, and the means float32 or float16")
            diagonals = np.diagonal(factors, axis1=1, axis2=2)
            if (density.weights_M <= 0).any() or abs(density.weights_M.sum() - 1) > 1e-3 or (diagonals <= 0).any():
                raise ValueError("weights must be positive with the sum 1, and diagonals of the factors positive")
        except (safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
            raise DataError(f"{DENSITY} is not a density of latents ({error}).") from error
        return density

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


def _shrunk(z_NZ: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and Ledoit-Wolf estimate of the covariance."""
    from sklearn.covariance import LedoitWolf

    fitted = LedoitWolf().fit(z_NZ)
    return fitted.location_, fitted.covariance_
