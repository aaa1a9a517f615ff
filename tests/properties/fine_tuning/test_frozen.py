"""The head on the model as it is, which fine-tuning starts from."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax

from nemo_cmim.inference import CMIMModel
from nemo_cmim.properties.fine_tuning import FineTuner, Recipe, frozen
from nemo_cmim.properties.fine_tuning.frozen import FrozenHead, fit_frozen
from nemo_cmim.properties.fine_tuning.head import Outputs

NO_TRAINING = Recipe(epochs=1, head_rate=1e-12, decoder_rate=1e-12, encoder_rate=1e-12, weight_decay=0)


@pytest.fixture(scope="module")
def x() -> NDArray[np.float64]:
    return np.random.default_rng(0).normal(size=(80, 4))


def test_out_of_fold_errors_are_those_of_new_molecules(x: NDArray[np.float64]) -> None:
    y = np.random.default_rng(1).normal(size=(80, 1))  # noise: nothing to learn
    head, out_of_fold = fit_frozen(x, y, np.arange(80), Outputs("regression", (1,)), 0)
    fitted, new, spread = (np.square(error).mean() for error in (head.outputs(x) - y, out_of_fold - y, y))
    assert fitted < 0.95 * new
    assert new > 0.75 * spread


def test_rows_of_a_molecule_are_in_one_fold(x: NDArray[np.float64]) -> None:
    """With each row twice, the other one must not reveal the value."""
    y = np.random.default_rng(1).normal(size=(40, 1))
    twice, values = np.concatenate([x[:40], x[:40]]), np.concatenate([y, y])
    _, out_of_fold = fit_frozen(twice, values, np.tile(np.arange(40), 2), Outputs("regression", (1,)), 0)
    assert np.square(out_of_fold - values).mean() > 0.9 * np.square(y).mean()


def test_a_function_is_learnt_and_missing_values_are_left_out(x: NDArray[np.float64]) -> None:
    y = np.stack([np.sin(x[:, 0]), x[:, 1]], 1)
    y[::3, 1] = np.nan
    head, out_of_fold = fit_frozen(x, y, np.arange(80), Outputs("regression", (1, 1)), 0)
    assert np.isfinite(out_of_fold).all()
    assert (np.nanmean(np.square(head.outputs(x) - y), 0) < 0.1 * np.nanvar(y, 0)).all()
    again = FrozenHead.of_arrays(head._asdict())
    np.testing.assert_array_equal(again.outputs(x), head.outputs(x))


def test_many_rows_need_no_kernel(x: NDArray[np.float64], monkeypatch: pytest.MonkeyPatch) -> None:
    y = np.stack([x[:, 0] - x[:, 1] + 1, x[:, 2], np.full(80, 3.0)], 1)
    y[::3, 1], y[::2, 2] = np.nan, np.nan
    outputs = Outputs("regression", (1, 1, 1))
    head, _ = fit_frozen(x, y, np.arange(80), outputs, 0)
    assert head.support_NI.shape == (80, 4)
    monkeypatch.setattr(frozen, "MAX_KERNEL_ROWS", 79)
    head, out_of_fold = fit_frozen(x, y, np.arange(80), outputs, 0)
    assert head.support_NI.shape == (0, 4) and head.weights_PW.shape == (4, 3)
    assert (np.nanmean(np.square(out_of_fold - y), 0)[:2] < 0.01 * np.nanvar(y, 0)[:2]).all()
    np.testing.assert_allclose(head.outputs(x)[:, 2], 3)
    again = FrozenHead.of_arrays(head._asdict())
    np.testing.assert_array_equal(again.outputs(x), head.outputs(x))


@pytest.mark.parametrize("classes", [2, 3])
def test_classes_are_learnt(x: NDArray[np.float64], classes: int) -> None:
    codes = np.digitize(x[:, :1], [0.0, 0.8][: classes - 1]).astype(float)
    codes[:5] = np.nan
    head, out_of_fold = fit_frozen(x, codes, np.arange(80), Outputs("classification", (classes,)), 0)
    assert np.isfinite(out_of_fold).all()
    assert (head.outputs(x).argmax(1) == codes[:, 0])[5:].mean() > 0.7


def test_a_class_without_rows_is_improbable_and_one_class_is_no_error(x: NDArray[np.float64]) -> None:
    codes = (x[:, :1] > 0).astype(float)
    head, _ = fit_frozen(x, codes, np.arange(80), Outputs("classification", (3,)), 0)
    assert softmax(head.outputs(x), axis=1)[:, 2].max() < 0.05
    head, _ = fit_frozen(x[:3], np.zeros((3, 1)), np.arange(3), Outputs("classification", (2,)), 0)
    assert (softmax(head.outputs(x), axis=1)[:, 0] > 0.8).all()


def test_without_training_the_prediction_is_that_of_the_frozen_head(
    model: CMIMModel, sixteen: list[str], values: NDArray[np.float64]
) -> None:
    tuner = FineTuner(model=model, recipe=NO_TRAINING, members=1).fit(sixteen, values)
    assert tuner.frozen_ is not None
    expected = tuner.frozen_.outputs(model.embed(sixteen)) * tuner.scale_ + tuner.centre_
    np.testing.assert_allclose(tuner.predict(sixteen), expected, rtol=1e-4)
