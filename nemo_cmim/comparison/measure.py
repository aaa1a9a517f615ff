"""What is measured of a trained model. B molecules, T targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import pandas as pd
import torch

from ..downstream import Featurizer, RegressionData, evaluate, named_heads
from ..inference import CMIMModel
from ..models import CMIMNetwork
from ..molecules import canonical_or_none, canonical_smiles
from ..tokenizers.collate import collate
from .settings import RegressionConfig

__all__ = ["decoding", "embeddings", "randomised", "regression"]

_BATCH = 128


def decoding(model: CMIMModel, smiles: Sequence[str]) -> dict[str, float]:
    """How well a model writes molecules from their posterior means; nothing for a model without decoder.

    Returns:
        `token_accuracy`: share of tokens (and `<EOS>`) that are the most likely one, under teacher forcing.
        `reconstruction`: share of molecules that greedy decoding gives back, however spelled.
        `validity`: share of decoded SMILES that RDKit reads.
    """
    if not model.config.network.decoder_layers:
        return {}
    longest = max(len(model.tokenizer.encode(s)) for s in smiles)
    decoded = [
        canonical_or_none(s) for s in model.reconstruct(smiles, max_tokens=min(2 * longest, model.config.network.max_tokens))
    ]
    return {
        "token_accuracy": _token_accuracy(model, smiles),
        "reconstruction": sum(a == canonical_smiles(b) for a, b in zip(decoded, smiles)) / len(smiles),
        "validity": sum(s is not None for s in decoded) / len(smiles),
    }


@torch.inference_mode()
def _token_accuracy(model: CMIMModel, smiles: Sequence[str]) -> float:
    tokens = sorted((model.tokenizer.encode(s) for s in smiles), key=len)
    right = targets = 0
    for start in range(0, len(tokens), _BATCH):
        batch = collate(tokens[start : start + _BATCH], model.tokenizer.vocabulary).to(model.device)
        posterior = model.network.encode(batch.encoder_BS, batch.is_token_BS)
        predicted_BT = model.network(batch.decoder_BT, posterior.mean_BKD, posterior.is_latent_BK).argmax(-1)
        right += int(((predicted_BT == batch.target_BT) & batch.is_target_BT).sum())
        targets += int(batch.is_target_BT.sum())
    return right / targets


def embeddings(model: CMIMModel) -> dict[str, Featurizer]:
    """The kinds of embedding that a model has."""
    kinds = ("mean", "informative") if model.config.network.decoder_layers else ("mean",)
    return {kind: partial(model.embed, kind=kind) for kind in kinds}


def randomised(model: CMIMModel, seed: int) -> CMIMModel:
    """The model with fresh random weights in place of its own: what the architecture alone gives."""
    torch.manual_seed(seed)
    model.network.load_state_dict(CMIMNetwork(model.config.network).state_dict())
    return model


def regression(data: Sequence[RegressionData], features: Mapping[str, Featurizer], config: RegressionConfig) -> pd.DataFrame:
    """RMSE of each head on each set of features: `data, features, head, rmse`, averaged over the config's seeds."""
    heads = named_heads(config.heads, config.mlp_steps)
    tables = []
    for one in data:
        results = evaluate(one, features, heads, folds=config.folds, seeds=config.seeds, progress=False)
        table = results.runs.groupby(["features", "head"], sort=False)["rmse"].mean().reset_index()
        tables.append(table.assign(data=one.name))
    return pd.concat(tables, ignore_index=True)
