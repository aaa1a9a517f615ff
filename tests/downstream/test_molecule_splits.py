from __future__ import annotations

import numpy as np
import pytest

from nemo_cmim.downstream import RegressionData, random_folds, scaffold_split
from nemo_cmim.errors import ConfigError, DataError
from nemo_cmim.molecules import murcko_scaffold

ALKANES = ["C" * n for n in range(1, 24)]
RINGS = [f"C1{'C' * n}C1" for n in range(1, 20)]


@pytest.fixture(scope="module")
def repeated(real_smiles) -> RegressionData:
    """Real molecules, some of them twice."""
    smiles = [*real_smiles[::3], *real_smiles[::30]]
    return RegressionData(name="repeated", smiles=smiles, targets=np.arange(len(smiles), dtype=float))


def assert_partition(split, rows):
    assert not set(split.train) & set(split.test)
    assert sorted([*split.train, *split.test]) == list(range(rows))


@pytest.mark.parametrize("folds", [2, 5, 23])
def test_each_row_is_tested_once_in_folds_of_equal_size(folds):
    splits = random_folds(ALKANES, folds, seed=3)
    for split in splits:
        assert_partition(split, len(ALKANES))
    assert sorted(row for split in splits for row in split.test) == list(range(len(ALKANES)))
    sizes = [len(split.test) for split in splits]
    assert max(sizes) - min(sizes) <= 1


def test_rows_of_one_molecule_share_a_fold():
    canonical = ALKANES * 3
    for split in random_folds(canonical, 5, seed=0):
        assert not {canonical[row] for row in split.train} & {canonical[row] for row in split.test}


def test_duplicates_are_on_one_side(repeated):
    assert len(set(repeated.canonical)) < len(repeated)
    for split in [*random_folds(repeated.canonical, 5, 0), scaffold_split(repeated.canonical, seed=0)]:
        assert_partition(split, len(repeated))
        assert not {repeated.canonical[row] for row in split.train} & {repeated.canonical[row] for row in split.test}


def test_no_scaffold_is_on_both_sides(repeated):
    scaffolds = [murcko_scaffold(smiles) for smiles in repeated.canonical]
    for seed in range(3):
        split = scaffold_split(repeated.canonical, 0.2, seed)
        assert not {scaffolds[row] for row in split.train} & {scaffolds[row] for row in split.test}
        assert 0.19 * len(repeated) < len(split.test) <= round(0.2 * len(repeated))
        largest = max(set(scaffolds), key=scaffolds.count)
        assert largest in {scaffolds[row] for row in split.train}


@pytest.mark.parametrize("splitter", [lambda seed: random_folds(RINGS, 5, seed)[0], lambda seed: scaffold_split(RINGS, 0.3, seed)])
def test_the_seed_decides(splitter):
    np.testing.assert_array_equal(splitter(1).test, splitter(1).test)
    assert any(list(splitter(1).test) != list(splitter(seed).test) for seed in (2, 3, 4))


def test_too_few_molecules_or_scaffolds():
    with pytest.raises(DataError, match="3 distinct molecules are too few for 5 folds"):
        random_folds(["C", "CC", "CCC"] * 4)
    with pytest.raises(ConfigError, match="at least 2, found 1"):
        random_folds(ALKANES, folds=1)
    with pytest.raises(DataError, match="1 scaffolds"):
        scaffold_split(ALKANES)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        scaffold_split(RINGS, test_fraction=1.0)
