from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR
from sklearn.utils.estimator_checks import check_estimator

from nemo_cmim.downstream import FeatureScaler, MLPHead, fit_together, svm
from nemo_cmim.errors import ConfigError


@pytest.fixture
def known_function():
    """Targets of a large scale and offset: y = 1000 + 50 x0 |x1| + 80 x2."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 4)) * [1.0, 10.0, 0.1, 5.0] + [0.0, 3.0, -2.0, 100.0]
    return x, 1000 + 50 * x[:, 0] * np.abs(x[:, 1]) + 80 * x[:, 2]


QUICK = MLPHead(hidden=32, steps=60, learning_rate=0.02, device="cpu")


@pytest.mark.parametrize("estimator", [FeatureScaler(), QUICK], ids=["scaler", "mlp"])
def test_estimators_pass_the_checks_of_scikit_learn(estimator):
    check_estimator(estimator)


def test_scaler_standardises_numbers_but_not_fingerprints(known_function):
    x, _ = known_function
    np.testing.assert_array_equal(FeatureScaler().fit_transform(x), StandardScaler().fit_transform(x))
    bits = (x > 0).astype(float)
    np.testing.assert_array_equal(FeatureScaler().fit_transform(bits), bits)


def test_svm_is_the_default_svr_on_scaled_features(known_function):
    x, y = known_function
    scaler = StandardScaler().fit(x[:400])
    expected = SVR().fit(scaler.transform(x[:400]), y[:400]).predict(scaler.transform(x[400:]))
    np.testing.assert_allclose(svm().fit(x[:400], y[:400]).predict(x[400:]), expected)


@pytest.mark.parametrize("bits", [None, 64, 2048])
def test_a_precomputed_kernel_gives_the_same_predictions(bits):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 7)) * np.arange(7) if bits is None else (rng.random((40, bits)) < 0.1) * 1.0
    y = rng.normal(size=40)
    found, expected = (
        svm(precompute_kernel=is_precomputed).fit(x[:30], y[:30]).predict(x[30:]) for is_precomputed in (True, False)
    )
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert np.ptp(found) > 1e-3


def test_mlp_learns_a_function_in_the_units_of_its_target(known_function):
    x, y = known_function
    model = MLPHead(steps=2500, device="cpu").fit(x[:500], y[:500])
    error = np.sqrt(np.mean((model.predict(x[500:]) - y[500:]) ** 2))
    assert error < 0.2 * y.std()
    assert y.std() > 300


def test_mlp_rescales_with_its_target(known_function):
    x, y = known_function
    one, other = (MLPHead(steps=50, device="cpu").fit(x, target).predict(x) for target in (y, y / 1000 - 7))
    np.testing.assert_allclose(other, one / 1000 - 7, atol=1e-5)


def test_mlp_matches_a_plain_loop(known_function):
    x, y = known_function
    x, y = x[:100], y[:100]
    model = MLPHead(hidden=8, steps=40, batch_size=32, learning_rate=0.01, random_state=5, device="cpu").fit(x, y)

    rng = np.random.RandomState(5)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.from_numpy(rng.uniform(-(4**-0.5), 4**-0.5, (4, 8))).T)
        net[0].bias.copy_(torch.from_numpy(rng.uniform(-(4**-0.5), 4**-0.5, 8)))
        net[2].weight.copy_(torch.from_numpy(rng.uniform(-(8**-0.5), 8**-0.5, 8))[None])
        net[2].bias.copy_(torch.from_numpy(rng.uniform(-(8**-0.5), 8**-0.5, 1)))
    rows = np.concatenate([rng.permutation(100) for _ in range(13)])
    inputs = torch.from_numpy((x - x.mean(0)) / x.std(0)).float()
    targets = torch.from_numpy((y - y.mean()) / y.std()).float()
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    for step in range(40):
        batch = rows[32 * step : 32 * step + 32]
        loss = torch.nn.functional.mse_loss(net(inputs[batch])[:, 0], targets[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    expected = net(inputs)[:, 0].detach().numpy() * y.std() + y.mean()
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-5, atol=1e-3)
    assert np.std(expected) > 10


def test_training_together_changes_no_model(known_function):
    x, y = known_function
    wide = np.hstack([x, x**2])
    sets = [(x[:100], y[:100]), (wide[50:], y[50:]), ((x > 0).astype(float)[:300], -y[:300])]
    settings = {"hidden": 16, "steps": 60, "device": "cpu"}
    alone = [MLPHead(**settings, random_state=seed).fit(*data) for seed, data in enumerate(sets)]
    together = [MLPHead(**settings, random_state=seed) for seed in range(3)]
    threads = torch.get_num_threads()
    fit_together(together, *zip(*sets))
    assert torch.get_num_threads() == threads
    for one, other, (features, _) in zip(alone, together, sets):
        np.testing.assert_allclose(other.predict(features), one.predict(features), rtol=1e-4, atol=1e-2)


def test_a_bit_that_is_constant_in_training_is_ignored():
    rng = np.random.default_rng(1)
    x = rng.integers(0, 2, size=(60, 6)).astype(float)
    x[:, 3] = 0
    model = MLPHead(steps=30, device="cpu").fit(x, x.sum(1))
    with_bit = x.copy()
    with_bit[:, 3] = 1
    np.testing.assert_array_equal(model.predict(with_bit), model.predict(x))


def test_features_that_never_vary_predict_the_mean():
    x, y = np.ones((40, 3)) * [2.0, 0.5, 7.0], np.arange(40.0)
    model = MLPHead(steps=300, device="cpu").fit(x, y)
    np.testing.assert_allclose(model.predict(x), y.mean(), atol=2)


def test_bad_settings_and_values(known_function):
    x, y = known_function
    with pytest.raises(ConfigError, match="steps must be positive, found 0"):
        MLPHead(steps=0).fit(x, y)
    with pytest.raises(ConfigError, match="differ in hidden"):
        fit_together([MLPHead(hidden=1), MLPHead(hidden=2)], [x, x], [y, y])
    with pytest.raises(ConfigError, match="device 'nonsense' cannot be used"):
        MLPHead(device="nonsense").fit(x, y)
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match=r"(?i)nan|infinity"):
            MLPHead().fit(np.where(x > 1, bad, x), y)
