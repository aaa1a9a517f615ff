"""Exact reconstruction by greedy decoding: the metric of Sec. 3.5."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..generation import DecodingSettings, decode
from ..inference.reconstruction import reconstruction_scores
from ..mcore.network import MegatronCMIMNetwork
from ..models import CMIMNetwork
from ..tokenizers import SmilesTokenizer
from ..tokenizers.collate import collate
from .checkpoints.export import to_plain

__all__ = ["reconstruct"]


def reconstruct(
    network: MegatronCMIMNetwork, molecules: Sequence[np.ndarray], tokenizer: SmilesTokenizer, *, slack: int = 32
) -> dict[str, float]:
    """Encodes molecules to their posterior means, decodes the means greedily, and compares the molecules.

    This uses the plain network, which decodes with a cache, with a copy of the current weights. A collective call over
    tensor-parallel ranks.

    Args:
        network: The network in training.
        molecules: Token ids of each molecule, without special tokens.
        tokenizer: Converts token ids to SMILES.
        slack: Maximum number of tokens by which a decoded molecule may be longer than the longest of `molecules`.

    Returns:
        `reconstruction` and `validity`; see `inference.reconstruction.reconstruction_scores`.
    """
    with torch.device("meta"):  # does not draw initial weights, which would advance the random number generator of the run
        plain = CMIMNetwork(network.network_config)
    plain.load_state_dict(to_plain(network), assign=True)
    device = next(network.parameters()).device
    plain.to(device).eval()
    vocabulary = tokenizer.vocabulary
    batch = collate(molecules, vocabulary).to(device)
    with torch.inference_mode():
        posterior = plain.encode(batch.encoder_BS, batch.is_token_BS)
    settings = DecodingSettings(max_tokens=max(map(len, molecules)) + slack)
    ids_BT = decode(plain, vocabulary, posterior.mean_BKD, posterior.is_latent_BK, settings).ids_BNT[:, 0]
    decoded = [tokenizer.decode(row) for row in ids_BT.tolist()]
    return reconstruction_scores(decoded, [tokenizer.decode(row.tolist()) for row in molecules])
