"""How well models decode held-out molecules from their posterior means. B molecules, T targets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch

from ..files import atomic_write
from ..inference import CMIMModel
from ..inference.reconstruction import reconstruction_scores
from ..inference.shipped import resolve
from ..tokenizers.collate import collate
from .blocks import block_path
from .digest import code_digest, digest_of

__all__ = ["MEASURES", "decode_all", "decoding"]

MEASURES = {"token_accuracy": "token accuracy", "reconstruction": "reconstruction", "validity": "validity"}
"""Fractions that `decoding` measures, and their names in tables."""

_BATCH = 128


def decoding(model: CMIMModel, smiles: Sequence[str]) -> dict[str, float]:
    """Decodes the posterior mean of each molecule. Empty for a model without decoder.

    Returns:
        `token_accuracy`: fraction of tokens (and `<EOS>`) that are the most likely one, under teacher forcing.
        `reconstruction`, `validity`: of greedy decoding; see `inference.reconstruction.reconstruction_scores`.
    """
    if not model.config.network.decoder_layers:
        return {}
    longest = max(len(model.tokenizer.encode(s)) for s in smiles)
    decoded = model.reconstruct(smiles, max_tokens=min(2 * longest, model.config.network.max_tokens))
    return {"token_accuracy": _token_accuracy(model, smiles), **reconstruction_scores(decoded, smiles)}


@torch.inference_mode()
def _token_accuracy(model: CMIMModel, smiles: Sequence[str]) -> float:
    tokens = sorted((model.tokenizer.encode(s) for s in smiles), key=len)
    correct = targets = 0
    for start in range(0, len(tokens), _BATCH):
        batch = collate(tokens[start : start + _BATCH], model.tokenizer.vocabulary).to(model.device)
        posterior = model.network.encode(batch.encoder_BS, batch.is_token_BS)
        predicted_BT = model.network(batch.decoder_BT, posterior.mean_BKD, posterior.is_latent_BK).argmax(-1)
        correct += int(((predicted_BT == batch.target_BT) & batch.is_target_BT).sum())
        targets += int(batch.is_target_BT.sum())
    return correct / targets


def decode_all(models: Mapping[str, str], smiles: Sequence[str], folder: Path) -> pd.DataFrame:
    """`decoding` of each model on the same molecules. What `folder` already has is read.

    Args:
        models: For each label the shipped name or path of a model.
        smiles: The molecules.
        folder: Folder of the kept results; created if it does not exist.

    Returns:
        `model, molecules`, and the measures of `MEASURES`, NaN for a model without decoder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows, code = [], code_digest(__name__)
    for label, name in models.items():
        model = resolve(name, engine="torch")
        digest = digest_of(code, model.fingerprint("mean"), model.device.type, list(smiles))
        path = block_path(folder, f"decoding {label}", digest, ".json")
        if not path.exists():
            with atomic_write(path) as staging:
                staging.write_text(json.dumps(decoding(model, smiles)), encoding="utf-8")
        rows.append({"model": label, "molecules": len(smiles), **json.loads(path.read_text(encoding="utf-8"))})
    return pd.DataFrame(rows, columns=["model", "molecules", *MEASURES])
