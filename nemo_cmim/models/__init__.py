"""The network in plain PyTorch: small, readable, and without Megatron or NeMo."""

from .generation import greedy_decode
from .network import CMIMNetwork

__all__ = ["CMIMNetwork", "greedy_decode"]
