"""Checks of fitted heads that were read from a file.

skops makes only objects of known types, but does not look into them. Some of scikit-learn's compiled code trusts the arrays of an
estimator: with arrays of a wrong shape it reads outside of them, or ends the process. Three rules keep such heads out:

* Only estimators of a fixed list are read: those whose predictions are computed by NumPy and SciPy, which check shapes, and those that
  are checked here.
* No attribute of an object hides a method of its class, which could be one that checks the input.
* The arrays of support vector machines, nearest neighbours, boosted trees, k-means and random states fit together. Sparse matrices are
  not read.
"""

from __future__ import annotations

import itertools
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["invalid_part", "other_types"]

_MAX_OBJECTS = 10_000_000
_CONTAINERS = (dict, OrderedDict, list, tuple, set, np.ndarray, np.ma.MaskedArray)
_PLAIN = (type(None), bool, int, float, complex, str, bytes, slice, type, np.generic, np.dtype, np.ufunc, types.FunctionType)
_PACKAGES = (
    "sklearn._loss.",
    "sklearn.gaussian_process.",
    "sklearn.linear_model.",
    "sklearn.mixture.",
    "sklearn.neural_network.",
)
_MODULES = {
    "nemo_cmim.properties.heads",
    *(
        f"sklearn.{name}"
        for name in (
            "calibration",
            "cluster._kmeans",
            "compose._column_transformer",
            "compose._target",
            "cross_decomposition._pls",
            "decomposition._factor_analysis",
            "decomposition._fastica",
            "decomposition._incremental_pca",
            "decomposition._kernel_pca",
            "decomposition._pca",
            "decomposition._truncated_svd",
            "discriminant_analysis",
            "dummy",
            "ensemble._bagging",
            "ensemble._hist_gradient_boosting.binning",
            "ensemble._hist_gradient_boosting.gradient_boosting",
            "ensemble._hist_gradient_boosting.predictor",
            "ensemble._stacking",
            "ensemble._voting",
            "ensemble._weight_boosting",
            "feature_selection._from_model",
            "feature_selection._rfe",
            "feature_selection._sequential",
            "feature_selection._univariate_selection",
            "feature_selection._variance_threshold",
            "frozen._frozen",
            "impute._base",
            "impute._knn",
            "isotonic",
            "kernel_approximation",
            "kernel_ridge",
            "metrics._scorer",
            "model_selection._classification_threshold",
            "model_selection._search",
            "model_selection._split",
            "multiclass",
            "multioutput",
            "naive_bayes",
            "neighbors._classification",
            "neighbors._nca",
            "neighbors._nearest_centroid",
            "neighbors._regression",
            "pipeline",
            "preprocessing._data",
            "preprocessing._discretization",
            "preprocessing._function_transformer",
            "preprocessing._label",
            "preprocessing._polynomial",
            "random_projection",
            "svm._classes",
            "utils._bunch",
        )
    ),
}
_NOT_CHECKED = {
    "MissingIndicator",
    "MultiLabelBinarizer",
    "RadiusNeighborsClassifier",
    "RadiusNeighborsRegressor",
    "SplineTransformer",
}
"""Classes of these modules that are not read: they make sparse matrices from attributes, or are not checked here."""
_KERNELS = ("linear", "poly", "rbf", "sigmoid")
_METRICS = (
    "braycurtis", "canberra", "chebyshev", "cityblock", "correlation", "cosine", "dice", "euclidean", "hamming", "jaccard", "l1", "l2",
    "manhattan", "minkowski", "rogerstanimoto", "russellrao", "sqeuclidean",
)  # fmt: skip
_ERRORS = (LookupError, TypeError, AttributeError, ValueError, OverflowError)


def other_types(heads: Any) -> list[str]:
    """Sorted names of the types in fitted heads that a file may not contain, because their arrays cannot be checked."""
    return sorted({_name(type(found)) for found in _objects(heads) if not _is_known(found)})


def invalid_part(heads: Any) -> str | None:
    """What in fitted heads is not valid, such as "a tree"; None: everything is.

    Args:
        heads: Objects whose types are known, see `other_types`.
    """
    checks = _checks()
    trees: set[int] = set()
    owned: set[int] = set()
    number = 0
    for number, found in enumerate(_objects(heads), start=1):
        if number > _MAX_OBJECTS:
            return f"more than {_MAX_OBJECTS:,} objects, which is"
        if any(callable(getattr(type(found), name, None)) for name in _attributes(found)):
            return f"a {type(found).__name__}"
        name = type(found).__name__
        if name == "TreePredictor":
            trees.add(id(found))
        noun, is_valid = checks.get(name, ("", None))
        if is_valid is None:
            continue
        try:
            if not is_valid(found):
                return noun
        except _ERRORS:
            return noun
        if name.startswith("HistGradientBoosting"):
            owned.update(map(id, itertools.chain.from_iterable(vars(found).get("_predictors", ()))))
    return None if trees <= owned else "a tree"  # a tree is checked with the number of columns of its estimator


