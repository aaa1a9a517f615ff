"""Fig. 2 of the paper: the effect of the contrastive term alone on points in the plane. `python examples/toy_2d.py`, under a minute.

1,000 points that start in the first quadrant minimise -log p_k1 (Eq. 4, tau = 1) for 4,200 steps (Sec. 3.2). Their angles spread over
the circle. The loss does not depend on the radii and its gradient is tangential, so the radii stay nearly the same. Writes a figure and
prints the numbers.

Differs from the paper: it specifies neither the optimiser nor the distribution of the initial points. Here the optimiser is plain
gradient descent, and the points are uniform on the unit square. (Adam scales the two coordinates of a point differently, so its steps are
not tangential and change the radii.)
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import stats
from tqdm import trange

from nemo_cmim.losses import log_p_k1

POINTS, STEPS, TAU, RATE = 1000, 4200, 1.0, 0.005
MOMENTS = (0, 60, 240, STEPS)  # steps that the figure shows


def optimise(seed: int, points: int = POINTS, steps: int = STEPS) -> dict[int, np.ndarray]:
    """The points [B, 2] after each number of steps in MOMENTS, and after the last step."""
    z_BD = torch.rand(points, 2, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    optimiser = torch.optim.SGD([z_BD], lr=RATE)
    kept = {0: z_BD.detach().numpy().copy()}
    for step in trange(1, steps + 1, desc="steps", leave=False):
        optimiser.zero_grad()
        (-log_p_k1(z_BD.unsqueeze(1), TAU).sum()).backward()  # so that a point's step does not depend on their number
        optimiser.step()
        if step in (*MOMENTS, steps):
            kept[step] = z_BD.detach().numpy().copy()
    return kept


def polar(points_BD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Angles in [-pi, pi] and radii."""
    return np.arctan2(points_BD[:, 1], points_BD[:, 0]), np.linalg.norm(points_BD, axis=1)


def describe(points_BD: np.ndarray, radii_before_B: np.ndarray) -> str:
    """A line of numbers: whether the angles are uniform, and how much the radii have changed.

    Rayleigh's test uses the length R of the mean resultant; its p-value is exp(-n R^2) to first order. The Kolmogorov-Smirnov test compares
    the whole distribution with the uniform one.
    """
    angles_B, radii_B = polar(points_BD)
    resultant = float(np.abs(np.exp(1j * angles_B).mean()))
    uniform = stats.kstest(angles_B / (2 * np.pi) + 0.5, "uniform")
    loss = -float(log_p_k1(torch.from_numpy(points_BD).unsqueeze(1), TAU).mean())
    return (
        f"loss {loss:.4f}   angles: resultant {resultant:.4f} (Rayleigh p = {np.exp(-len(points_BD) * resultant**2):.2g}), "
        f"KS distance to uniform {uniform.statistic:.4f} (p = {uniform.pvalue:.2g})   radii: mean {radii_B.mean():.3f}, "
        f"sd {radii_B.std():.3f}, correlation with the start {np.corrcoef(radii_before_B, radii_B)[0, 1]:.3f}, "
        f"KS distance to the start {stats.ks_2samp(radii_before_B, radii_B).statistic:.3f}"
    )


def draw(kept: dict[int, np.ndarray], path: Path) -> None:
    """Plots the points, their angles and their radii at each moment, as in Fig. 2."""
    figure = Figure(figsize=(10, 2.6 * len(kept)), layout="constrained")
    largest = 1.1 * max(np.abs(points).max() for points in kept.values())
    for row, (step, points_BD), name in zip(figure.subplots(len(kept), 3), kept.items(), "abcd"):
        angles_B, radii_B = polar(points_BD)
        row[0].scatter(*points_BD.T, s=3, c=angles_B, cmap="twilight", vmin=-np.pi, vmax=np.pi)
        row[0].set(title=f"({name}) step {step:,}", xlim=(-largest, largest), ylim=(-largest, largest), aspect="equal")
        row[1].hist(angles_B, bins=36, range=(-np.pi, np.pi), color="C0")
        row[1].set(title="angle", xticks=[-np.pi, 0, np.pi], xticklabels=["-π", "0", "π"])
        row[2].hist(radii_B, bins=36, range=(0, largest), color="C1")
        row[2].set(title="radius")
    FigureCanvasAgg(figure).print_png(str(path))


def main() -> None:
    """Runs the experiment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="seed of the initial points (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, default=Path("toy_2d.png"), help="file of the figure (default: %(default)s)")
    args = parser.parse_args()
    start = time.monotonic()
    kept = optimise(args.seed)
    _, radii_before_B = polar(kept[0])
    for step, points_BD in kept.items():
        print(f"step {step:5d}: {describe(points_BD, radii_before_B)}")
    draw(kept, args.output)
    print(f"{args.output} written; {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
