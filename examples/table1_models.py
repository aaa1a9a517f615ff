"""The rows of table1.py: which models, which features of them, and which pairs of rows are tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from table1_sets import MINIMOL

from nemo_cmim import load
from nemo_cmim.errors import ConfigError
from nemo_cmim.evaluation.features import EACH_SEED, EmbeddingSpec, FeatureSet, embedding_kinds
from nemo_cmim.evaluation.statistics import Contrast
from nemo_cmim.inference import CMIMModel

__all__ = ["ALL_LAYERS", "RANDOM", "contrasts_of", "feature_sets", "load_models"]

RANDOM = "random weights"
ALL_LAYERS = "informative, all layers"
BUILTIN = {"morgan512": "Morgan, 512 bits", "morgan2048": "Morgan, 2048 bits", "rdkit": "RDKit 2D descriptors"}


def load_models(names: Sequence[str]) -> tuple[dict[str, str], dict[str, CMIMModel]]:
    """The name or path of each model by its label, and the models by their labels.

    Raises:
        ConfigError: If two models have the same label, or if a label is that of the rows of random weights.
    """
    paths: dict[str, str] = {}
    for name in names:
        label, _, path = name.rpartition("=")
        label = label or Path(path).stem
        if label == RANDOM:
            raise ConfigError(f"The label {RANDOM!r} is used by other rows of the table: give {path} a different label.")
        if label in paths:
            raise ConfigError(f"Two models have the label {label!r}: give them labels, as in --models a={path} b=...")
        paths[label] = path
    return paths, {label: load(path) for label, path in paths.items()}


def labels_of(models: Mapping[str, CMIMModel], objective: str) -> list[str]:
    """The labels of the models that were trained with an objective."""
    return [label for label, model in models.items() if model.config.objective.name == objective]


def feature_sets(paths: Mapping[str, str], models: Mapping[str, CMIMModel]) -> list[FeatureSet]:
    """The rows of the table."""
    shaped = (labels_of(models, "cmim") or list(models))[0]
    rows = []
    for label, source in {**{label: label for label in models}, RANDOM: shaped}.items():
        specs = {kind: EmbeddingSpec(kind) for kind in embedding_kinds(models[source])}
        layers = models[source].config.network.decoder_layers
        if layers > 1 and source == shaped:
            specs[ALL_LAYERS] = EmbeddingSpec(layers=tuple(range(1, layers + 1)))
        for name, spec in specs.items():
            row = FeatureSet(f"{label}, {name}", model=paths[source], embeddings=(spec,))
            rows.append(replace(row, random_weights=EACH_SEED) if label == RANDOM else row)
    return rows + [FeatureSet(name, builtin=builtin) for builtin, name in BUILTIN.items()]


def contrasts_of(models: Mapping[str, CMIMModel], rows: Sequence[FeatureSet]) -> list[Contrast]:
    """The tested pairs: the first cMIM against random weights and all peers, each cMIM against the first MIM, and informative against mean.

    Without a cMIM, the first model is tested instead.
    """
    cmims, mims = labels_of(models, "cmim") or list(models)[:1], labels_of(models, "mim")[:1]
    cmim = cmims[0]
    pairs = [(f"{cmim}, {kind}", f"{RANDOM}, {kind}") for kind in ("mean", "informative", ALL_LAYERS)]
    pairs += [(f"{a}, {kind}", f"{b}, {kind}") for a in cmims for b in mims if a != b for kind in ("informative", "mean")]
    pairs += [(f"{label}, informative", f"{label}, mean") for label in models]
    pairs += [(f"{cmim}, {kind}", name) for kind in ("informative", ALL_LAYERS) for name in (*BUILTIN.values(), MINIMOL)]
    known = {row.name for row in rows}
    return [Contrast(*pair) for pair in pairs if known.issuperset(pair)]
