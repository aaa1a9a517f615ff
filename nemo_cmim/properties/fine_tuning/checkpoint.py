"""What an interrupted fit keeps in a folder: finished members, and the last epoch of the member in training. No pickles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from ...errors import CheckpointError
from ...files import atomic_write

__all__ = ["Checkpoint"]


class Checkpoint:
    """Tensors and settings of one fit, in files of a folder.

    Args:
        folder: It is created if it is missing.
        key: What the fit depends on, as a digest. Files of another fit are refused.
    """

    def __init__(self, folder: str | Path, key: str) -> None:
        self.folder, self.key = Path(folder), key
        self.folder.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> None:
        """Writes a file atomically."""
        metadata = {"key": self.key, "settings": json.dumps(dict(settings))}
        with atomic_write(self._path(name)) as path:
            safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)

    def read(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The tensors and settings of a file; None if it does not exist.

        Raises:
            CheckpointError: If the file is damaged or of another fit.
        """
        path = self._path(name)
        if not path.exists():
            return None
        try:
            with safetensors.safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is not a dict
        except safetensors.SafetensorError as error:
            raise CheckpointError(f"{path} is damaged ({error}). Delete it: the fit then starts this member again.") from error
        if metadata.get("key") != self.key:
            raise CheckpointError(
                f"{path} belongs to a fit with other data, settings or model. Choose another folder, or delete it to start again."
            )
        return tensors, json.loads(metadata["settings"])

    def remove(self, name: str) -> None:
        """Deletes a file if it exists."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"
