"""Compares objectives: equal training runs, one table, one figure. `nemo-cmim compare` calls it."""

from .compare import compare
from .runs import planned
from .settings import CompareConfig, RegressionConfig

__all__ = ["CompareConfig", "RegressionConfig", "compare", "planned"]
