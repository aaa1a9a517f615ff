"""Exact reconstruction by greedy decoding: the metric of Sec. 3.5."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..mcore.network import MegatronCMIMNetwork
from ..models import CMIMNetwork, greedy_decode
from ..molecules import canonical_or_none, canonical_smiles
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
        `reconstruction`: fraction of molecules whose decoded SMILES has the same canonical SMILES. A decoder that was trained with
            SMILES enumeration writes randomized SMILES.
        `validity`: fraction of decoded SMILES that RDKit can parse.
    """
    with torch.device("meta"):  # does not draw initial weights, which would advance the random number generator of the run
        plain = CMIMNetwork(network.network_config)
    plain.load_state_dict(to_plain(network), assign=True)
    plain.eval()
    vocabulary = tokenizer.vocabulary
    batch = collate(molecules, vocabulary)
    with torch.inference_mode():
        posterior = plain.encode(batch.encoder_BS, batch.is_token_BS)
    ids_BT = greedy_decode(
        plain,
        posterior.mean_BKD,
        posterior.is_latent_BK,
        bos_id=vocabulary.bos_id,
        eos_id=vocabulary.eos_id,
        is_allowed_V=torch.tensor(vocabulary.is_chemical),
        max_tokens=max(map(len, molecules)) + slack,
    )
    wanted = [canonical_smiles(tokenizer.decode(row.tolist())) for row in molecules]
    decoded = [canonical_or_none(tokenizer.decode(row)) for row in ids_BT.tolist()]
    return {
        "reconstruction": float(np.mean([a == b for a, b in zip(decoded, wanted)])),
        "validity": float(np.mean([smiles is not None for smiles in decoded])),
    }
