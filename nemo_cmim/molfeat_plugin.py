"""The embeddings as a calculator of molfeat, which finds it by the entry point `molfeat.calc` of this package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from molfeat.calc import SerializableCalculator
from numpy.typing import NDArray

from .inference.embedder import MoleculeEmbedder
from .steps import Steps

__all__ = ["CMIMCalculator"]

_SETTINGS = ("model", "kind", "layers", "pooling", "standardise", "batch_size", "device")


class CMIMCalculator(SerializableCalculator):
    """Embeds molecules: `MoleculeTransformer(CMIMCalculator())`, or `MoleculeTransformer("cmimcalculator")` after the plugins are loaded.

    Its state and pickles contain the settings and the fingerprint of the embedding, not the weights. If another model has taken the place
    of the model, an error is raised; see `MoleculeEmbedder`.

    Args:
        model: Name of a shipped model, or a path; None: the default shipped model.
        kind: "informative" or "mean".
        layers: See `CMIMModel.embed`.
        pooling: See `CMIMModel.embed`.
        standardise: See `CMIMModel.embed`.
        batch_size: Maximum number of molecules in a batch; None: chosen for speed.
        device: For example "cpu"; None: a GPU if there is one, else the CPU.
        fingerprint: Fingerprint that the embedding must have, as a saved state contains it; None: any.

    Raises:
        CheckpointError: If the model does not exist; when it is used, if it does not have the fingerprint.
        ConfigError: If the model does not support the settings.
    """

    def __init__(
        self,
        model: str | None = None,
        kind: str = "informative",
        layers: Sequence[int] | None = None,
        pooling: str = "mean",
        standardise: Steps = (),
        batch_size: int | None = None,
        device: str | None = None,
        fingerprint: str | None = None,
    ) -> None:
        self._embedder = MoleculeEmbedder(model, kind, "nan", batch_size, device, layers, pooling, standardise).fit(None)
        self._embedder.fingerprint_ = fingerprint or self._embedder.fingerprint_

    def __call__(self, mol: Any, **ignored: Any) -> NDArray[np.float32]:
        """The vector of a SMILES or RDKit molecule, float32 [width].

        Raises:
            InvalidSmilesError: If it cannot be used.
        """
        return self._embedder.set_params(on_invalid="raise", n_jobs=None).transform([mol])[0]

    def batch_compute(self, mols: Sequence[Any], n_jobs: int | None = None, **ignored: Any) -> list[NDArray[np.float32] | None]:
        """The vectors of N molecules, float32 [width] each; None for a molecule that cannot be used. A warning says why the first cannot.

        Args:
            mols: SMILES or RDKit molecules.
            n_jobs: Number of processes.
            ignored: Further options for `datamol.parallelized`, which molfeat passes to every calculator.
        """
        vectors = self._embedder.set_params(on_invalid="nan", n_jobs=n_jobs).transform(mols)
        return [None if np.isnan(vector).any() else vector for vector in vectors]

    def __len__(self) -> int:
        return self._embedder.n_features_out_

    @property
    def columns(self) -> list[str]:
        """Names of the elements of a vector."""
        return list(self._embedder.get_feature_names_out())

    def __getstate__(self) -> dict[str, Any]:
        settings = self._embedder.get_params()
        return {name: settings[name] for name in _SETTINGS} | {"fingerprint": self._embedder.fingerprint_}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # the state is what the arguments were
