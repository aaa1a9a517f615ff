"""The two figures of the demo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.decomposition import PCA

from nemo_cmim.downstream.datasets import RegressionData
from nemo_cmim.inference import CMIMModel

__all__ = ["plot_latents", "plot_losses"]

PANELS = {
    "log_p_x_given_z_per_token": "log p(x|z), nats per token",
    "log_p_k1": "log p(k=1|x, z), nats",
    "log_q_z_given_x_per_dim": "log q(z|x), nats per dimension",
    "log_p_z_per_dim": "log P(z), nats per dimension",
    "token_accuracy": "token accuracy",
    "reconstruction": "exact reconstruction",
}


def plot_latents(model: CMIMModel, name: str, data: RegressionData, path: Path) -> None:
    """Plots the first two principal components of both kinds of embedding, coloured by the target."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    for panel, kind in zip(figure.subplots(1, 2), ("mean", "informative")):
        embedding = model.embed(data.smiles, kind=kind)
        pca = PCA(2).fit(embedding)
        points = panel.scatter(*pca.transform(embedding).T, c=data.targets, s=12, cmap="viridis")
        explained = pca.explained_variance_ratio_
        labels = {f"{axis}label": f"component {i + 1} ({explained[i]:.0%})" for i, axis in enumerate("xy")}
        panel.set(title=f"{name}, {kind} embedding", **labels)
    figure.colorbar(points, label=f"{data.name} / {data.unit}")
    FigureCanvasAgg(figure).print_png(str(path))


def plot_losses(run_folder: Path, path: Path) -> str:
    """Plots each logged term of the loss against the training step.

    Returns:
        The loss at the start and at the end, in words.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(run_folder))
    reader.Reload()
    tags = reader.Tags()["scalars"]
    figure = Figure(figsize=(12, 6), layout="constrained")
    for panel, (name, label) in zip(figure.subplots(2, 3).flat, PANELS.items()):
        for split, style in (("train", {"linewidth": 1}), ("val", {"marker": "o", "markersize": 4})):
            if f"{split}/{name}" in tags:
                steps, values = zip(*((event.step, event.value) for event in reader.Scalars(f"{split}/{name}")))
                panel.plot(steps, values, label=split, **style)
        panel.set(title=label, xlabel="step")
        panel.legend()
    FigureCanvasAgg(figure).print_png(str(path))
    losses = np.array([event.value for event in reader.Scalars("train_loss")])
    return f"training loss {losses[0]:.0f} at the start, {losses[-5:].mean():.0f} at the end, nats per molecule"
