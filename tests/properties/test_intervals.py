"""Coverage of prediction intervals and sets; distances to the training set."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nemo_cmim.molecules import morgan_fingerprints
from nemo_cmim.properties.domain import Domain
from nemo_cmim.properties.intervals import conformal_quantile, fewest_scores, held_out_coverage, prediction_sets
from tests.properties.property_data import SMILES


def test_the_quantile_is_the_one_of_the_definition() -> None:
    scores = np.array([3.0, 1.0, 2.0, 5.0, 4.0, 9.0, 7.0, 6.0, 8.0])
    assert conformal_quantile(scores, 0.9) == 9  # ceil(10 * 0.9) = 9th of 9
    assert conformal_quantile(scores, 0.5) == 5
    assert conformal_quantile(scores, 0.91) == math.inf
    assert conformal_quantile(np.empty(0), 0.5) == math.inf
    for coverage in (0.5, 0.8, 0.9, 0.95, 0.99):
        fewest = fewest_scores(coverage)
        assert math.isfinite(conformal_quantile(np.ones(fewest), coverage))
        assert conformal_quantile(np.ones(fewest - 1), coverage) == math.inf


@pytest.mark.parametrize("coverage", [0.5, 0.9])
def test_coverage_of_new_values(coverage: float) -> None:
    """The mean coverage over many draws is at least the stated one, and at most 1 / (n + 1) above it."""
    rng = np.random.default_rng(0)
    covered = [rng.exponential() <= conformal_quantile(rng.exponential(size=19), coverage) for _ in range(20_000)]
    assert coverage - 0.01 < np.mean(covered) < coverage + 1 / 20 + 0.01


def test_held_out_coverage_uses_the_scores_of_the_other_folds() -> None:
    scores, folds = np.array([1.0, 2.0, 3.0, 10.0, 20.0, 2.5]), np.array([0, 0, 0, 1, 1, 1])
    # fold 0: the quantile 0.5 of (2.5, 10, 20) is 10; fold 1: that of (1, 2, 3) is 2
    assert held_out_coverage(scores, folds, 0.5) == 3 / 6
    assert held_out_coverage(scores, folds, 0.99) == 1  # infinite intervals
    assert math.isnan(held_out_coverage(scores, np.zeros(6, dtype=int), 0.5))


def test_sets() -> None:
    probabilities = np.array([[0.8, 0.2], [0.5, 0.5], [0.95, 0.05]])
    assert prediction_sets(probabilities, 0.5).tolist() == [[True, False], [True, True], [True, False]]
    assert prediction_sets(probabilities, math.inf).all() and not prediction_sets(probabilities, 0.04).any()


def test_the_most_similar_molecule_and_its_similarity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nemo_cmim.properties.domain._AT_ONCE", 7)
    domain = Domain.of(SMILES, None)
    queries = ["CCCCO", "CCCCCCCCBr", SMILES[30]]
    nearest = domain.nearest(queries, None)
    a, b = (morgan_fingerprints(each, 2048).astype(bool) for each in (queries, SMILES))
    expected = [[(x & y).sum() / (x | y).sum() for y in b] for x in a]
    np.testing.assert_allclose(nearest.tanimoto, np.max(expected, axis=1), rtol=1e-6)
    assert nearest.smiles == [SMILES[k] for k in np.argmax(expected, axis=1)]
    assert nearest.tanimoto[2] == 1 and np.isnan(nearest.distance).all()


def test_distances_have_the_unit_of_the_training_set() -> None:
    vectors = np.random.default_rng(0).normal(size=(60, 4)) * [1, 10, 100, 0] + 3
    domain = Domain.of(SMILES, vectors)
    again = Domain.from_arrays(domain.arrays())
    own = domain.nearest(SMILES, vectors).distance
    np.testing.assert_allclose(own, 0, atol=1e-3)
    others = [Domain.of(SMILES, vectors)._replace(embeddings=np.delete(domain.embeddings, row, 0)) for row in range(60)]
    left_out = [other.nearest(SMILES[row : row + 1], vectors[row : row + 1]).distance[0] for row, other in enumerate(others)]
    assert np.median(left_out) == pytest.approx(1, rel=1e-3)
    far = vectors[:3] + np.array([0, 1000, 0, 0])
    np.testing.assert_array_equal(again.nearest(SMILES[:3], far).distance, domain.nearest(SMILES[:3], far).distance)
    assert (again.nearest(SMILES[:3], far).distance > 20).all() and list(again.smiles) == SMILES