def _checks() -> dict[str, tuple[str, Callable[[Any], bool]]]:
    """What is checked, by the names of classes: what it is called, and whether it is valid."""
    svm, neighbours, trees = "a support vector machine", "a set of neighbours", "a tree"
    return {
        "SVC": (svm, _is_valid_svm),
        "SVR": (svm, _is_valid_svm),
        "NuSVC": (svm, _is_valid_svm),
        "NuSVR": (svm, _is_valid_svm),
        "OneClassSVM": (svm, _is_valid_svm),
        "KNeighborsClassifier": (neighbours, _are_valid_neighbours),
        "KNeighborsRegressor": (neighbours, _are_valid_neighbours),
        "HistGradientBoostingClassifier": (trees, _is_valid_boosting),
        "HistGradientBoostingRegressor": (trees, _is_valid_boosting),
        "KMeans": ("a k-means", _is_valid_k_means),
        "MiniBatchKMeans": ("a k-means", _is_valid_k_means),
        "RandomState": ("a random state", _is_valid_random_state),
        "Generator": ("a random state", lambda generator: type(generator.bit_generator) is np.random.PCG64),
    }


def _objects(root: Any) -> Iterator[Any]:
    """Every object that can be reached from this one, once, except numbers, text and the like."""
    seen: dict[int, Any] = {}  # keeps the objects, so that no id is used twice
    waiting = [root]
    while waiting:
        found = waiting.pop()
        if isinstance(found, _PLAIN) or found is np.clip or id(found) in seen:
            continue
        seen[id(found)] = found
        yield found
        if isinstance(found, dict):
            waiting += [*found.keys(), *found.values()]
        elif isinstance(found, list | tuple | set):
            waiting += found
        elif isinstance(found, np.ndarray):
            waiting += np.asarray(found).ravel().tolist() if found.dtype == object else []
        waiting += _attributes(found).values()


def _attributes(found: Any) -> dict[str, Any]:
    return {} if isinstance(found, np.ndarray) else getattr(found, "__dict__", {})


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _is_known(found: Any) -> bool:
    kind = type(found)
    if kind in _CONTAINERS:
        return not (isinstance(found, np.ndarray) and found.dtype.hasobject and found.dtype != object)
    if kind in (np.random.RandomState, np.random.Generator):
        return True
    return (kind.__module__ in _MODULES or kind.__module__.startswith(_PACKAGES)) and kind.__name__ not in _NOT_CHECKED


def _is_array(found: Any, shape: tuple[int, ...], dtype: type) -> bool:
    """Whether this is an array of finite numbers of this type and shape."""
    return type(found) is np.ndarray and found.dtype == dtype and found.shape == shape and bool(np.isfinite(found).all())


def _are_indices(found: NDArray[Any], below: int) -> bool:
    return bool(((found >= 0) & (found < below)).all())


def _is_count(found: Any, most: int | None = None) -> bool:
    return isinstance(found, int | np.integer) and int(found) > 0 and (most is None or int(found) <= most)


def _is_valid_svm(svm: Any) -> bool:
    """Whether the arrays that libsvm reads fit together: it reads as many numbers as `_n_support`, `classes_` and the columns imply."""
    state = vars(svm)
    if "support_vectors_" not in state:
        return True  # not fitted
    is_classifier = type(svm).__name__ in ("SVC", "NuSVC")
    classes = len(state["classes_"]) if is_classifier else 2
    pairs, rows, columns = classes * (classes - 1) // 2, len(state["support_"]), state["n_features_in_"]
    first, second = len(state["_probA"]), len(state["_probB"])
    fitted_rows, fitted_columns = state["shape_fit_"]
    return (
        state["kernel"] in _KERNELS
        and state["_sparse"] is False
        and "_impl" not in state  # which of libsvm's models it is
        and classes > 1
        and _is_count(columns)
        and fitted_columns == columns
        and _is_array(state["support_"], (rows,), np.int32)
        and _are_indices(state["support_"], fitted_rows)
        and _is_array(state["support_vectors_"], (rows, columns), np.float64)
        and _is_array(state["_n_support"], (classes,), np.int32)
        and _are_indices(state["_n_support"], rows + 1)
        and (int(state["_n_support"].sum()) == rows if is_classifier else bool((state["_n_support"] == rows).all()))
        and _is_array(state["_dual_coef_"], (classes - 1, rows), np.float64)
        and _is_array(state["_intercept_"], (pairs,), np.float64)
        and _is_array(state["_probA"], (first,), np.float64)
        and _is_array(state["_probB"], (second,), np.float64)
        and ((first == second and first in (0, pairs)) if is_classifier else (first <= 1 and second == 0))
        and bool(np.isfinite(state["_gamma"]))
        and state["fit_status_"] in (0, 1)
    )


