"""The paper's equations as loops over scalars, in float64: slow, and easy to compare with the page."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nemo_cmim.types import Posterior


def cosine(a_H: Tensor, b_H: Tensor) -> Tensor:
    return (a_H * b_H).sum() / (a_H.norm() * b_H.norm())


def log_p_k1(z_BKD: Tensor, tau: float) -> Tensor:
    """Eq. 4, anchor by anchor."""
    z = [row.flatten() for row in z_BKD.double()]
    out = []
    for i in range(len(z)):
        g_ii = torch.exp(cosine(z[i], z[i]) / tau)
        g_ij = [torch.exp(cosine(z[i], z[j]) / tau) for j in range(len(z)) if j != i]
        out.append(torch.log(g_ii / (g_ii + sum(g_ij) / (len(z) - 1))))
    return torch.stack(out)


def log_normal(z_BKD: Tensor, mean_BKD: Tensor, variance_BKD: Tensor) -> Tensor:
    """log N(z; mean, variance), dimension by dimension."""
    out = []
    for z_KD, m_KD, v_KD in zip(z_BKD.double(), mean_BKD.double(), variance_BKD.double()):
        total = z_KD.new_zeros(())
        for z, m, v in zip(z_KD.flatten(), m_KD.flatten(), v_KD.flatten()):
            total = total - 0.5 * math.log(2 * math.pi) - 0.5 * torch.log(v) - (z - m) ** 2 / (2 * v)
        out.append(total)
    return torch.stack(out)


def log_p_x_given_z(logits_BTV: Tensor, target_BT: Tensor, is_target_BT: Tensor) -> Tensor:
    """Sum of token log-likelihoods, token by token."""
    out = []
    for logits_TV, target_T, is_target_T in zip(logits_BTV.double(), target_BT, is_target_BT):
        total = logits_TV.new_zeros(())
        for logits_V, target, counts in zip(logits_TV, target_T, is_target_T):
            if counts:
                total = total + logits_V[target] - torch.log(torch.exp(logits_V).sum())
        out.append(total)
    return torch.stack(out)


def a_mim_loss(log_p_x_B: Tensor, z_BKD: Tensor, posterior: Posterior, *, contrast_tau: float | None) -> Tensor:
    """Eq. 9, molecule by molecule; `contrast_tau=None` leaves log p_k1 out (MIM)."""
    log_q = log_normal(z_BKD, posterior.mean_BKD, posterior.variance_BKD)
    log_p = log_normal(z_BKD, torch.zeros_like(z_BKD), torch.ones_like(z_BKD))
    contrast = log_p_k1(z_BKD, contrast_tau) if contrast_tau else torch.zeros(len(z_BKD), dtype=torch.float64)
    total = log_p_x_B.new_zeros((), dtype=torch.float64)
    for i in range(len(z_BKD)):
        total = total + log_p_x_B[i].double() + contrast[i] + 0.5 * (log_q[i] + log_p[i])
    return -total / len(z_BKD)
