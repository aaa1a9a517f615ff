"""Loads property models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CheckpointError
from .file import read_state
from .model import PropertyModel

if TYPE_CHECKING:
    from ..inference import CMIMModel

__all__ = ["load_property_model"]


def load_property_model(
    path: str | os.PathLike[str], model: str | os.PathLike[str] | CMIMModel | None = None, device: str | None = None
) -> PropertyModel:
    """Reads a file that `PropertyModel.save` wrote. No code in the file is run, and nothing is unpickled.

    The out-of-fold predictions (`cross_validation_`, `choice_`, `left_out_`, `contradictions_`) are not in the file.

    Args:
        path: The file.
        model: The model of the embeddings that it was fitted on: a loaded model, a name or a path; None: the shipped model of the name in
            the file.
        device: Device of that model; None: a GPU if there is one.

    Raises:
        CheckpointError: If the file is missing, damaged, of another kind or version, or contains types that are not allowed; or if the
            embedding is not the one that the model was fitted on.
    """
    settings, state = read_state(Path(path), model, device)
    try:
        return PropertyModel._restored(settings, state)
    except TypeError as error:
        raise CheckpointError(
            f"{path} has a setting that this version of nemo_cmim does not know ({error}). Update nemo_cmim."
        ) from error
