"""The named systems that the paper compares: conf/system/, with their numbers of parameters beside the paper's (Sec. D.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ..config import ModelConfig
from ..models import CMIMNetwork
from .run import compose, model_settings

__all__ = ["SYSTEMS", "System", "describe_systems", "system"]

SYSTEMS = {"mim": 65.2, "cmim": 65.2, "megamolbart": 58.9, "perceiver_ae": 64.6, "molvae": 65.2}
"""Name -> millions of parameters that the paper states."""

_WHY = """\
The paper does not say how its numbers add up. Ours are sums of the layers that it states (Sec. D.2):
- A transformer layer of width 512 has 3.15 M parameters, with cross-attention 4.20 M. So 6 + 6 of them are 44.1 M, and MegaMolBART with
  its tables 44.7 M.
- A Perceiver block is one layer of each kind, so the 4 x 512 encoders are larger than MegaMolBART's by 25 M; in the paper by 6 M.
- The two heads of the posterior are 0.53 M: the step from Perceiver AE to MolVAE, here as in the paper (0.6 M).
- No reading of Sec. D.2 that we tried gives 58.9 M or 64.6 M: the 14.2 M less and the 5.4 M more here are unexplained.
- With one latent (1 x 512) the queries and keys of attention to it have no effect, and are not here: 9.5 M less, for the same function."""


class System(NamedTuple):
    """A named system.

    Attributes:
        name: Its file in conf/system/.
        config: Everything under `model:`.
        parameters: Of its network.
        paper_millions: What the paper states.
    """

    name: str
    config: ModelConfig
    parameters: int
    paper_millions: float


def system(name: str) -> System:
    """The system of that name at the paper's sizes."""
    config = model_settings(compose([f"system={name}", "model.train_ds.folder=unused"]))
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in CMIMNetwork(config.network).parameters())
    return System(name, config, parameters, SYSTEMS[name])


def describe_systems() -> str:
    """A table of all systems, and why the numbers differ."""
    lines = [
        "| system=NAME | objective | latent | encoder gets | decoder gets | parameters | the paper's |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in map(system, SYSTEMS):
        network, augmentation = one.config.network, one.config.augmentation
        width = f"{network.latents if network.has_bottleneck else 'N'} x {network.hidden_size}"
        string = "a random spelling" if augmentation.enumerate_smiles else "the canonical string"
        masked = f", {augmentation.mask_fraction:.0%} masked" if augmentation.mask_fraction else ""
        other = "another one" if augmentation.enumerate_smiles else "the same"
        lines.append(
            f"| {one.name} | {one.config.objective.name} | {width} | {string}{masked} | {other} | "
            f"{one.parameters / 1e6:.1f} M | {one.paper_millions} M |"
        )
    return "\n".join([*lines, "", _WHY])