def _are_valid_neighbours(neighbours: Any) -> bool:
    """Whether the rows, their number and their targets fit together, and distances are computed row by row, not by a tree."""
    state = vars(neighbours)
    if "_fit_X" not in state:
        return True  # not fitted
    table, targets, columns = state["_fit_X"], state["_y"], state["n_features_in_"]
    rows = len(table)
    kind = np.float32 if table.dtype == np.float32 else np.float64
    if type(neighbours).__name__ == "KNeighborsClassifier":
        is_target = targets.ndim == 1 and targets.dtype.kind == "i" and _are_indices(targets, len(state["classes_"]))
        is_target = is_target and type(state["classes_"]) is np.ndarray and state["outputs_2d_"] is False
    else:
        is_target = targets.dtype.kind in "fiub" and targets.ndim in (1, 2)
    return (
        _is_count(columns)
        and _is_array(table, (rows, columns), kind)
        and state["n_samples_fit_"] == rows
        and _is_count(state["n_neighbors"], rows)
        and type(targets) is np.ndarray
        and len(targets) == rows
        and is_target
        and state["_fit_method"] == "brute"
        and state["_tree"] is None
        and state["metric"] in _METRICS
        and state["effective_metric_"] in _METRICS
        and state["metric_params"] is None
        and set(state["effective_metric_params_"]) <= {"p"}
        and all(isinstance(value, int | float) for value in (state["p"], *state["effective_metric_params_"].values()))
    )


def _is_valid_boosting(boosting: Any) -> bool:
    """Whether the trees fit to the columns. Columns of categories, which use other arrays as well, are not read."""
    from sklearn.ensemble._hist_gradient_boosting.binning import _BinMapper
    from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor

    state = vars(boosting)
    if "_predictors" not in state:
        return True  # not fitted
    columns, mapper = state["n_features_in_"], state["_bin_mapper"]
    return (
        _is_count(columns)
        and state["is_categorical_"] is None
        and state.get("_preprocessor") is None
        and "_in_fit" not in state  # if it were true, the input would be taken for bins and not be checked
        and type(mapper) is _BinMapper
        and _is_array(mapper.is_categorical_, (columns,), np.uint8)
        and not mapper.is_categorical_.any()
        and all(
            type(tree) is TreePredictor and _is_valid_tree(tree, columns)
            for tree in itertools.chain.from_iterable(state["_predictors"])
        )
    )


def _is_valid_tree(tree: Any, columns: int) -> bool:
    """Whether each inner node has two children that come later, and a column of the input."""
    from sklearn.ensemble._hist_gradient_boosting.common import PREDICTOR_RECORD_DTYPE, X_BITSET_INNER_DTYPE

    nodes = tree.nodes
    if type(nodes) is not np.ndarray or nodes.dtype != PREDICTOR_RECORD_DTYPE or nodes.ndim != 1 or not len(nodes):
        return False
    for bits in (tree.raw_left_cat_bitsets, tree.binned_left_cat_bitsets):
        if type(bits) is not np.ndarray or bits.dtype != X_BITSET_INNER_DTYPE or bits.shape != (0, 8):
            return False
    inner = np.flatnonzero(nodes["is_leaf"] == 0)
    children = np.stack([nodes["left"][inner], nodes["right"][inner]]).astype(np.int64)
    return (
        bool((children > inner).all())
        and _are_indices(children, len(nodes))
        and _are_indices(nodes["feature_idx"][inner], columns)
        and not nodes["is_categorical"].any()
    )


def _is_valid_k_means(k_means: Any) -> bool:
    state = vars(k_means)
    if "cluster_centers_" not in state:
        return True  # not fitted
    centres, columns = state["cluster_centers_"], state["n_features_in_"]
    kind = np.float32 if centres.dtype == np.float32 else np.float64
    return _is_count(columns) and len(centres) > 0 and _is_array(centres, (len(centres), columns), kind)


def _is_valid_random_state(state: Any) -> bool:
    found = state.get_state(legacy=False)
    return found["bit_generator"] == "MT19937" and 0 <= found["state"]["pos"] <= len(found["state"]["key"])
