"""The network in PyTorch, without Megatron or NeMo: the reference implementation, used for inference."""

from .network import CMIMNetwork

__all__ = ["CMIMNetwork"]
