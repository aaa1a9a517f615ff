"""The density of the aggregated posterior."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from nemo_cmim.errors import ConfigError, DataError
from nemo_cmim.generation import LatentDensity

RNG = np.random.default_rng(0)
TWO_GROUPS = np.concatenate([RNG.normal(-4, 1, (400, 3)), RNG.normal(4, 0.5, (400, 3))]).astype(np.float32)
NO_VARIANCE = np.zeros_like(TWO_GROUPS)


def test_one_gaussian_has_the_moments_of_the_posteriors() -> None:
    z = RNG.normal(size=(4000, 2)) @ [[2.0, 1.0], [0.0, 0.5]] + [3, -1]
    density = LatentDensity.fit(z, np.full_like(z, 0.25))
    np.testing.assert_allclose(density.mean_Z, z.mean(0), rtol=1e-5)
    covariance = density.spread_ZZ @ density.spread_ZZ.T
    np.testing.assert_allclose(covariance, np.cov(z.T) + 0.25 * np.eye(2), atol=0.05)
    drawn = density.sample(20_000, np.random.default_rng(1))
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=0.15)
    assert abs(float(np.sqrt(np.square(density.distance(drawn)).mean())) - 1) < 0.02


def test_a_mixture_describes_two_groups_and_one_gaussian_does_not() -> None:
    one, two = (LatentDensity.fit(TWO_GROUPS, NO_VARIANCE, components=m, seed=3) for m in (1, 2))
    assert (np.abs(one.sample(1000, np.random.default_rng(0)).mean(1)) < 1.5).mean() > 0.1
    drawn = two.sample(1000, np.random.default_rng(0))
    assert (np.abs(drawn.mean(1)) > 1.5).all() and 0.4 < (drawn.mean(1) > 0).mean() < 0.6
    np.testing.assert_allclose(two.spread_ZZ @ two.spread_ZZ.T, np.cov(TWO_GROUPS.T), rtol=0.02)


def test_a_kernel_density_estimate_keeps_the_covariance_and_the_groups() -> None:
    density = LatentDensity.fit_kernels(TWO_GROUPS, NO_VARIANCE, 700, 0.2, seed=1)
    assert density.means_MZ.shape == (700, 3) and density.factors_FZZ.shape == (1, 3, 3)
    np.testing.assert_allclose(density.spread_ZZ @ density.spread_ZZ.T, np.cov(TWO_GROUPS.T), rtol=0.05)
    drawn = density.sample(20_000, np.random.default_rng(0))
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(TWO_GROUPS.T), rtol=0.05)
    assert drawn.dtype == np.float32 and (np.abs(drawn.mean(1)) > 1).mean() > 0.99
    assert str(density) == "a kernel density estimate of 700 kernels"


@pytest.mark.parametrize("kernels, bandwidth", [(2, 0.001), (20, 0.25), (800, 1.0)])
def test_the_unit_of_radii_does_not_depend_on_the_kernels(kernels: int, bandwidth: float) -> None:
    one = LatentDensity.fit(TWO_GROUPS, NO_VARIANCE + 0.1)
    density = LatentDensity.fit_kernels(TWO_GROUPS, NO_VARIANCE + 0.1, kernels, bandwidth)
    np.testing.assert_array_equal(density.spread_ZZ, one.spread_ZZ)
    np.testing.assert_array_equal(density.mean_Z, one.mean_Z)
    np.testing.assert_array_equal(density.distance(TWO_GROUPS), one.distance(TWO_GROUPS))


def test_centres_that_float16_cannot_hold_stay_float32() -> None:
    density = LatentDensity.fit_kernels(1e6 * TWO_GROUPS, NO_VARIANCE, 50)
    assert density.means_MZ.dtype == np.float32 and np.isfinite(density.means_MZ).all()
    assert LatentDensity.loads(density.dumps()).means_MZ.dtype == np.float32


def test_kernels_are_at_least_as_wide_as_the_posteriors() -> None:
    density = LatentDensity.fit_kernels(TWO_GROUPS, np.full_like(TWO_GROUPS, 9.0), 700, 0.1)
    np.testing.assert_allclose(density.spread_ZZ @ density.spread_ZZ.T, np.cov(TWO_GROUPS.T) + 9 * np.eye(3), rtol=0.05)


def test_a_wide_kernel_is_the_gaussian() -> None:
    variances = np.full_like(TWO_GROUPS, 0.5)
    wide, one = LatentDensity.fit_kernels(TWO_GROUPS, variances, 5, 1.0), LatentDensity.fit(TWO_GROUPS, variances)
    np.testing.assert_allclose(wide.means_MZ, np.tile(one.mean_Z, (5, 1)), atol=2e-3)
    np.testing.assert_array_equal(wide.factors_FZZ, one.factors_FZZ)
    assert len(LatentDensity.fit_kernels(TWO_GROUPS[:4], NO_VARIANCE[:4]).weights_M) == 4


FITTED = (
    LatentDensity.fit(TWO_GROUPS, NO_VARIANCE, components=2),
    LatentDensity.fit(TWO_GROUPS, NO_VARIANCE),
    LatentDensity.fit_kernels(TWO_GROUPS, NO_VARIANCE, 100),
)


@pytest.mark.parametrize("density", FITTED, ids=str)
def test_bytes_give_the_same_density(density: LatentDensity) -> None:
    again = LatentDensity.loads(density.dumps())
    for field in dataclasses.fields(density):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(density, field.name))


@pytest.mark.parametrize(
    "change",
    [
        {"weights_M": np.array([0.5, 0.6], np.float32)},
        {"weights_M": np.array([1.5, -0.5], np.float32)},
        {"means_MZ": np.full((2, 3), np.nan, np.float32)},
        {"means_MZ": np.zeros((2, 4), np.float32)},
        {"factors_FZZ": np.zeros((2, 3, 3), np.float32)},
        {"factors_FZZ": np.zeros((2, 3, 3), np.float64)},
        {"mean_Z": np.zeros(2, np.float32)},
        {"spread_ZZ": np.zeros((3, 3), np.float32)},
        {"spread_ZZ": np.full((3, 3), np.inf, np.float32)},
    ],
)
def test_damaged_bytes_raise(change: dict[str, np.ndarray]) -> None:
    density = LatentDensity.fit(TWO_GROUPS, NO_VARIANCE, components=2)
    with pytest.raises(DataError, match="is not a density of latents"):
        LatentDensity.loads(dataclasses.replace(density, **change).dumps())
    with pytest.raises(DataError, match="is not a density of latents"):
        LatentDensity.loads(density.dumps()[:100])


def test_too_few_molecules_and_wrong_numbers_raise() -> None:
    with pytest.raises(DataError, match=r"in 3 dimensions needs at least 7 molecules for 10 component.*, found 5"):
        LatentDensity.fit(TWO_GROUPS[:5], NO_VARIANCE[:5], components=10)
    with pytest.raises(ConfigError, match="components must be at most 64"):
        LatentDensity.fit(TWO_GROUPS, NO_VARIANCE, components=65)
    with pytest.raises(DataError, match=r"needs at least 2 molecules for 1 component.*, found 1"):
        LatentDensity.fit_kernels(TWO_GROUPS[:1], NO_VARIANCE[:1])
    with pytest.raises(DataError, match="All molecules have the same latent"):
        LatentDensity.fit_kernels(np.ones((9, 3)), np.zeros((9, 3)))
    with pytest.raises(ConfigError, match="kernels must be at least 2, found 1"):
        LatentDensity.fit_kernels(TWO_GROUPS, NO_VARIANCE, 1)
    with pytest.raises(ConfigError, match=r"bandwidth must be a number above 0 and at most 1, found 1\.5"):
        LatentDensity.fit_kernels(TWO_GROUPS, NO_VARIANCE, bandwidth=1.5)
