"""Muon: orthogonalised momentum for the hidden matrices, Adam for all other weights (Jordan et al. 2024).

The update of a matrix W with gradient G is, with momentum mu and the singular value decomposition U S V^T of D,

    M <- mu M + (1 - mu) G,    D = mu M + (1 - mu) G,    W <- W - lr * 0.2 sqrt(max(rows, columns)) * U V^T.

The factor gives the update the root mean square of Adam's, about 0.2, so that one learning rate fits both (Liu et al. 2025,
arXiv 2502.16982). U V^T is approximated by Newton-Schulz iterations, which only need matrix multiplications.

Importing this module adds the name `muon` to NeMo's registry. Shape letters: N matrices, R rows, C columns.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from megatron.core import parallel_state
from nemo.core.config.optimizers import OptimizerParams
from nemo.core.optim.optimizers import register_optimizer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adam import adam

from ..mcore.parallel import is_sharded

__all__ = ["Muon", "MuonParams", "hidden_matrices", "orthogonalise"]

# Row k of the table is for the iteration after which k - 1 others follow: the largest singular value u, and the polynomial a x + b x^3 +
# c x^5 whose values on an interval [l, u] are closest to 1. They fit the next interval with a margin of 1 % for rounding errors. The first
# row ends in [0.8, 1.2]. A composition of such polynomials has the least error (Amsel et al. 2025, arXiv 2505.16932).
_POLYNOMIALS = (
    (1.66170, 2.47412, -1.79335, 0.41969),
    (1.91593, 3.47010, -2.55149, 0.50128),
    (1.99398, 4.00099, -2.92196, 0.54199),
    (2.01375, 4.16163, -3.03123, 0.55404),
    (2.01851, 4.20219, -3.05863, 0.55706),
    (2.01965, 4.21195, -3.06522, 0.55779),
)
_MARGIN = 1.01
_SMALLEST_NORM = 1e-20  # of a matrix that is orthogonalised; the square of a smaller norm may underflow in fp32
_UPDATE_RMS = 0.2  # of an update with learning rate 1; about that of Adam


def hidden_matrices(network: nn.Module) -> list[nn.Parameter]:
    """The weights that Muon updates: the weight matrices of all linear layers in `network.encoder` and `network.decoder`.

    The others are the embeddings, the latents of the Perceiver, norms, biases and heads.
    """
    is_weight = re.compile(r"(encoder|decoder)\..*\.weight").fullmatch
    return [parameter for name, parameter in network.named_parameters() if is_weight(name) and parameter.dim() == 2]


class Muon(Optimizer):
    """Muon for the groups with `is_matrix=True`, Adam for the others.

    The shards of a tensor-parallel matrix are gathered first: the update is that of the whole matrix, at any tensor-parallel size. A
    matrix that holds several projections (query, key and value) is orthogonalised as one.

    Args:
        params: Parameter groups. Weights of groups with `is_matrix=True` have two dimensions; with `in_bf16=True`, the iterations multiply
            in bf16 on a CPU too.
        lr: Learning rate of both.
        betas: Decay rates of Adam's averages.
        eps: Added to Adam's denominator.
        weight_decay: Decoupled weight decay of both, as in AdamW.
        momentum: Decay rate of Muon's average of gradients (Nesterov's form).
        iterations: Number of Newton-Schulz iterations; see `orthogonalise`.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        iterations: int = 5,
    ) -> None:
        adam_settings = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
        muon_settings = {"momentum": momentum, "iterations": iterations}
        super().__init__(params, adam_settings | muon_settings | {"is_matrix": False, "in_bf16": False})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates all parameters that have a gradient. Returns the result of `closure`, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            for parameter in parameters if group["weight_decay"] else ():
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
            if parameters:
                self._step_matrices(parameters, group) if group["is_matrix"] else self._step_adam(parameters, group)
        return loss

    def _step_matrices(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        alike: dict[Any, list[nn.Parameter]] = defaultdict(list)
        for parameter in parameters:
            alike[(parameter.shape, _sharded_dimension(parameter))].append(parameter)
        for (_, dimension), members in alike.items():
            whole_NRC = _gather(torch.stack([self._direction(member, group["momentum"]) for member in members]), dimension)
            factor = _UPDATE_RMS * max(whole_NRC.shape[1:]) ** 0.5
            updates = _own_shards(orthogonalise(whole_NRC, group["iterations"], group["in_bf16"]), dimension)
            for member, update in zip(members, updates):
                member.add_(update, alpha=-group["lr"] * factor)

    def _direction(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        """The matrix D that is orthogonalised. Updates the average of gradients."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        average = state["momentum"].lerp_(parameter.grad, 1 - momentum)
        return torch.lerp(parameter.grad, average, momentum)

    def _step_adam(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                averages = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                self.state[parameter] = {"step": torch.zeros((), dtype=torch.float32)} | averages
        states = [self.state[parameter] for parameter in parameters]
        beta1, beta2 = group["betas"]
        adam(
            list[Tensor](parameters),
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=0.0,  # `step` has applied it
            eps=group["eps"],
            maximize=False,
        )


def _sharded_dimension(parameter: nn.Parameter) -> int | None:
    """The dimension of the matrix that is divided among tensor-parallel ranks, if there are several."""
    if not is_sharded(parameter) or parallel_state.get_tensor_model_parallel_world_size() == 1:
        return None
    return int(parameter.partition_dim)  # type: ignore[attr-defined]  # set by Megatron


def _gather(shards_NRC: Tensor, dimension: int | None) -> Tensor:
    """The whole matrices, in one collective call. `dimension`: that of a matrix that is sharded."""
    if dimension is None:
        return shards_NRC
    gathered = [torch.empty_like(shards_NRC) for _ in range(parallel_state.get_tensor_model_parallel_world_size())]
    torch.distributed.all_gather(gathered, shards_NRC, group=parallel_state.get_tensor_model_parallel_group())
    return torch.cat(gathered, dimension + 1)


def _own_shards(whole_NRC: Tensor, dimension: int | None) -> Tensor:
    """This rank's part of the whole matrices."""
    if dimension is None:
        return whole_NRC
    ranks, rank = parallel_state.get_tensor_model_parallel_world_size(), parallel_state.get_tensor_model_parallel_rank()
    return whole_NRC.chunk(ranks, dimension + 1)[rank]


def orthogonalise(matrices_NRC: Tensor, iterations: int, in_bf16: bool = False) -> Tensor:
    """Approximates U V^T of each matrix U S V^T by Newton-Schulz iterations of degree five.

    The result has the singular vectors of the matrix. Its singular values are within [0.8, 1.2] where those of the matrix are not too
    small: at least 0.22, 0.055, 0.014, 0.0032, 0.00075 or 0.00018 times the Frobenius norm for 1 to 6 iterations. Smaller ones are
    enlarged, but stay below 0.8.

    Args:
        matrices_NRC: Matrices of one shape.
        iterations: From 1 to 6. An iteration multiplies matrices three times.
        in_bf16: Whether to multiply in bf16, as is always done on a GPU; otherwise in the type of the matrices.

    Returns:
        [N, R, C], same type; zero or small for a matrix with a norm below 1e-20.
    """
    is_tall = matrices_NRC.shape[1] > matrices_NRC.shape[2]
    x = matrices_NRC.mT if is_tall else matrices_NRC  # X X^T is then the smaller of the two products
    polynomials = _POLYNOMIALS[iterations - 1 :: -1]
    x = x * (polynomials[0][0] / _MARGIN / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=_SMALLEST_NORM))
    if in_bf16 or x.is_cuda:  # not run on a GPU yet
        x = x.bfloat16()
    for _, a, b, c in polynomials:
        gram = torch.bmm(x, x.mT)
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return (x.mT if is_tall else x).to(matrices_NRC.dtype)


@dataclass
class MuonParams(OptimizerParams):
    """The arguments of `Muon`, for NeMo's registry."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    momentum: float = 0.95
    iterations: int = 5


register_optimizer("muon", Muon, MuonParams)
