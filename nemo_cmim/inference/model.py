"""A trained model: embed, encode, decode.

Shape letters: N rows, B molecules in a batch, T decoder positions, K latents (S for a transformer encoder), D width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import ConfigError
from ..steps import Steps
from .batching import Progress
from .capabilities import EmbeddingSpec, model_name
from .device import dtype_of
from .inputs import TokenizedMolecules
from .optimizing import OptimizingModel
from .vectors import vectors

__all__ = ["CMIMModel"]


class CMIMModel(OptimizingModel):
    """A network with its tokenizer, in evaluation mode.

    Attributes:
        network: The `torch.nn.Module`.
        tokenizer: The tokenizer that it was trained with.
        config: All settings that it was trained with.
        card: Model card (Markdown), or None.
        density: Density of the aggregated posterior, see `nemo-cmim fit-prior`; None if it has not been fitted.
        property_table: Table of the observed properties that heads of the network predict; None without heads.
        device: Device of the network.
        name: Name or path that it was loaded by, or None.
        precision: "fp32", "bf16" or "fp16", see `load`.
    """

    @torch.inference_mode()
    def predict_properties(
        self,
        smiles: Any,
        *,
        on_invalid: str = "raise",
        batch_size: int | None = None,
        canonical: bool = True,
        standardise: Steps = (),
    ) -> dict[str, NDArray[np.float64]]:
        """Predicts the observed properties that the model was trained with, from the informative embedding or else the latents.

        They are properties of the structure, which RDKit computes exactly: the predictions show what a vector knows about a molecule. See
        `embed` for arguments.

        Returns:
            For each property, by RDKit's name and in its unit, float64 [N].

        Raises:
            InvalidSmilesError: If there are no molecules, or if one cannot be used and `on_invalid="raise"`.
            ConfigError: If the model was trained without observed properties.
        """
        weights, table = self.config.objective.properties, self.property_table
        if table is None or not table.values or not (weights.values_given_h or weights.values_given_z):
            raise ConfigError(
                f"predict_properties: {model_name(self.config)} was trained without observed properties. Use a model that was trained "
                "with objective.properties."
            )
        source, kind = ("h", "informative") if weights.values_given_h else ("z", "mean")  # a head whose values were trained
        inputs = {"on_invalid": on_invalid, "batch_size": batch_size, "canonical": canonical, "standardise": standardise}
        vectors = self.embed(smiles, kind, **inputs)  # type: ignore[arg-type]  # a dict of different types
        head = self.network.heads[source]
        scores = head(torch.from_numpy(vectors).to(self.device, dtype_of(self.precision)))[:, : len(table.values)]
        return dict(zip(table.values, table.from_scores(scores.float().cpu().numpy()).T))

    def _vectors(
        self,
        inputs: TokenizedMolecules,
        spec: EmbeddingSpec,
        batch_size: int | None,
        progress: Progress | None = None,
        sample: bool = False,
        seed: int | None = None,
    ) -> NDArray[np.float32]:
        of_molecule = vectors(
            self.network,
            self.tokenizer.vocabulary,
            inputs.tokens,
            spec,
            self._limits(batch_size),
            sample=sample,
            seed=seed,
            progress=progress,
        )
        return of_molecule[inputs.molecule_of_row]
