"""The random affine transform of Sec. D.1, with the conventions of torchvision's `RandomAffine`, by `affine_grid`. B images."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["affine_matrices", "random_affine", "transform"]

DEGREES = 15.0
TRANSLATE = 0.1  # fraction of the side
SCALE = (0.9, 1.1)
SHEAR = 10.0  # degrees, along x


def random_affine(x_BP: Tensor, generator: torch.Generator) -> Tensor:
    """Transforms each image: rotation within 15 degrees, shift within 0.1 of the side, scale 0.9 to 1.1, shear within 10 degrees along x.

    Each is drawn uniformly (Sec. D.1). Outside of the image is black.

    Differs from torchvision: interpolation is bilinear, and shifts are not rounded to pixels.

    Args:
        x_BP: Pixels in [0, 1], [B, 784].
        generator: Source of all random numbers, on the CPU, so that they are the same on all devices.

    Returns:
        [B, 784], values in [0, 1].
    """
    u_B5 = torch.rand(len(x_BP), 5, generator=generator).to(x_BP.device)
    angle_B = (2 * u_B5[:, 0] - 1) * math.radians(DEGREES)
    shift_B2 = (2 * u_B5[:, 1:3] - 1) * TRANSLATE
    scale_B = SCALE[0] + (SCALE[1] - SCALE[0]) * u_B5[:, 3]
    shear_B = (2 * u_B5[:, 4] - 1) * math.radians(SHEAR)
    return transform(x_BP, affine_matrices(angle_B, shift_B2, scale_B, shear_B))


def affine_matrices(angle_B: Tensor, shift_B2: Tensor, scale_B: Tensor, shear_B: Tensor) -> Tensor:
    """Matrices from output to input coordinates, as `affine_grid` requires them.

    Inverse of this map of the image about its centre: shear and scale first, then rotation, then shift.

    Args:
        angle_B: Clockwise rotation, radians.
        shift_B2: Shift to the right and down, in sides of the image.
        scale_B: Magnification.
        shear_B: Shear along x, radians.

    Returns:
        [B, 2, 3].
    """
    zero_B, one_B = torch.zeros_like(angle_B), torch.ones_like(angle_B)
    back_rotation = _matrix(angle_B.cos(), angle_B.sin(), -angle_B.sin(), angle_B.cos())
    back_shear = _matrix(one_B, shear_B.tan(), zero_B, one_B)
    inverse_B22 = back_shear @ back_rotation / scale_B[:, None, None]
    return torch.cat([inverse_B22, -inverse_B22 @ (2 * shift_B2).unsqueeze(2)], dim=2)  # a side is 2 in normalised coordinates


def _matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    return torch.stack([a, b, c, d], dim=1).view(-1, 2, 2)


def transform(x_BP: Tensor, matrix_B23: Tensor) -> Tensor:
    """Applies matrices of `affine_matrices` to square images [B, P]."""
    side = math.isqrt(x_BP.shape[1])
    images_B1SS = x_BP.view(-1, 1, side, side)
    grid = F.affine_grid(matrix_B23, list(images_B1SS.shape), align_corners=False)
    return F.grid_sample(images_B1SS, grid, mode="bilinear", padding_mode="zeros", align_corners=False).flatten(1).clamp(0.0, 1.0)
