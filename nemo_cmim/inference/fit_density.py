"""Fits the density of the aggregated posterior to molecules of a file, and keeps it in the model file."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from ..arguments import check_integer, check_positive, check_seed
from ..errors import DataError
from ..generation import BANDWIDTH, KERNELS, MAX_COMPONENTS, MAX_KERNELS, LatentDensity
from ..molecules import shorten
from ..tables.layout import DETECT, ReadOptions
from ..tables.rows import MoleculeTable
from .capabilities import require_bottleneck, require_prior
from .inputs import EXPLAIN
from .model import CMIMModel
from .model_file import ModelFile

__all__ = ["fit_density", "sample_molecules"]

_ROWS_AT_ONCE = 8192


def fit_density(
    content: ModelFile,
    smiles: Sequence[str],
    *,
    components: int | None = None,
    kernels: int = KERNELS,
    bandwidth: float = BANDWIDTH,
    seed: int = 0,
    device: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> ModelFile:
    """The model with the density of the aggregated posterior of these molecules.

    Args:
        content: The model.
        smiles: Molecules like those of the training data. Invalid ones are left out.
        components: Number of Gaussians of a mixture, see `LatentDensity.fit`; None: a kernel density estimate.
        kernels: Number of kernels of the kernel density estimate, see `LatentDensity.fit_kernels`.
        bandwidth: Spread of a kernel in units of the spread of all latents.
        seed: Seed of the choice of kernels, or of the initialisation of several components.
        device: Device of the network, see `load`.
        progress: Called with the number of molecules that were encoded.

    Raises:
        DataError: If there are too few valid molecules.
        ConfigError: If the model has no bottleneck or no variance of q(z|x), or if an argument is out of range.
    """
    check_integer("components", components, 1, MAX_COMPONENTS, optional=True)  # before molecules are encoded
    check_integer("kernels", kernels, 2, MAX_KERNELS)
    check_positive("bandwidth", bandwidth, 1)
    require_bottleneck(content.config, "fit_density", "use a model that has one")
    require_prior(content.config, "fit_density", "use a model with a posterior, such as mim or cmim")
    model = CMIMModel(content, device)
    means, variances, left_out = [], [], list[int]()
    for start in range(0, len(smiles), _ROWS_AT_ONCE):
        posterior = model.encode(smiles[start : start + _ROWS_AT_ONCE], on_invalid=EXPLAIN)
        is_valid_B = posterior.mean_BKD.isfinite().all((1, 2))
        left_out += (start + (~is_valid_B).nonzero().flatten()).tolist()
        means.append(posterior.mean_BKD[is_valid_B].flatten(1))
        variances.append(posterior.variance_BKD[is_valid_B].flatten(1))
        if progress:
            progress(min(start + _ROWS_AT_ONCE, len(smiles)))
    if left_out:
        warnings.warn(
            f"{len(left_out)} of {len(smiles)} SMILES cannot be used and are left out; the first is at index {left_out[0]}: "
            f"{shorten(smiles[left_out[0]])}.",
            stacklevel=2,
        )
    if not means:
        raise DataError("There are no molecules to fit the density to. Pass a file with molecules.")
    posteriors = torch.cat(means).numpy(), torch.cat(variances).numpy()
    if components is None:
        density = LatentDensity.fit_kernels(*posteriors, kernels, bandwidth, seed)
    else:
        density = LatentDensity.fit(*posteriors, components, seed)
    return dataclasses.replace(content, density=density)


def sample_molecules(sources: Sequence[str | Path], molecules: int, *, options: ReadOptions = DETECT, seed: int = 0) -> list[str]:
    """A random sample of the SMILES of files, without replacement, in constant memory (reservoir sampling).

    Args:
        sources: Files, URLs or "-".
        molecules: Size of the sample; all SMILES if there are fewer.
        options: How to read them.
        seed: Seed of the sample.

    Raises:
        DataError: If a file cannot be read.
        ConfigError: If `molecules` is below 1, or if `seed` is out of range.
    """
    check_integer("molecules", molecules)
    check_seed(seed)
    generator = np.random.default_rng(seed)
    kept: list[str] = []
    for seen, smiles in enumerate(_all_smiles(sources, options)):
        if seen < molecules:
            kept.append(smiles)
        elif (place := int(generator.integers(seen + 1))) < molecules:
            kept[place] = smiles
    return kept


def _all_smiles(sources: Sequence[str | Path], options: ReadOptions) -> Iterator[str]:
    for source in sources:
        with MoleculeTable(source, options) as table:
            for block in table.blocks(_ROWS_AT_ONCE):
                yield from (smiles for smiles in block.smiles if smiles)
