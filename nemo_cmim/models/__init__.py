"""The network in PyTorch, without Megatron or NeMo: the reference implementation, used for inference."""

from .generation import greedy_decode
from .network import CMIMNetwork

__all__ = ["CMIMNetwork", "greedy_decode"]
