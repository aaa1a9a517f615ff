"""The equations of the paper as loops over scalars in float64: slow, but easy to compare with the text."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from nemo_cmim.types import Posterior


def cosine(a_H: Tensor, b_H: Tensor) -> Tensor:
    return (a_H * b_H).sum() / (a_H.norm() * b_H.norm())


def log_p_k1(z_BKD: Tensor, tau: float, *, mean_of_negatives: bool = True) -> Tensor:
    """Eq. 4, anchor by anchor; with the sum over negatives in place of their mean, cMIM-Sigma (Sec. 3.6)."""
    z = [row.flatten() for row in z_BKD.double()]
    out = []
    for i in range(len(z)):
        g_ii = torch.exp(cosine(z[i], z[i]) / tau)
        g_ij = [torch.exp(cosine(z[i], z[j]) / tau) for j in range(len(z)) if j != i]
        out.append(torch.log(g_ii / (g_ii + sum(g_ij) / (len(z) - 1 if mean_of_negatives else 1))))
    return torch.stack(out)


def info_nce(z_BKD: Tensor, positive_BKD: Tensor, tau: float) -> Tensor:
    """Eq. 1, anchor by anchor: a classification among the positives of all molecules."""
    z, positive = ([row.flatten() for row in x.double()] for x in (z_BKD, positive_BKD))
    out = []
    for i in range(len(z)):
        g = [torch.exp(cosine(z[i], positive[j]) / tau) for j in range(len(z))]
        out.append(-torch.log(g[i] / sum(g)))
    return torch.stack(out)


def kl_to_standard_normal(mean_BKD: Tensor, variance_BKD: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(0, 1)), dimension by dimension."""
    out = []
    for m_KD, v_KD in zip(mean_BKD.double(), variance_BKD.double()):
        total = m_KD.new_zeros(())
        for m, v in zip(m_KD.flatten(), v_KD.flatten()):
            total = total + (m**2 + v - 1 - torch.log(v)) / 2
        out.append(total)
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


def loss(
    name: str, log_p_x_B: Tensor, z_BKD: Tensor, posterior: Posterior, positive_BKD: Tensor, tau: float, beta: float
) -> Tensor:
    """The loss of each objective, molecule by molecule, written out without the others (Eq. 1, 4, 9; Sec. 3.6, D.2)."""
    log_q = log_normal(z_BKD, posterior.mean_BKD, posterior.variance_BKD)
    log_p = log_normal(z_BKD, torch.zeros_like(z_BKD), torch.ones_like(z_BKD))
    kl = kl_to_standard_normal(posterior.mean_BKD, posterior.variance_BKD)
    log_k, log_k_sum = log_p_k1(z_BKD, tau), log_p_k1(z_BKD, tau, mean_of_negatives=False)
    nce, nce_x = info_nce(z_BKD, positive_BKD, tau), info_nce(z_BKD, z_BKD, tau)
    total = torch.zeros((), dtype=torch.float64)
    for i, log_p_x in enumerate(log_p_x_B.double()):
        total = (
            total
            + {
                "cmim": -(log_p_x + log_k[i] + (log_q[i] + log_p[i]) / 2),
                "mim": -(log_p_x + (log_q[i] + log_p[i]) / 2),
                "vae": -log_p_x + kl[i],
                "beta_vae": -log_p_x + beta * kl[i],
                "ae": -log_p_x,
                "bart": -log_p_x,
                "infonce": nce[i],
                "cmim_sum": -(log_p_x + log_k_sum[i] + (log_q[i] + log_p[i]) / 2),
                "infonce_x": nce_x[i],
                "cae": -log_p_x - log_k[i],
                "cvae": -log_p_x + kl[i] - log_k[i],
            }[name]
        )
    return total / len(log_p_x_B)


def muon(weight_RC: Tensor, gradients: list[Tensor], lr: float, momentum: float, decay: float, update_of: Callable) -> Tensor:
    """A matrix after one step of Muon for each gradient, by singular value decomposition. `update_of`: of a value over the norm."""
    weight, average = weight_RC.double(), torch.zeros_like(weight_RC, dtype=torch.float64)
    for gradient in gradients:
        average = momentum * average + (1 - momentum) * gradient.double()
        left, values, right = torch.linalg.svd(momentum * average + (1 - momentum) * gradient.double(), full_matrices=False)
        norm = math.sqrt(sum(float(value) ** 2 for value in values))
        update = torch.zeros_like(weight)
        for i, value in enumerate(values):
            update = update + update_of(float(value) / norm) * torch.outer(left[:, i], right[i])
        weight = weight - lr * decay * weight - lr * 0.2 * math.sqrt(max(weight.shape)) * update
    return weight
