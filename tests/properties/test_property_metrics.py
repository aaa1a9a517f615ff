"""Metrics of property models where they are not defined."""

from __future__ import annotations

import numpy as np

from nemo_cmim.properties.metrics import classification_metrics


def test_metrics_of_one_class_are_missing() -> None:
    found = classification_metrics(np.zeros(4, np.int64), np.tile([0.75, 0.25], (4, 1)))
    assert [name for name, value in found.items() if np.isnan(value)] == ["roc_auc", "pr_auc", "mcc"]
    assert found["brier"] == 0.0625
    always_the_first = classification_metrics(np.array([0, 0, 1]), np.tile([0.75, 0.25], (3, 1)))
    assert always_the_first["mcc"] == 0
