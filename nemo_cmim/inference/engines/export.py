"""Writes the folder of an engine, and compares its vectors with those of PyTorch first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import CheckpointError, ConfigError
from ...mappings import to_mapping
from ...outputs import check_folder, write_folder
from ...version import __version__
from ..capabilities import KINDS
from ..model import CMIMModel
from ..model_file import ModelFile
from . import INT8, ONNX
from .fidelity import Fidelity, compare, molecules, ridge_rmse
from .folder import DESCRIPTION, VOCABULARY, graph_files, write_description
from .onnx_model import OnnxModel, runtime

__all__ = ["COSINES", "EngineReport", "Measured", "check_installed", "export_engine"]

COSINES: Mapping[str, float] = {ONNX: 1 - 1e-6, INT8: 0.998}
"""Smallest cosine similarity to vectors of PyTorch that an engine must have."""

_PROBES = 4
_LARGEST = 2**31 - 1  # bytes of an ONNX file


class Measured(NamedTuple):
    """Molecules with a measured property, to find the effect of an engine on its prediction.

    Attributes:
        name: Of the property.
        smiles: N molecules.
        values: float64 [N].
    """

    name: str
    smiles: Sequence[str]
    values: NDArray[np.float64]


class EngineReport(NamedTuple):
    """What was measured for an engine.

    Attributes:
        fidelity: By kind of embedding.
        rmse: Errors of ridge regression on vectors of PyTorch and of the engine, in the unit of the property, by kind.
        bytes: Size of its graphs.
    """

    fidelity: dict[str, Fidelity]
    rmse: dict[str, tuple[float, float]]
    bytes: int


def export_engine(
    content: ModelFile,
    folder: str | Path,
    *,
    name: str,
    source: str = "",
    engines: Sequence[str] = (ONNX,),
    cosines: Mapping[str, float] = COSINES,
    measured: Measured | None = None,
    overwrite: bool = False,
) -> dict[str, EngineReport]:
    """Writes the graphs of a model for ONNX Runtime, and how much its vectors differ from those of PyTorch.

    Args:
        content: The model.
        folder: The folder to write.
        name: Name of the model.
        source: SHA-256 of its file.
        engines: "onnx", "onnx-int8", or both.
        cosines: Smallest cosine similarity that each engine must have.
        measured: A measured property: the effect of the engine on its prediction is reported.
        overwrite: Replace the files of an earlier export.

    Returns:
        A report for each engine.

    Raises:
        CheckpointError: If an engine misses the smallest cosine similarity. Nothing is written.
        ConfigError: If a package is not installed, or the model is too large for an ONNX file or cannot embed any of the molecules.
        DataError: If the folder cannot be written, or contains other files.
    """
    build, runtime_version = _graph_module(), runtime().__version__
    network = content.config.network
    graphs = {engine: graph_files(engine, has_decoder=network.decoder_layers > 0) for engine in engines}
    names = [*(file for files in graphs.values() for file in files), VOCABULARY, DESCRIPTION]
    check_folder(folder, names, overwrite=overwrite)
    weights = {key: value.float().numpy() for key, value in content.weights.items()}
    if sum(array.nbytes for array in weights.values()) > _LARGEST:
        raise ConfigError('The model has more than 2 GiB of weights, the maximum of an ONNX file. Pass engine="torch".')
    torch_model = CMIMModel(content, "cpu")
    usable = _usable(torch_model, name)
    expected = {kind: torch_model.embed_canonical(usable, kind) for kind in KINDS if kind == "mean" or network.decoder_layers}
    probes = np.linspace(0, len(usable) // 2, _PROBES, dtype=int)  # molecules are sorted by length: not the longest ones
    description: dict[str, Any] = {
        "model": {
            "name": name,
            "sha256": source,
            "weights": torch_model._weights_digest,
            "parameters": sum(array.size for array in weights.values()),
        },
        "config": to_mapping(content.config),
        "versions": {"nemo_cmim": __version__, "onnxruntime": runtime_version},
        "molecules": len(usable),
        "probes": {
            "smiles": [usable[i] for i in probes],
            "vectors": {kind: vectors[probes].astype(float).round(7).tolist() for kind, vectors in expected.items()},
        },
        "engines": {engine: {"smallest_cosine_allowed": -1.0} for engine in engines},
    }
    reports = {}
    with write_folder(folder, names, overwrite=overwrite) as staging:
        content.vocabulary.save(staging / VOCABULARY)
        for engine, files in graphs.items():
            for file, part in zip(files, (build.encoder_graph, build.decoder_graph)):
                (staging / file).write_bytes(part(network, weights, int8=engine == INT8).SerializeToString())
        write_description(staging, description)
        for engine in engines:
            reports[engine] = _measure(OnnxModel.load(staging, engine), torch_model, usable, expected, measured, cosines[engine])
            description["engines"][engine] = {"smallest_cosine_allowed": cosines[engine], **_facts(reports[engine], engine)}
        if measured is not None:
            description["ridge_rmse_of"] = {"name": measured.name, "molecules": len(measured.smiles)}
        write_description(staging, description)
        for engine in engines:
            OnnxModel.load(staging, engine)
    return reports


def check_installed() -> None:
    """Checks that the packages of an export are installed.

    Raises:
        ConfigError: If one is not.
    """
    _graph_module()
    runtime()


def _usable(model: CMIMModel, name: str) -> list[str]:
    """The molecules of the comparison that the model can embed.

    Raises:
        ConfigError: If there are none.
    """
    usable = [smiles for smiles in molecules() if model.invalid_reason(smiles, is_canonical=True) is None]
    if not usable:
        raise ConfigError(f"The model {name} cannot embed any of the {len(molecules())} molecules for the comparison with PyTorch.")
    return usable


def _measure(
    model: OnnxModel,
    torch_model: CMIMModel,
    usable: Sequence[str],
    expected: Mapping[str, NDArray[np.float32]],
    measured: Measured | None,
    smallest: float,
) -> EngineReport:
    fidelity = {kind: compare(model.embed_canonical(usable, kind), vectors) for kind, vectors in expected.items()}
    for kind, found in fidelity.items():
        if not found.smallest_cosine >= smallest:
            raise CheckpointError(
                f"The engine {model.engine} is not written: the cosine similarity of its {kind} embeddings to those of PyTorch is "
                f"{found.smallest_cosine:.7f} for one of {len(usable)} molecules, and must be at least {smallest}. Use another engine, or "
                "allow a smaller similarity (`nemo-cmim export-onnx MODEL -o FOLDER`: --min-cosine, --min-cosine-int8), then pass "
                "FOLDER as the model."
            )
    rmse = {}
    if measured is not None:
        for kind in expected:
            both = (ridge_rmse(one.embed(measured.smiles, kind), measured.values) for one in (torch_model, model))
            rmse[kind] = (next(both), next(both))
    files = graph_files(model.engine, has_decoder=model.config.network.decoder_layers > 0)
    return EngineReport(fidelity, rmse, sum((model.folder / file).stat().st_size for file in files))


def _facts(report: EngineReport, engine: str) -> dict[str, Any]:
    """A report for `engine.json`."""
    return {
        "fidelity": {kind: one._asdict() for kind, one in report.fidelity.items()},
        "ridge_rmse": {kind: {"torch": rmse[0], engine: rmse[1]} for kind, rmse in report.rmse.items()},
    }


def _graph_module() -> Any:
    """The module that builds graphs.

    Raises:
        ConfigError: If onnx is not installed.
    """
    try:
        from . import graphs
    except ImportError as error:
        raise ConfigError(
            f'The export requires the package onnx, which cannot be imported ({error}). Run pip install "nemo_cmim[onnx]".'
        ) from error
    return graphs
