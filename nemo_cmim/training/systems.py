"""The baseline models of the paper, conf/system/, with their numbers of parameters and those that the paper states (Sec. D.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ..config import ModelConfig
from ..markdown import markdown_table
from ..models import CMIMNetwork
from .run import compose, model_settings

__all__ = ["SYSTEMS", "System", "describe_systems", "system"]

SYSTEMS = {"mim": 65.2, "cmim": 65.2, "megamolbart": 58.9, "perceiver_ae": 64.6, "molvae": 65.2}
"""Name of a baseline model -> millions of parameters that the paper states."""

_WHY = """\
The paper does not explain its numbers of parameters. The numbers here are sums over the layers that Sec. D.2 states:
- A transformer layer of width 512 has 3.15 M parameters, or 4.20 M with cross-attention. 6 + 6 layers have 44.1 M, and MegaMolBART with
  its embedding tables 44.7 M.
- A Perceiver block consists of one layer of each kind. The 4 x 512 encoders are larger than MegaMolBART's by 25 M; in the paper, by 6 M.
- The two posterior heads have 0.53 M: the difference between Perceiver AE and MolVAE, here and in the paper (0.6 M).
- MegaMolBART is 14.2 M short of the paper's 58.9 M. Feed-forward layers with a gate, a third matrix of 512 x 2048, would add 12.6 M, and
  separate token, position and output tables 0.9 M: together 58.2 M. The paper states neither.
- No interpretation of Sec. D.2 that we tried gives the 64.6 M of the Perceiver AE: here it has 5.4 M more, with a gate even more.
- With one latent (1 x 512), the queries and keys of attention to it have no effect. They are omitted: 9.5 M less for the same function."""


class System(NamedTuple):
    """A baseline model.

    Attributes:
        name: Name of its file in conf/system/.
        config: The settings under `model:`.
        parameters: Number of parameters of its network.
        paper_millions: Millions of parameters that the paper states.
    """

    name: str
    config: ModelConfig
    parameters: int
    paper_millions: float


def system(name: str) -> System:
    """The baseline model of that name at the paper's sizes."""
    config = model_settings(compose([f"system={name}", "model.train_ds.folder=unused"]))
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in CMIMNetwork(config.network).parameters())
    return System(name, config, parameters, SYSTEMS[name])


def describe_systems() -> str:
    """A Markdown table of the baseline models, and the reasons why the numbers of parameters differ."""
    header = ["system=NAME", "objective", "latent", "encoder input", "decoder input", "parameters", "in the paper"]
    rows = []
    for one in map(system, SYSTEMS):
        network, augmentation = one.config.network, one.config.augmentation
        width = f"{network.latents if network.has_bottleneck else 'N'} x {network.hidden_size}"
        string = "canonical SMILES" if augmentation.strings == "canonical" else "randomized SMILES"
        masked = f", {augmentation.mask_fraction:.0%} masked" if augmentation.mask_fraction else ""
        other = "another randomized SMILES" if augmentation.strings == "different_random" else "the same"
        sizes = [f"{one.parameters / 1e6:.1f} M", f"{one.paper_millions} M"]
        rows.append([one.name, one.config.objective.name, width, f"{string}{masked}", other, *sizes])
    return f"{markdown_table(header, rows)}\n\n{_WHY}"
