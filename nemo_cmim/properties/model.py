"""Property models: from molecules to measured properties, with an honest error.

Shape letters: N rows, T targets, C classes of a target.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.metrics import r2_score
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from ..arguments import check_choice, check_integer, check_positive, check_seed
from ..errors import ConfigError, InvalidShapeError
from ..inference.shipped import resolve
from ..steps import Steps, check_steps
from .choice import choice_table, chosen_before, warn_of_untried
from .domain import Domain
from .feature_sets import FeatureSet
from .file import check_embedding, write_state
from .fine_tuning import Recipe
from .fitting import FineTuning, Fitter
from .inputs import Molecules, check_valid, read_molecules
from .intervals import warn_of_few_scores
from .named_heads import AUTO, check_head_name
from .partition import Partition
from .prediction_table import check_columns, embeddings, most_probable, prediction_table
from .state import State, data_card
from .targets import Targets, check_varied, contradictions, read_targets
from .transforms import TargetTransform, check_domain
from .validation import Fitted, Tested, cross_validate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..inference import CMIMModel

__all__ = ["PropertyModel"]

TASKS = ("regression", "classification")
FINE_TUNED = "fine-tuned network"
_AT_ONCE = 8192  # molecules whose features are in memory


class PropertyModel(BaseEstimator):
    """Learns measured properties of molecules from SMILES: a scikit-learn regressor or classifier.

    `fit` measures the quality by cross-validation (`metrics_`) and then fits on all rows. Everything that is learnt or chosen is learnt
    again in each fold: the head, its settings, the scaling, the transform of the targets. Rows of one molecule, compared by canonical
    SMILES, are always in the same fold.

    Args:
        task: "regression" or "classification".
        features: Features joined by "+", see `FeatureSet`: "informative", "mean", "informative[1,2]", "rdkit", "morgan2048".
        head: For regression "ridge", "svm", "neighbours", "boosting", "mlp" or "gp" (Gaussian process, at most 2,000 rows); for
            classification "logistic" in place of "ridge". "auto" chooses one by cross-validation within the training rows, and at
            last among those that the folds chose. A scikit-learn estimator is also accepted. For regression, it gets standardised targets.
        model: Model of the embeddings: a loaded model, the name of a shipped one, or a path; None: the default shipped model.
        target_transform: For regression: "log10", "log1p" or "quantile", see `TargetTransform`. Predictions are in the unit of `y`.
        split: "random", "scaffold" (whole scaffolds) or "time" (earlier rows train, later rows are tested; needs `groups`).
        folds: Number of folds.
        coverage: Fraction of true values that prediction intervals and sets are to cover, between 0 and 1.
        time_limit: Time in seconds for the choice of the head, all folds together; the fit that runs at the end of it is completed.
        standardise: Steps that change each molecule first, also in `predict`; see `CMIMModel.embed`.
        on_invalid: "raise", or "nan": `fit` leaves out rows that cannot be used, and lists them in `left_out_`; `predict` returns NaN, or
            None in place of a label.
        fine_tune: Train the network of the embeddings together with a head: "all" of it, "last:N" layers, "lora:R" (adapters of rank R), or
            a `Recipe`, whose `scope` this is. None: embeddings stay as they are.
        members: With `fine_tune`, number of networks that are trained from different seeds and averaged.
        checkpoint: With `fine_tune`, folder in which an interrupted `fit` continues when it is called again.
        batch_size: Maximum number of molecules in a batch of the model.
        n_jobs: Number of processes for the folds, as in scikit-learn.
        device: Device of the model; None: a GPU if there is one.
        random_state: Seed of the folds and of the heads.
        verbose: 1 shows a progress bar.

    Attributes:
        cross_validation_: Predictions of test rows, see `OutOfFold.table`; `row` is the index in `X`.
        metrics_: `target, metric, mean, sd, folds`. RMSE, MAE, R2 and Spearman; or ROC-AUC, PR-AUC, MCC and Brier score.
        chosen_: The head and its settings.
        choice_: What "auto" tried: `fold` (or "all rows"), `head, settings, score, seconds, note, chosen`.
        predictor_: The fitted predictor.
        target_names_: Names of the T targets.
        classes_: For classification, the sorted labels; for several targets a list of them.
        card_: Data summary, versions, unit and licence; for `nemo-cmim fit --folder` the metrics of the other `parts`.
        left_out_: Rows that were left out: `row, smiles, reason`.
        contradictions_: Molecules whose rows contradict each other: `smiles, target, rows, lowest, highest`.
        n_features_in_: 1.
    """

    def __init__(
        self,
        task: str = "regression",
        *,
        features: str = "informative",
        head: Any = AUTO,
        model: str | os.PathLike[str] | CMIMModel | None = None,
        target_transform: str | None = None,
        split: str = "random",
        folds: int = 5,
        coverage: float = 0.9,
        time_limit: float = 600.0,
        standardise: Steps = (),
        on_invalid: str = "raise",
        fine_tune: str | Recipe | None = None,
        members: int = 3,
        checkpoint: str | os.PathLike[str] | None = None,
        batch_size: int | None = None,
        n_jobs: int | None = None,
        device: str | None = None,
        random_state: int | None = 0,
        verbose: int = 0,
    ) -> None:
        self.task = task
        self.features = features
        self.head = head
        self.model = model
        self.target_transform = target_transform
        self.split = split
        self.folds = folds
        self.coverage = coverage
        self.time_limit = time_limit
        self.standardise = standardise
        self.on_invalid = on_invalid
        self.fine_tune = fine_tune
        self.members = members
        self.checkpoint = checkpoint
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any, *, groups: Any = None) -> PropertyModel:
        """Cross-validates, and fits on all rows.

        Args:
            X: N SMILES or RDKit molecules: list, array, Series, or a table of one column.
            y: Targets [N] or [N, T]: list, array, Series or DataFrame, whose names are kept. NaN, None and empty text are missing values;
                a row without any value cannot be used.
            groups: For `split="time"`, N times: numbers or dates.

        Raises:
            InvalidSmilesError: If a row cannot be used and `on_invalid="raise"`.
            DataError: If a target cannot be used: see `read_targets`; or if there are too few molecules for the folds.
            InvalidShapeError: If `X`, `y` and `groups` have different lengths.
            ConfigError: If an argument has an unknown value.
        """
        self.check_arguments()
        fine_tuning = self._fine_tuning()
        features = FeatureSet(self.features, self.model, self.device, self.batch_size)
        molecules = read_molecules(X, check_steps(self.standardise), features.invalid_reason)
        targets = read_targets(y, self.task)
        rows = self._usable_rows(molecules, targets)
        smiles = [molecules.canonical[row] for row in rows]
        targets = targets._replace(values_NT=targets.values_NT[rows])
        check_varied(targets)
        check_columns(targets)
        check_domain(self.target_transform, targets.values_NT, targets.names, rows)
        self.contradictions_ = contradictions(smiles, targets, rows)
        partition = Partition.of(self.split, smiles, targets, groups, rows, len(molecules.canonical), self.random_state)
        splits = partition.splits(self.folds)
        fit = Fitter(
            self.task, self.head, self.target_transform, features, smiles, targets, partition, self.random_state,
            self.time_limit / (len(splits) + 1), fine_tuning, progress=self.verbose > 0 and self.n_jobs in (None, 1),
        )  # fmt: skip
        with features.computed(smiles):
            validation = cross_validate(fit, smiles, targets, splits, rows, n_jobs=self.n_jobs, progress=self.verbose > 0)
            fitted = fit(np.arange(len(rows)), chosen_before(validation.choices))
            distinct = list(dict.fromkeys(smiles))
            domain = Domain.of(distinct, embeddings(features, distinct))
        self._tested = Tested(smiles, targets, rows, splits)
        choices = [*validation.choices, fitted.choice]
        self.cross_validation_, self.choice_ = validation.table, choice_table(choices)
        warn_of_untried(choices, self.time_limit)
        warn_of_few_scores(targets.names, validation.scores, self.coverage)
        state = State(
            targets=targets._replace(values_NT=targets.values_NT[:0]),
            transform=fitted.transform,
            predictor=fitted.predictor,
            features=features,
            fingerprints=features.fingerprints,
            columns=features.columns(),
            scores=[np.sort(scores) for scores in validation.scores],
            domain=domain,
            metrics=validation.metrics,
            chosen=self._chosen(fitted, fine_tuning),
            card=data_card(targets, smiles, len(self.left_out_)),
        )
        return self._adopt(state)

    def predict(self, X: Any) -> NDArray[Any]:
        """Predictions [N], or [N, T] if `y` was a table: float64 in the unit of `y`, or class labels.

        Raises:
            InvalidSmilesError: If a row cannot be used and `on_invalid="raise"`, or if there are no rows.
            CheckpointError: If the model of the embeddings is not the one of `fit`.
        """
        if self.task == "regression":
            values_NT = self._spread(*self._predict(X))
            columns: list[NDArray[Any]] = list(self._state.transform.backward(values_NT).T)
        else:
            columns = [most_probable(p, labels) for p, labels in zip(self._probabilities(X), self._state.targets.classes)]
        if self._state.targets.one_column:
            return columns[0]
        same = len({column.dtype.kind for column in columns}) == 1  # otherwise NumPy would write numbers as text
        return np.column_stack(columns if same else [column.astype(object) for column in columns])

    @available_if(lambda self: self.task == "classification")
    def predict_proba(self, X: Any) -> NDArray[np.float64] | list[NDArray[np.float64]]:
        """Probabilities [N, C] of the classes, in the order of `classes_`; for several targets a list of T arrays. Errors: see `predict`.

        A model with `task="regression"` does not have this method.
        """
        found = self._probabilities(X)
        return found[0] if len(found) == 1 else found

    def predict_table(self, X: Any) -> pd.DataFrame:
        """Predictions with intervals or sets, and the distance to the training molecules: a row for each molecule, in order.

        Rows that cannot be used are in the table, whatever `on_invalid` is: their predictions are missing, and `reason` says why.

        Returns:
            * `smiles`, as given.
            * For regression, for each target: TARGET, TARGET_lower, TARGET_upper: the prediction, and an interval that
              contains the true value with the probability `coverage`, in the unit of `y`.
            * For classification, for each target: TARGET: the label; TARGET_p_LABEL: probabilities; TARGET_set: the labels in the set
              with the stated coverage, joined by "; ". It may be empty.
            * `nearest_training`, `tanimoto`, `embedding_distance`: see `domain.Nearest`.
            * `reason`: why there is no prediction, or None.

        Raises:
            InvalidSmilesError: If there are no rows.
            CheckpointError: If the model of the embeddings is not the one of `fit`.
        """
        return prediction_table(self._state, self._read(X), self.coverage)

    def save(self, path: str | os.PathLike[str], *, unit: str = "", licence: str = "") -> None:
        """Writes the fitted model to a file, without pickles; `load_property_model` reads it. An existing file is replaced.

        The weights of the embeddings are not in the file: it keeps the name of their model and the fingerprint.

        Args:
            path: The file.
            unit: Unit of the targets, kept in the card.
            licence: Licence of the data or the model, kept in the card.

        Raises:
            NotFittedError: If the model is not fitted.
            ConfigError: If the head contains types that such files may not contain.
        """
        check_is_fitted(self)
        self._state.card |= {key: text for key, text in (("unit", unit), ("licence", licence)) if text}
        head = self.head if isinstance(self.head, str) else repr(self.head)
        recipe = self.fine_tune if isinstance(self.fine_tune, str | None) else dataclasses.asdict(self.fine_tune)
        settings = {
            **self.get_params(deep=False),
            "head": head,
            "model": self._model_name(),
            "fine_tune": recipe,
            "checkpoint": None,
            "device": None,
        }
        write_state(Path(path), settings, self._state)

    @classmethod
    def _restored(cls, settings: dict[str, Any], state: State) -> PropertyModel:
        """A fitted model of a file."""
        if isinstance(settings.get("fine_tune"), dict):
            settings["fine_tune"] = Recipe(**settings["fine_tune"])
        return cls(**settings)._adopt(state)

    def _model_name(self) -> str | None:
        """Name of the shipped model, or the last part of a path, of the embeddings; None if there are none."""
        if not self._state.fingerprints:
            return None
        name = resolve(self.model, self.device).name
        return None if name is None else Path(name).name

    def score(self, X: Any, y: Any) -> float:
        """R2 or accuracy on other rows; the mean over targets. Missing values, and with `on_invalid="nan"` invalid rows, are left out."""
        check_is_fitted(self)
        truth = read_targets(y, self.task)
        predicted = np.reshape(self.predict(X), (-1, len(self.target_names_)))
        values = []
        for number in range(len(self.target_names_)):
            known = ~np.isnan(truth.values_NT[:, number]) & ~pd.isna(predicted[:, number])
            if self.task == "regression":
                values.append(r2_score(truth.values_NT[known, number], predicted[known, number]))
            else:
                codes = truth.values_NT[known, number].astype(np.int64)
                values.append(np.mean(truth.classes[number][codes] == predicted[known, number]))
        return float(np.mean(values))

    def check_arguments(self) -> None:
        """Raises a `ConfigError` if an argument has an unknown value. `fit` calls it first."""
        check_choice("task", self.task, TASKS)
        check_integer("folds", self.folds, 1 if self.split == "time" else 2)
        check_positive("coverage", self.coverage, 1.0)
        check_positive("time_limit", self.time_limit)
        check_choice("on_invalid", self.on_invalid, ("raise", "nan"))
        check_seed(self.random_state)
        if isinstance(self.head, str) and self.head != AUTO:
            check_head_name(self.head, self.task)
        TargetTransform(self.target_transform)
        if self.coverage == 1:
            raise ConfigError("coverage must be below 1, found 1. Intervals that cover every value are infinite.")
        if self.target_transform is not None and self.task == "classification":
            raise ConfigError(f"target_transform={self.target_transform!r} needs task='regression'. Leave it out.")
        self._fine_tuning()

    def _fine_tuning(self) -> FineTuning | None:
        return FineTuning.of(self.fine_tune, self.members, self.checkpoint, self.features, self.head)

    def _usable_rows(self, molecules: Molecules, targets: Targets) -> NDArray[np.int64]:
        """Indices of the rows with a molecule and a value; the others are kept in `left_out_`."""
        count = len(molecules.canonical)
        if len(targets.values_NT) != count:
            raise InvalidShapeError(f"X has {count} rows and y has {len(targets.values_NT)}. Pass one row of y for each molecule.")
        empty = np.flatnonzero(np.isnan(targets.values_NT).all(axis=1))
        reasons = {int(row): "the target is missing (NaN)" for row in empty} | molecules.reasons
        check_valid(reasons, count, self.on_invalid, "these rows are left out and listed in left_out_")
        listed = sorted(reasons.items())
        self.left_out_ = pd.DataFrame(
            {"row": [r for r, _ in listed], "smiles": [molecules.given[r] for r, _ in listed], "reason": [why for _, why in listed]}
        )
        return np.array([row for row in range(count) if row not in reasons], dtype=np.int64)

    def _chosen(self, fitted: Fitted, fine_tuning: FineTuning | None) -> dict[str, Any]:
        if fine_tuning is not None:
            return {"head": FINE_TUNED, "settings": {"scope": fine_tuning.recipe.scope, "members": fine_tuning.members}}
        choice = fitted.choice
        return {"head": self.head, "settings": {}} if choice is None else {"head": choice.head, "settings": choice.settings}

    def _adopt(self, state: State) -> PropertyModel:
        """Sets the attributes that show what was learnt."""
        self._state, self.predictor_ = state, state.predictor
        self.metrics_, self.chosen_, self.card_ = state.metrics, state.chosen, state.card
        self.target_names_ = list(state.targets.names)
        self.n_features_in_ = 1
        if self.task == "classification":
            self.classes_ = state.targets.classes[0] if len(state.targets.names) == 1 else list(state.targets.classes)
        return self

    def _predict(self, X: Any) -> tuple[Any, NDArray[np.int64]]:
        """Predictions of distinct molecules, and the index of each row in them; -1 for invalid ones."""
        molecules = self._read(X)
        check_valid(molecules.reasons, len(molecules.canonical), self.on_invalid, "their predictions are missing")
        return self._predict_distinct(molecules)

    def _read(self, X: Any) -> Molecules:
        check_is_fitted(self)
        check_embedding(self._state.features, self._state.fingerprints, "This PropertyModel")
        return read_molecules(X, check_steps(self.standardise), self._state.features.invalid_reason)

    def _predict_distinct(self, molecules: Molecules) -> tuple[Any, NDArray[np.int64]]:
        index = {smiles: number for number, smiles in enumerate(dict.fromkeys(filter(None, molecules.canonical)))}
        distinct = list(index)
        blocks = [self.predictor_.predict(distinct[start : start + _AT_ONCE]) for start in range(0, len(distinct), _AT_ONCE)]
        if self.task == "regression":
            found: Any = np.concatenate([np.empty((0, len(self.target_names_))), *blocks])
        else:
            empty = [np.empty((0, len(labels))) for labels in self._state.targets.classes]
            found = [np.concatenate(parts) for parts in zip(empty, *blocks)]
        return found, np.array([index.get(smiles, -1) for smiles in molecules.canonical], dtype=np.int64)

    @staticmethod
    def _spread(found_MC: NDArray[np.float64], index_N: NDArray[np.int64]) -> NDArray[np.float64]:
        """Values of all rows; NaN for invalid ones."""
        return np.concatenate([found_MC, np.full((1, found_MC.shape[1]), np.nan)])[index_N]

    def _probabilities(self, X: Any) -> list[NDArray[np.float64]]:
        found, index_N = self._predict(X)
        return [self._spread(of_target, index_N) for of_target in found]

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "predictor_")

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, RegressorTags

        tags = super().__sklearn_tags__()
        if self.task == "classification":
            tags.estimator_type, tags.classifier_tags = "classifier", ClassifierTags()
        else:
            tags.estimator_type, tags.regressor_tags = "regressor", RegressorTags()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        tags.no_validation = True
        return tags
