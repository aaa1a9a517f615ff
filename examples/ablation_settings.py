"""What ablations.py compares: settings of training, and embeddings of a trained model."""

from __future__ import annotations

from nemo_cmim.evaluation.features import EmbeddingSpec

__all__ = ["BASE", "COMMON", "SETTINGS", "embeddings_of"]

BASE = "base: tau 1, K 1, width 128"
SETTINGS: dict[str, tuple[str, ...]] = {
    BASE: (),
    **{f"tau {tau}": (f"model.objective.tau={tau}",) for tau in (0.03, 0.1, 0.3)},
    **{f"K {latents}": (f"model.network.latents={latents}",) for latents in (2, 4)},
    "randomized SMILES": ("model.augmentation.strings=different_random",),
    **{f"width {width}": (f"model.network.hidden_size={width}", f"model.network.ffn_size={4 * width}") for width in (64, 256)},
}
"""Overrides of conf/pretrain.yaml for each setting."""

COMMON = (
    "model=tiny",
    "model.train_ds.batch_size=64",
    "model.train_ds.workers=1",
    "model.validation_ds.workers=0",
    "model.validation_ds.limit=512",
    "model.validation.reconstruct=0",
    "model.optim.lr=1e-3",
    "model.optim.sched.warmup_ratio=0.05",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "trainer.num_sanity_val_steps=0",
    "exp_manager.checkpoint_callback_params.save_top_k=1",
)
"""Overrides of all runs: the same as in conf/demo.yaml."""


def embeddings_of(decoder_layers: int, is_base: bool) -> dict[str, tuple[EmbeddingSpec, ...]]:
    """The embeddings of a run by their names in tables; several are concatenated."""
    mean, informative = EmbeddingSpec("mean"), EmbeddingSpec()
    found: dict[str, tuple[EmbeddingSpec, ...]] = {"mean": (mean,), "informative": (informative,)}
    if is_base:
        found["last position"] = (EmbeddingSpec(pooling="last"),)
        found["informative and mean"] = (informative, mean)
        found |= {f"layer {layer} of {decoder_layers}": (EmbeddingSpec(layers=(layer,)),) for layer in range(1, decoder_layers)}
        found["all layers"] = (EmbeddingSpec(layers=tuple(range(1, decoder_layers + 1))),)
    return found
