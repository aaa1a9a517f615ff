"""The fingerprint of an embedding: what vectors depend on, as one SHA-256.

Whoever keeps vectors, or something that was fitted to vectors, keeps the fingerprint with them and compares it before vectors of a
model are used with it.

Equal fingerprints mean: the same molecule gets the same vector, except for rounding errors, which depend on the batch, the device and the
versions of the libraries. The fingerprint covers the weights, the settings of the network, the vocabulary, the kind of embedding, its
layers and pooling, the canonical form of SMILES, the engine and its precision. It does not cover names of files, model cards, the
settings of the training, `sample=True`, or `standardise`, which changes the molecule that is embedded. Different fingerprints
mean that vectors may differ.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..config import NetworkConfig
from ..molecules import CANONICALISATION
from .capabilities import EmbeddingSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["embedding_fingerprint", "weights_digest"]

_VERSION = "nemo_cmim embedding 1"  # increase the number when a change of the code changes vectors


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, shapes and float32 values of the weights that vectors depend on, in hex; property heads are left out.

    Weights that are stored in half precision have the digest of their float32 values, with which the network computes.
    """
    digest = hashlib.sha256()
    for name, weight in sorted(weights.items()):
        if name.startswith("heads."):
            continue
        digest.update(f"{name} {list(weight.shape)}\n".encode())
        digest.update(weight.detach().float().cpu().numpy().astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


def embedding_fingerprint(
    weights: str, network: NetworkConfig, vocabulary: str, spec: EmbeddingSpec, *, canonical: bool, precision: str = "fp32"
) -> str:
    """SHA-256 of everything that the vectors of an embedding depend on, in hex; see the top of this file.

    Args:
        weights: `weights_digest` of the network.
        network: Settings of the network, without its property heads. Only those that differ from their defaults count, so that a
            setting that a later version adds does not change the fingerprints of existing models.
        vocabulary: `Vocabulary.fingerprint`.
        spec: The embedding.
        canonical: Whether SMILES are canonicalised first.
        precision: In which the network computes, see `load`; "int8" for the engine "onnx-int8".
    """
    fields = [field for field in dataclasses.fields(network) if field.name != "heads"]
    settings = {f.name: getattr(network, f.name) for f in fields if getattr(network, f.name) != f.default}
    content = {
        "version": _VERSION,
        "weights": weights,
        "network": settings,
        "vocabulary": vocabulary,
        "kind": spec.kind,
        "layers": [int(layer) for layer in spec.layers],
        "pooling": spec.pooling,
        "canonicalisation": CANONICALISATION if canonical else "none",
        "engine": "onnx-int8" if precision == "int8" else "torch",  # in fp32, the engine "onnx" differs by rounding errors only
        "precision": "float32" if precision == "fp32" else precision,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
