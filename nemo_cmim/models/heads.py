"""Heads that predict observed properties, and what they are given. B molecules, T decoder positions, K latents, D width, W outputs."""

from __future__ import annotations

from torch import Tensor, nn

from ..config import NetworkConfig

__all__ = ["PropertyHeads", "mean_state"]


class PropertyHeads(nn.ModuleDict):
    """Linear heads: `h` for the mean of the decoder's states, `z` for the latents. Both are optional; see `config.HeadsConfig`."""

    def __init__(self, config: NetworkConfig) -> None:
        inputs = {"h": config.hidden_size, "z": config.latents * config.hidden_size}
        super().__init__({source: nn.Linear(inputs[source], config.heads.width) for source in config.heads.sources})

    def forward(self, h_BD: Tensor | None, z_BKD: Tensor | None) -> dict[str, Tensor]:
        """Predictions [B, W] of each head, in its precision: first the normal scores of the values, then the logits of the bits.

        Args:
            h_BD: Mean of the decoder's states; not used without the head `h`.
            z_BKD: Latents; not used without the head `z`.
        """
        given = {"h": h_BD, "z": None if z_BKD is None else z_BKD.flatten(1)}
        predicted = {}
        for source, head in self.items():
            x_BH = given[source]
            assert x_BH is not None and isinstance(head, nn.Linear)
            predicted[source] = head(x_BH.to(head.weight.dtype))
        return predicted


def mean_state(states_BTD: Tensor, is_target_BT: Tensor) -> Tensor:
    """Mean over real positions of the decoder's states, float32 [B, D]: the informative embedding (Sec. 2.3)."""
    weight_B1T = is_target_BT.unsqueeze(1).float()
    return (weight_B1T @ states_BTD.float()).squeeze(1) / weight_B1T.sum(2)
