"""The files of finished cells: a JSON file of results and a file of weights beside it."""

from __future__ import annotations

import io
import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch

from nemo_cmim.errors import ConfigError, DataError
from nemo_cmim.files import atomic_write

from .cell import Cell, build
from .network import ImageNetwork

__all__ = ["load_network", "read_cells", "save_tensors", "weights_of"]


def weights_of(file: Path) -> Path:
    """The file of weights beside the JSON file of a cell."""
    return file.with_suffix(".pt")


def save_tensors(path: Path, content: dict[str, Any]) -> None:
    """Writes tensors, whole or not at all.

    Raises:
        OSError: If the file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_write(path) as staging:
        staging.write_bytes(buffer.getvalue())


def load_network(file: Path) -> tuple[Cell, ImageNetwork]:
    """Loads the trained network of a finished cell: the weights with the lowest validation loss, on the CPU.

    To repeat the evaluation:

        cell, network = load_network(Path("cells/mnist-cmim-b100-s0-....json"))
        evaluate(network, load(cell.data), cell)

    Args:
        file: The JSON file of the cell.

    Raises:
        ConfigError: If the cell is of a different version.
        DataError: If a file is missing, or is not one of a cell with these weights.
    """
    path = weights_of(file)
    try:
        cell = Cell.from_mapping(json.loads(file.read_text(encoding="utf-8"))["cell"])
        network, _ = build(cell)
        network.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    except FileNotFoundError as error:
        raise DataError(f"{error.filename} is missing. Give the JSON file of a cell; its weights are beside it.") from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{file} is not the JSON file of a cell: {error}.") from error
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(f"{path} is damaged, or not the weights of {file.name}: {error}") from error
    return cell, network


def read_cells(folder: Path) -> list[dict[str, Any]]:
    """The results of all finished cells of a folder, by name; files of a different version are left out with a warning.

    Raises:
        DataError: If there is none, or a file is not JSON.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise DataError(f"{path} is not JSON: {error}.") from error
        if _has_name(result, path):
            found.append(result)
        else:
            warnings.warn(f"{path.name} is not a cell of this version, and is left out.", stacklevel=2)
    if not found:
        raise DataError(f"{folder} has no finished cell. Run: python -m examples.images grid --help")
    return found


def _has_name(result: dict[str, Any], path: Path) -> bool:
    """Whether the name of a file is that of its cell."""
    try:
        return f"{Cell.from_mapping(result['cell']).name}.json" == path.name
    except (ConfigError, KeyError, TypeError):
        return False
