"""Prediction of measured properties from features of molecules, and a fair comparison of features.

Features are anything that maps SMILES to an array: `functools.partial(nemo_cmim.embed, kind="mean")`, a scikit-learn
transformer, or the built-in fingerprints and descriptors.
"""

from __future__ import annotations

from ..properties.features import Featurizer, builtin_featurizer, compute_features, rdkit_descriptors
from ..properties.heads import FeatureScaler, MLPHead, fit_together, svm
from ..properties.splits import Split, random_folds, scaffold_split
from .datasets import DroppedRow, RegressionData, freesolv, load_csv
from .moleculenet import load_moleculenet
from .protocol import Results, evaluate, named_heads, results_of
from .report import check_report_folder, describe, make_folder, markdown, mean_and_sd, parity_plot, write_report

__all__ = [
    "DroppedRow",
    "FeatureScaler",
    "Featurizer",
    "MLPHead",
    "RegressionData",
    "Results",
    "Split",
    "builtin_featurizer",
    "check_report_folder",
    "compute_features",
    "describe",
    "evaluate",
    "fit_together",
    "freesolv",
    "load_csv",
    "load_moleculenet",
    "make_folder",
    "markdown",
    "mean_and_sd",
    "named_heads",
    "parity_plot",
    "random_folds",
    "rdkit_descriptors",
    "results_of",
    "scaffold_split",
    "svm",
    "write_report",
]
