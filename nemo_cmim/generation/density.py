"""Density of the aggregated posterior: where the latents of molecules lie.

MIM drives the variance of q(z|x) towards 0, and the latents of all molecules together are not N(0, I). Most draws from N(0, I) are
therefore far from all latents that the decoder was trained on. The density is estimated after training, from the posteriors of molecules
(ex-post density estimation, Ghosh et al. 2020).

N latents, M components, Z = K * D numbers of a latent.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from ..arguments import check_integer, check_seed
from ..errors import DataError

__all__ = ["DENSITY", "MAX_COMPONENTS", "LatentDensity"]

DENSITY = "latent_density.safetensors"
"""Name of the member of a model file."""

MAX_COMPONENTS = 64


@dataclass(frozen=True)
class LatentDensity:
    """A mixture of M Gaussians with full covariance matrices.

    Attributes:
        weights_M: Probabilities of the components, float32.
        means_MZ: Their means, float32.
        factors_MZZ: Cholesky factors of their covariance matrices, lower triangular, float32.
    """

    weights_M: NDArray[np.float32]
    means_MZ: NDArray[np.float32]
    factors_MZZ: NDArray[np.float32]

    @classmethod
    def fit(
        cls, means_NZ: NDArray[np.floating], variances_NZ: NDArray[np.floating], components: int = 1, seed: int = 0
    ) -> LatentDensity:
        """Fits the mixture of N posteriors q(z|x).

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
        from sklearn.covariance import LedoitWolf
        from sklearn.mixture import GaussianMixture

        check_integer("components", components, 1, MAX_COMPONENTS)
        check_seed(seed)
        z_NZ = np.asarray(means_NZ, np.float64)
        needed = max(2, components * z_NZ.shape[1] // 4)
        if len(z_NZ) < needed:
            raise DataError(
                f"The density of {components} component(s) in {z_NZ.shape[1]} dimensions needs at least {needed:,} different molecules, "
                f"found {len(z_NZ):,}. Pass more molecules."
            )
        noise_Z = np.asarray(variances_NZ, np.float64).mean(0)
        if components == 1:
            fitted = LedoitWolf().fit(z_NZ)
            weights, means, covariances = np.ones(1), fitted.location_[None], fitted.covariance_[None]
        else:
            smallest = 1e-4 * z_NZ.var(0).mean()
            mixture = GaussianMixture(components, reg_covar=smallest, random_state=int(seed) % 2**32).fit(z_NZ)
            weights, means, covariances = mixture.weights_, mixture.means_, mixture.covariances_
        factors = np.linalg.cholesky(covariances + np.diag(noise_Z))
        return cls(*(part.astype(np.float32) for part in (weights, means, factors)))

    @property
    def size(self) -> int:
        """Z."""
        return self.means_MZ.shape[1]

    def sample(self, n: int, generator: np.random.Generator) -> NDArray[np.float32]:
        """Draws n latents, float32 [n, Z]."""
        component_n = generator.choice(len(self.weights_M), n, p=self._probabilities_M)
        noise_nZ = generator.standard_normal((n, self.size), np.float32)
        z_nZ = self.means_MZ[component_n]
        for component in np.unique(component_n):
            rows = component_n == component
            z_nZ[rows] += noise_nZ[rows] @ self.factors_MZZ[component].T
        return z_nZ

    @cached_property
    def mean_Z(self) -> NDArray[np.float32]:
        """Mean of the density, float32 [Z]."""
        return (self._probabilities_M @ self.means_MZ).astype(np.float32)

    @cached_property
    def spread_ZZ(self) -> NDArray[np.float32]:
        """Cholesky factor L of the covariance of the whole density, float32 [Z, Z]: the unit of radii. L @ noise has this covariance."""
        if len(self.weights_M) == 1:
            return self.factors_MZZ[0]
        factors, offsets = self.factors_MZZ.astype(np.float64), self.means_MZ - self.mean_Z.astype(np.float64)
        within = np.einsum("m,mij,mkj->ik", self._probabilities_M, factors, factors)
        between = np.einsum("m,mi,mk->ik", self._probabilities_M, offsets, offsets)
        return np.linalg.cholesky(within + between).astype(np.float32)

    def distance(self, z_NZ: NDArray[np.floating]) -> NDArray[np.float64]:
        """Distance from the mean in units of the spread: the root mean square of L^-1 (z - mean), float64 [N]. Near 1 for draws."""
        from scipy.linalg import solve_triangular

        whitened_ZN = solve_triangular(self.spread_ZZ.astype(np.float64), (z_NZ - self.mean_Z).T, lower=True)
        return np.sqrt(np.square(whitened_ZN).mean(0))

    def dumps(self) -> bytes:
        """The bytes of the member `DENSITY`."""
        parts = {"weights": self.weights_M, "means": self.means_MZ, "factors": self.factors_MZZ}
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
            shapes = [part.shape for part in (density.weights_M, density.factors_MZZ)]
            if parts or not 1 <= count <= MAX_COMPONENTS or shapes != [(count,), (count, size, size)]:
                raise ValueError("the shapes of its arrays do not match")
            arrays = (density.weights_M, density.means_MZ, density.factors_MZZ)
            if any(part.dtype != np.float32 or not np.isfinite(part).all() for part in arrays):
                raise ValueError("its numbers must be finite and float32")
            diagonals = np.diagonal(density.factors_MZZ, axis1=1, axis2=2)
            if (density.weights_M <= 0).any() or abs(density.weights_M.sum() - 1) > 1e-3 or (diagonals <= 0).any():
                raise ValueError("weights must be positive with the sum 1, and diagonals of the factors positive")
        except (safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
            raise DataError(f"{DENSITY} is not a density of latents ({error}).") from error
        return density

    @cached_property
    def _probabilities_M(self) -> NDArray[np.float64]:
        weights_M = self.weights_M.astype(np.float64)
        return weights_M / weights_M.sum()
