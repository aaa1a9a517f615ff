"""What all engines share: from molecules to vectors. Imports no torch.

Shape letters: N rows, T decoder positions, K latents (S for a transformer encoder), D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arguments import check_integer, check_seed
from ..config import ModelConfig
from ..errors import ConfigError
from ..steps import Steps
from ..tokenizers import SmilesTokenizer
from .batching import BatchLimits, Progress, batch_limits
from .capabilities import EmbeddingSpec, embedding_spec, model_name
from .fingerprint import embedding_fingerprint
from .inputs import EXPLAIN, InputOptions, TokenizedMolecules, invalid_reason, tokenize

__all__ = ["EmbeddingModel", "Explained"]


class Explained(NamedTuple):
    """Embeddings of N molecules.

    Attributes:
        vectors: float32 [N, width], NaN for an invalid molecule.
        invalid: Why a molecule is invalid, by its index.
        changed: Canonical SMILES of the molecules that `standardise` changed, by their index.
    """

    vectors: NDArray[np.float32]
    invalid: dict[int, str]
    changed: dict[int, str]


class EmbeddingModel:
    """A model that embeds molecules: `CMIMModel` with PyTorch, `engines.OnnxModel` with ONNX Runtime. See `CMIMModel` for attributes."""

    name: str | None = None
    config: ModelConfig
    tokenizer: SmilesTokenizer
    precision: str
    device: Any
    engine = "torch"

    def embed(
        self,
        smiles: Any,
        kind: str = "informative",
        *,
        layers: Sequence[int] | None = None,
        pooling: str = "mean",
        on_invalid: str = "raise",
        batch_size: int | None = None,
        canonical: bool = True,
        standardise: Steps = (),
        sample: bool = False,
        seed: int | None = None,
        first_index: int = 0,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """Computes vectors of molecules. A molecule's vector depends only on the molecule, not on its batch.

        Args:
            smiles: N SMILES or RDKit molecules: list, NumPy array, pandas or polars Series, pyarrow array, or a table of one column.
            kind: "informative": decoder states after the final norm, under teacher forcing on the molecule with z = posterior mean
                (Eq. 10), averaged over the T = tokens + 1 positions that predict its tokens and `<EOS>`; width D.
                "mean": the posterior mean; width K * D. Without bottleneck (`bart`) the mean over the encoder's S states; width D.
            layers: For "informative": the decoder layers, counted from 1, whose states are concatenated; width D each. None uses the
                last layer only, as in the paper. States of other layers have not passed the final norm.
            pooling: For "informative": "mean" over positions, or "last", the state that predicts `<EOS>`.
            on_invalid: "raise", or "nan" to return a row of NaN.
            batch_size: Maximum number of molecules in a batch; None: chosen for speed. It affects only speed and memory.
            canonical: Canonicalise each SMILES first, as the training data were, so that all SMILES of a molecule give the same vector.
            standardise: Steps that change each molecule first, from "extras", "atom-maps", "desalt" and "neutralise", see
                `molecules.standard_smiles`; or True for "desalt" and "neutralise". `nemo_cmim.standardise` shows what they change. Like
                `on_invalid`, they are not part of the embedding's fingerprint: a molecule that is given in its standard form has the same
                vector without them.
            sample: Draw z from q(z|x), as in Eq. 10, instead of using its mean.
            seed: Seed for `sample`; None uses torch's global generator. Equal molecules get equal draws.
            first_index: Index of the first molecule in error messages, for callers that pass a long list in chunks.
            progress: Called with the number of molecules done and of all molecules, duplicates not counted.

        Returns:
            float32 [N, width]; row i is `smiles[i]`.

        Raises:
            InvalidSmilesError: If there are no molecules, or if one cannot be used and `on_invalid="raise"`.
            ConfigError: If `kind`, `pooling`, `on_invalid` or a step of `standardise` is unknown, if a number is out of range, or if the
                model does not have the layers, the decoder or the posterior that is needed.
        """
        spec = embedding_spec(self.config, kind, layers, pooling)
        check_integer("batch_size", batch_size, optional=True)
        check_seed(seed)
        network = self.config.network
        if sample and not network.is_stochastic:
            raise ConfigError(
                f"sample=True has no effect: the latent of {model_name(self.config)} is deterministic. Leave sample out."
            )
        inputs = self._tokenize(smiles, InputOptions(on_invalid, canonical, standardise, first_index))
        return self._vectors(inputs, spec, batch_size, progress, sample, seed)

    def embed_or_explain(
        self,
        smiles: Sequence[Any],
        kind: str = "informative",
        *,
        layers: Sequence[int] | None = None,
        batch_size: int | None = None,
        standardise: Steps = (),
        progress: Progress | None = None,
    ) -> Explained:
        """`embed` for callers that report invalid and changed molecules themselves."""
        spec = embedding_spec(self.config, kind, layers, "mean")
        check_integer("batch_size", batch_size, optional=True)
        inputs = self._tokenize(smiles, InputOptions(EXPLAIN, standardise=standardise))
        return Explained(self._vectors(inputs, spec, batch_size, progress), inputs.invalid, inputs.changed)

    def embed_canonical(
        self,
        smiles: Sequence[str],
        kind: str = "informative",
        *,
        layers: Sequence[int] | None = None,
        batch_size: int | None = None,
    ) -> NDArray[np.float32]:
        """`embed` for N results of `molecules.standard_smiles`, which are not parsed again. Other text gets the vector of its tokens."""
        spec = embedding_spec(self.config, kind, layers, "mean")
        check_integer("batch_size", batch_size, optional=True)
        return self._vectors(self._tokenize(smiles, InputOptions(is_canonical=True)), spec, batch_size)

    def width(self, kind: str = "informative", layers: Sequence[int] | None = None, pooling: str = "mean") -> int:
        """Length of the vector that `embed` returns for a molecule; see `embed` for arguments and errors."""
        return embedding_spec(self.config, kind, layers, pooling).width

    def fingerprint(
        self, kind: str = "informative", layers: Sequence[int] | None = None, pooling: str = "mean", canonical: bool = True
    ) -> str:
        """SHA-256, in hex, of everything that the vectors of `embed` with these arguments depend on. Equal fingerprints mean equal vectors.

        `inference/fingerprint.py` lists what it covers. The weights are hashed at the first call and must not be changed in place
        after it. See `embed` for arguments and errors.
        """
        spec = embedding_spec(self.config, kind, layers, pooling)
        vocabulary = self.tokenizer.vocabulary.fingerprint
        network = self.config.network
        return embedding_fingerprint(self._weights_digest, network, vocabulary, spec, canonical=canonical, precision=self.precision)

    def invalid_reason(self, molecule: Any, standardise: Steps = (), *, is_canonical: bool = False) -> str | None:
        """Why `embed` cannot use a molecule (not parsable, too long, a token outside the vocabulary); None if it can.

        With `is_canonical`, the molecule is a result of `molecules.standard_smiles`, which is not parsed again.
        """
        return invalid_reason(molecule, self.tokenizer, self.config.network.max_tokens, standardise, is_canonical=is_canonical)

    def use_device_of(self, number: int) -> None:
        """Moves the model to the device of one of several processes, counted from 0. An engine that only uses the CPU stays there."""

    @property
    def _weights_digest(self) -> str:
        """See `fingerprint.weights_digest`."""
        raise NotImplementedError

    def _tokenize(self, smiles: Any, options: InputOptions) -> TokenizedMolecules:
        return tokenize(smiles, self.tokenizer, self.config.network.max_tokens, options)

    def _limits(self, batch_size: int | None) -> BatchLimits:
        return batch_limits(self.config.network, batch_size, on_gpu=str(self.device).startswith("cuda"))

    def _vectors(
        self,
        inputs: TokenizedMolecules,
        spec: EmbeddingSpec,
        batch_size: int | None,
        progress: Progress | None = None,
        sample: bool = False,
        seed: int | None = None,
    ) -> NDArray[np.float32]:
        raise NotImplementedError
