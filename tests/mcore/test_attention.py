"""Core attention of the Megatron network."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("megatron.core", reason="needs the [train] extra")

from megatron.core.transformer.enums import AttnMaskType

from nemo_cmim.config import NetworkConfig, ParallelConfig
from nemo_cmim.mcore.attention import SdpaCoreAttention
from nemo_cmim.mcore.parallel import initialise
from nemo_cmim.mcore.provider import transformer_config


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_attention_in_half_precision_is_computed_in_fp32_on_a_cpu(dtype: torch.dtype) -> None:
    initialise(ParallelConfig())
    network = NetworkConfig(hidden_size=32, attention_heads=4, dropout=0.0)
    attention = SdpaCoreAttention(transformer_config(network, ParallelConfig(), layers=1), 1, AttnMaskType.causal)
    states = [torch.randn(7, 3, 4, 8).to(dtype).requires_grad_() for _ in range(3)]
    found = attention(*states, attention_mask=None)
    expected = attention(*(state.float() for state in states), attention_mask=None)
    assert found.dtype == dtype and found.shape == (7, 3, 32)
    assert torch.equal(found, expected.to(dtype))
    found.sum().backward()
    assert all(state.grad is not None and state.grad.dtype == dtype for state in states)
