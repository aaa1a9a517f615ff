"""Heads in files: those that could make compiled code read outside of its arrays are refused, and all others predict the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import skops.io
from sklearn.base import BaseEstimator, clone
from sklearn.cluster import Birch, KMeans
from sklearn.compose import TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingRegressor, StackingClassifier, VotingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, RadiusNeighborsRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, PowerTransformer, StandardScaler
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection
from sklearn.svm import SVC, SVR, NuSVC, NuSVR, OneClassSVM

from nemo_cmim import PropertyModel, load_property_model
from nemo_cmim.errors import CheckpointError, ConfigError
from nemo_cmim.properties.named_heads import HEADS
from nemo_cmim.properties.safe_heads import invalid_part, other_types
from tests.properties.property_data import LABELS, SMILES, VALUES

X = np.random.default_rng(0).normal(size=(60, 20))
Y = X[:, 0] + X[:, 1] ** 2
CLASSES = np.digitize(Y, [0, 1])
BOOSTING = HistGradientBoostingRegressor(max_iter=3)
Change = Callable[[Any], None]


def fitted(head: Any, y: np.ndarray = Y) -> Any:
    return clone(head).fit(X, y)


def sets(name: str, change: Callable[[Any], Any]) -> Change:
    """Replaces an attribute by a function of its value; None if there is no value."""
    return lambda head: vars(head).update({name: change(vars(head).get(name))})


def check_refused(head: Any, part: str) -> None:
    assert not other_types(head) and invalid_part(head) == part
    again = skops.io.loads(data := skops.io.dumps(head), trusted=skops.io.get_untrusted_types(data=data))  # also as a file has it
    assert invalid_part({"heads": [Pipeline([("a", again)])]}) == part
    assert invalid_part({"heads": [[(again, 1)]]}) == part


@pytest.mark.parametrize(("task", "name"), [(task, name) for task, names in HEADS.items() for name in names])
def test_named_heads_predict_the_same(tmp_path: Path, task: str, name: str) -> None:
    y = VALUES if task == "regression" else np.digitize(VALUES, [1, 3])
    model = PropertyModel(task, features="morgan16", head=name, folds=3, random_state=0).fit(SMILES, y)
    model.save(tmp_path / "one.model")
    loaded = load_property_model(tmp_path / "one.model")
    np.testing.assert_array_equal(loaded.predict(SMILES[:9]), model.predict(SMILES[:9]))
    if task == "classification":
        np.testing.assert_array_equal(loaded.predict_proba(SMILES[:9]), model.predict_proba(SMILES[:9]))


@pytest.mark.parametrize(
    "head",
    [
        make_pipeline(StandardScaler(), PCA(4), SVR()),
        make_pipeline(FeatureUnion([("a", PCA(2)), ("b", KMeans(3))]), PowerTransformer(), NuSVR(kernel="poly")),
        TransformedTargetRegressor(BOOSTING, transformer=StandardScaler()),
        GridSearchCV(SVR(), {"C": [0.3, 3.0]}, cv=2),
        VotingRegressor([("a", BOOSTING), ("b", KNeighborsRegressor(3, algorithm="brute"))]),
        make_pipeline(GaussianRandomProjection(4, random_state=0), MLPRegressor(hidden_layer_sizes=(4,), max_iter=5, batch_size=8)),
    ],
    ids=lambda head: type(head).__name__,
)
def test_estimators_of_users_predict_the_same(tmp_path: Path, head: BaseEstimator) -> None:
    model = PropertyModel(features="morgan16", head=head, folds=2).fit(SMILES, VALUES)
    model.save(tmp_path / "one.model")
    np.testing.assert_array_equal(load_property_model(tmp_path / "one.model").predict(SMILES), model.predict(SMILES))


def test_a_classifier_of_a_user_predicts_the_same(tmp_path: Path) -> None:
    parts = [("a", KNeighborsClassifier(2, algorithm="brute", metric="manhattan")), ("b", LogisticRegression())]
    head = StackingClassifier(parts, LogisticRegression(), cv=2)
    model = PropertyModel("classification", features="morgan16", head=head, folds=2).fit(SMILES, LABELS)
    model.save(tmp_path / "one.model")
    np.testing.assert_array_equal(load_property_model(tmp_path / "one.model").predict_proba(SMILES), model.predict_proba(SMILES))


@pytest.mark.parametrize("kind", [SVR, NuSVR, OneClassSVM, SVC, NuSVC])
@pytest.mark.parametrize(
    "change",
    [
        sets("support_vectors_", lambda a: a[:0]),
        sets("support_vectors_", lambda a: a[:-1]),
        sets("support_vectors_", lambda a: a[:, :-1].copy()),
        sets("support_vectors_", lambda a: a.astype(np.float32)),
        sets("support_vectors_", lambda a: a.tolist()),
        sets("support_vectors_", scipy.sparse.csr_matrix),
        sets("support_", lambda a: a[:1]),
        sets("support_", lambda a: a + 10**6),
        sets("support_", lambda a: a.astype(np.int64)),
        sets("_n_support", lambda a: np.full_like(a, 10**6)),
        sets("_n_support", lambda a: -a),
        sets("_n_support", lambda a: a[:1]),
        sets("_n_support", lambda a: np.append(a, a[:1])),
        sets("_dual_coef_", lambda a: a[:, :1].copy()),
        sets("_dual_coef_", lambda a: a[:0]),
        sets("_dual_coef_", lambda a: a * np.nan),
        sets("_intercept_", lambda a: a[:0]),
        sets("_intercept_", lambda a: a + np.inf),
        sets("_probA", lambda a: np.ones(7)),
        sets("_probB", lambda a: np.ones(7)),
        sets("n_features_in_", lambda a: a - 1),
        sets("shape_fit_", lambda a: (a[0], 1)),
        sets("shape_fit_", lambda a: (1, a[1])),
        sets("_sparse", lambda a: True),
        sets("kernel", lambda a: "precomputed"),
        sets("_impl", lambda a: "nu_svc"),
        sets("fit_status_", lambda a: 7),
        sets("_gamma", lambda a: np.nan),
        sets("_validate_for_predict", lambda a: np.positive),
        sets("predict", lambda a: np.positive),
        lambda head: vars(head).pop("_dual_coef_"),
    ],
)
def test_support_vector_machines(kind: type, change: Change) -> None:
    head = fitted(kind(), CLASSES)
    assert invalid_part(head) is None
    change(head)
    if "_validate_for_predict" in vars(head) or "predict" in vars(head):
        assert invalid_part(head) == f"a {kind.__name__}"
    else:
        assert invalid_part(head) == "a support vector machine"


def test_classes_of_support_vector_machines() -> None:
    head = fitted(SVC(), CLASSES)
    head.classes_ = head.classes_[:2]
    check_refused(head, "a support vector machine")


@pytest.mark.parametrize("kind", [KNeighborsRegressor, KNeighborsClassifier])
@pytest.mark.parametrize(
    "change",
    [
        sets("_fit_X", lambda a: a[:, :-1].copy()),
        sets("_fit_X", lambda a: a[:-1]),
        sets("_fit_X", lambda a: a[:0]),
        sets("_fit_X", lambda a: a * np.nan),
        sets("_fit_X", lambda a: a.tolist()),
        sets("_y", lambda a: a[:-1]),
        sets("_y", lambda a: a.tolist()),
        sets("n_samples_fit_", lambda a: a + 10**6),
        sets("n_neighbors", lambda a: 10**6),
        sets("n_neighbors", lambda a: -1),
        sets("n_features_in_", lambda a: a - 1),
        sets("_fit_method", lambda a: "kd_tree"),
        sets("_tree", lambda a: 1),
        sets("metric", lambda a: "mahalanobis"),
        sets("effective_metric_", lambda a: "mahalanobis"),
        sets("metric_params", lambda a: {"V": np.ones((1, 1))}),
        sets("effective_metric_params_", lambda a: {"V": np.ones((1, 1))}),
        lambda head: vars(head).pop("_y"),
    ],
)
def test_neighbours(kind: type, change: Change) -> None:
    head = fitted(kind(3, algorithm="brute"), CLASSES)
    assert invalid_part(head) is None
    change(head)
    check_refused(head, "a set of neighbours")


@pytest.mark.parametrize("change", [sets("_y", lambda a: a + 10), sets("_y", lambda a: a - 10), sets("classes_", lambda a: a[:1])])
def test_classes_of_neighbours(change: Change) -> None:
    head = fitted(KNeighborsClassifier(3, algorithm="brute"), CLASSES)
    change(head)
    check_refused(head, "a set of neighbours")


def first_tree(boosting: Any) -> Any:
    return boosting._predictors[0][0]


def node(field: str, value: float) -> Change:
    return lambda boosting: first_tree(boosting).nodes[field].__setitem__(0, value)


@pytest.mark.parametrize(
    "change",
    [
        node("left", 10**6),
        node("left", 0),
        node("right", 0),
        node("feature_idx", 10**6),
        node("feature_idx", -1),
        node("is_categorical", 1),
        lambda b: vars(first_tree(b)).update(nodes=first_tree(b).nodes[:0]),
        lambda b: vars(first_tree(b)).update(nodes=np.zeros(3)),
        lambda b: vars(first_tree(b)).update(nodes=first_tree(b).nodes[["left", "right"]]),
        lambda b: vars(first_tree(b)).update(raw_left_cat_bitsets=np.zeros((1, 1), np.uint32)),
        lambda b: vars(first_tree(b)).update(binned_left_cat_bitsets=np.zeros((0, 4), np.uint32)),
        lambda b: vars(b).update(n_features_in_=1),
        lambda b: vars(b).update(_in_fit=True),
        lambda b: vars(b).update(_preprocessor=StandardScaler()),
        lambda b: vars(b).update(is_categorical_=np.ones(20, bool)),
        lambda b: vars(b._bin_mapper).update(is_categorical_=np.ones(20, np.uint8)),
        lambda b: b._predictors.append(["a tree"]),
        lambda b: vars(b).update(_predictors=7),
        lambda b: vars(b).update(another=HistGradientBoostingRegressor(max_iter=1).fit(X, Y)._predictors),
    ],
)
def test_trees(change: Change) -> None:
    head = fitted(TransformedTargetRegressor(make_pipeline(StandardScaler(), BOOSTING)))
    assert invalid_part(head) is None
    change(head.regressor_.steps[-1][1])
    assert invalid_part(head) == "a tree"


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_sparse_matrices_k_means_and_random_states() -> None:
    assert other_types(fitted(SparseRandomProjection(4, random_state=0))) == ["scipy.sparse._csr.csr_matrix"]
    head = fitted(KMeans(3))
    assert invalid_part(head) is None
    head.cluster_centers_ = head.cluster_centers_[:, :3].copy()
    check_refused(head, "a k-means")
    head = fitted(MLPRegressor(hidden_layer_sizes=(4,), max_iter=2, batch_size=8, solver="sgd"))
    assert invalid_part(head) is None
    state = head._random_state.get_state(legacy=False)
    state["state"]["pos"] = 10**6
    head._random_state.set_state(state)
    assert invalid_part(head) == "a random state"
    assert invalid_part([np.random.Generator(np.random.PCG64(0))]) is None
    assert invalid_part([np.random.Generator(np.random.Philox(0))]) == "a random state"


def test_cycles_and_methods_that_are_hidden() -> None:
    head = fitted(LinearRegression())
    head.itself = [head, {"again": (head,)}]
    assert invalid_part(head) is None
    head.predict = np.positive
    assert invalid_part(head) == "a LinearRegression"


def test_arrays_that_do_not_fit_are_not_loaded(tmp_path: Path) -> None:
    head = TransformedTargetRegressor(GridSearchCV(SVR(), {"C": [1.0]}, cv=2))
    model = PropertyModel(features="morgan16", head=head, folds=2).fit(SMILES, VALUES)
    svm = model.predictor_.heads_[0].regressor_.best_estimator_
    svm.support_vectors_ = np.empty((0, 16))
    model.save(tmp_path / "bad.model")
    with pytest.raises(
        CheckpointError, match=r"head\.skops contains a support vector machine that is not valid\. The file is corrupt or mal"
    ):
        load_property_model(tmp_path / "bad.model")


@pytest.mark.parametrize("head", [make_pipeline(OneHotEncoder(handle_unknown="ignore"), Ridge()), RadiusNeighborsRegressor(9)])
def test_estimators_that_cannot_be_checked_are_neither_written_nor_read(
    tmp_path: Path, head: BaseEstimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = PropertyModel(features="morgan16", head=head, folds=2).fit(SMILES, VALUES)
    with pytest.raises(ConfigError, match="which a file of a property model may not contain"):
        model.save(tmp_path / "one.model")
    monkeypatch.setattr("nemo_cmim.properties.predictor_file.other_types", lambda heads: [])
    model.save(tmp_path / "one.model")
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"head\.skops contains sklearn\..*, which a file of a property model may not"):
        load_property_model(tmp_path / "one.model")
    assert other_types([Birch(), np.zeros(2, dtype=[("a", object)])]) == ["numpy.ndarray", "sklearn.cluster._birch.Birch"]
