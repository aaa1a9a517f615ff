"""Latent health: closed forms for constructed means."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("nemo.core", reason="needs the [train] extra")

from nemo_cmim.training.health import effective_rank, latent_health


def test_effective_rank_counts_the_axes_that_vary() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.zeros(4000, 12)
    x[:, :5] = torch.randn(4000, 5, generator=g)
    assert effective_rank(x) == pytest.approx(5, abs=0.02)
    assert effective_rank(x[:, :1] * torch.ones(12)) == pytest.approx(1, abs=1e-6)


def test_health_of_orthogonal_and_of_collapsed_means() -> None:
    apart = latent_health(torch.eye(6))
    assert apart["cosine_mean"] == pytest.approx(0.0, abs=1e-6)
    assert apart["effective_rank"] == pytest.approx(5, abs=1e-3)
    collapsed = latent_health(torch.ones(6, 6))
    assert collapsed["cosine_mean"] == pytest.approx(1.0)
    assert collapsed["mean_std"] == 0.0
