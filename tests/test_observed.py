from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from nemo_cmim.errors import ConfigError, DataError
from nemo_cmim.molecules import check_properties, observed_properties
from nemo_cmim.observed import PropertyTable
from nemo_cmim.prepare.settings import STANDARD_PROPERTIES

rng = np.random.default_rng(0)
SAMPLE = np.stack([rng.gamma(2.0, 50.0, 20_000), rng.integers(0, 4, 20_000), np.full(20_000, 7.0)], 1)  # skewed, counts, constant
TABLE = PropertyTable.fit(("a", "b", "c"), 16, SAMPLE)


def test_scores_are_normal_and_keep_the_order() -> None:
    scores = TABLE.scores(TABLE.encode(SAMPLE))
    assert stats.kstest(scores[:, 0], "norm").statistic < 0.01
    assert stats.spearmanr(scores[:, 0], SAMPLE[:, 0]).statistic > 0.9999
    assert abs(scores[:, 1].mean()) < 0.05 and set(np.diff(sorted(set(scores[:, 1]))) > 0) == {True}
    assert len(set(scores[:, 1])) == 4, "equal values have equal scores"
    assert set(scores[:, 2]) == {0.0}, "a constant is in the middle"


def test_values_come_back_from_their_scores() -> None:
    values = TABLE.from_scores(TABLE.scores(TABLE.encode(SAMPLE)))
    limit = np.quantile(SAMPLE[:, 0], 0.9)
    inner = SAMPLE[:, 0] < limit
    assert np.abs(values[inner, 0] - SAMPLE[inner, 0]).max() < 0.05 * SAMPLE[:, 0].std()
    np.testing.assert_array_equal(values[:, 1:], SAMPLE[:, 1:])


def test_missing_and_extreme_values() -> None:
    places = TABLE.encode(np.array([[np.nan, np.nan, np.nan], [-1e30, -5, 6.9], [1e30, 99, 7.1], [np.inf, 1, 7]]))
    assert places[0].tolist() == [255, 255, 255] and places[3, 0] == 255
    assert np.isnan(TABLE.scores(places)[0]).all()
    assert places[1].tolist() == [0, 0, 0] and places[2].tolist() == [254, 254, 254]
    scores = np.array([[-9.0, -9.0, 0.0], [9.0, 9.0, 0.0]])
    np.testing.assert_allclose(TABLE.from_scores(scores), [SAMPLE.min(0), SAMPLE.max(0)])


def test_a_table_survives_its_file() -> None:
    assert PropertyTable.loads(TABLE.dumps(), "FILE") == TABLE
    falling = json.dumps({**TABLE.as_json(), "quantiles": [row[::-1] for row in TABLE.quantiles]})
    bits = json.dumps({**TABLE.as_json(), "bits": -8})
    for text in ("", "[]", "{}", '{"values": ["a"], "bits": 0, "quantiles": [[1, 2]]}', falling, bits):
        with pytest.raises(DataError, match="FILE"):
            PropertyTable.loads(text, "FILE")


def test_properties_are_those_of_rdkit(real_smiles: tuple[str, ...]) -> None:
    """Including those that are computed in groups, in any order of the names."""
    from rdkit.Chem import Descriptors, MolFromSmiles, rdFingerprintGenerator

    smiles = real_smiles[::40]
    names = tuple(rng.permutation(STANDARD_PROPERTIES).tolist())
    values, bits = observed_properties(smiles, names, 64)
    functions = dict(Descriptors.descList)
    expected = [[functions[name](MolFromSmiles(s)) for name in names] for s in smiles]
    np.testing.assert_allclose(values, np.array(expected, np.float32), rtol=1e-6, atol=1e-6)
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=64)
    np.testing.assert_array_equal(bits, [generator.GetFingerprintAsNumPy(MolFromSmiles(s)) for s in smiles])


def test_names_of_properties() -> None:
    check_properties(STANDARD_PROPERTIES)
    with pytest.raises(ConfigError, match=r"RDKit has no descriptor 'MolWeight'\. Did you mean MolWt"):
        check_properties(["MolWeight"])
    with pytest.raises(ConfigError, match="TPSA is given twice"):
        check_properties(["TPSA", "MolWt", "TPSA"])
