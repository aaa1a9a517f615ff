"""The network in PyTorch, without Megatron or NeMo: the reference implementation, used for inference; and the parts to build others."""

from .network import CMIMNetwork
from .perceiver import Perceiver, PerceiverEncoder
from .posterior import build_posterior

__all__ = ["CMIMNetwork", "Perceiver", "PerceiverEncoder", "build_posterior"]
