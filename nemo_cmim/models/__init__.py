"""The network in PyTorch, without Megatron or NeMo: the reference implementation, used for inference; and parts of other networks."""

from .network import CMIMNetwork
from .perceiver import Perceiver
from .posterior import build_posterior

__all__ = ["CMIMNetwork", "Perceiver", "build_posterior"]
