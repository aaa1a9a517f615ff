"""A trained model: embed, encode, decode.

Shape letters: N rows, B molecules in a batch, T decoder positions, K latents (S for a transformer encoder), D width.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..config import ModelConfig
from ..errors import ConfigError
from ..models import CMIMNetwork
from ..tokenizers import SmilesTokenizer
from ..types import Posterior
from .batching import DECODED_MOLECULES, BatchLimits, batch_limits
from .capabilities import (
    EmbeddingSpec,
    check_integer,
    check_radius,
    check_seed,
    description,
    embedding_spec,
    model_name,
    require_bottleneck,
    require_decoder,
    require_prior,
)
from .decoding import as_latents, decode_batches
from .device import device_of
from .fingerprint import embedding_fingerprint, weights_digest
from .inputs import EXPLAIN, InputOptions, TokenizedMolecules, invalid_reason, tokenize
from .model_file import ModelFile
from .vectors import Progress, posteriors, vectors

__all__ = ["CMIMModel"]


class CMIMModel:
    """A network with its tokenizer, in evaluation mode.

    Attributes:
        network: The `torch.nn.Module`.
        tokenizer: The tokenizer that it was trained with.
        config: All settings that it was trained with.
        card: Model card (Markdown), or None.
        property_table: Table of the observed properties that heads of the network predict; None without heads.
        device: Device of the network.
        name: Name or path that it was loaded by, or None.
    """

    name: str | None = None

    def __init__(self, model_file: ModelFile, device: str | torch.device | None = None, name: str | None = None) -> None:
        self.name = name
        self.config: ModelConfig = model_file.config
        self.card = model_file.card
        self.property_table = model_file.properties
        self.tokenizer = SmilesTokenizer(model_file.vocabulary)
        with torch.device("meta"):
            network = CMIMNetwork(model_file.config.network)
        weights = {name: weight.float() for name, weight in model_file.weights.items()}
        network.load_state_dict(weights, assign=True)
        self.device = device_of(device)
        self.network = network.requires_grad_(False).eval().to(self.device)

    def __repr__(self) -> str:
        return description(self.config, self.name, sum(p.numel() for p in self.network.parameters()), self.device)

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
        standardise: str | Sequence[str] = (),
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
            standardise: Steps that change each molecule first, from "extras", "atom-maps", "desalt" and "neutralise"; see
                `molecules.standard_smiles`. Like `on_invalid`, they are not part of the embedding's fingerprint: a molecule that is
                given in its standard form has the same vector without them.
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
        standardise: str | Sequence[str] = (),
        progress: Progress | None = None,
    ) -> tuple[NDArray[np.float32], dict[int, str]]:
        """`embed` for callers that report invalid molecules themselves.

        Returns:
            Vectors, float32 [N, width], NaN for an invalid molecule; and why a molecule is invalid, by its index.
        """
        spec = embedding_spec(self.config, kind, layers, "mean")
        check_integer("batch_size", batch_size, optional=True)
        inputs = self._tokenize(smiles, InputOptions(EXPLAIN, standardise=standardise))
        return self._vectors(inputs, spec, batch_size, progress), inputs.invalid

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
        return embedding_fingerprint(self._weights_digest, self.config.network, vocabulary, spec, canonical=canonical)

    @torch.inference_mode()
    def predict_properties(
        self,
        smiles: Any,
        *,
        on_invalid: str = "raise",
        batch_size: int | None = None,
        canonical: bool = True,
        standardise: str | Sequence[str] = (),
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
        scores = head(torch.from_numpy(vectors).to(self.device))[:, : len(table.values)]
        return dict(zip(table.values, table.from_scores(scores.cpu().numpy()).T))

    def invalid_reason(self, molecule: Any, standardise: str | Sequence[str] = ()) -> str | None:
        """Why `embed` cannot use a molecule (not parsable, too long, a token outside the vocabulary); None if it can."""
        return invalid_reason(molecule, self.tokenizer, self.config.network.max_tokens, standardise)

    def encode(
        self,
        smiles: Any,
        *,
        on_invalid: str = "raise",
        canonical: bool = True,
        standardise: str | Sequence[str] = (),
        batch_size: int | None = None,
    ) -> Posterior:
        """Computes q(z|x) of N molecules, fields [N, K, D] on the CPU; see `embed` for arguments. Rows of invalid molecules are NaN.

        Raises:
            InvalidSmilesError: If there are no molecules, or if one cannot be used and `on_invalid="raise"`.
            ConfigError: If the model has no bottleneck, so that the number of latents differs between molecules.
        """
        return self._posterior(smiles, InputOptions(on_invalid, canonical, standardise), batch_size)

    def decode(self, z: Any, *, max_tokens: int | None = None, batch_size: int = DECODED_MOLECULES) -> list[str]:
        """Decodes latents to SMILES greedily; only chemical tokens are written.

        Args:
            z: Latents, tensor, array or DataFrame, [N, K, D] or [N, K * D].
            max_tokens: Maximum number of tokens of a SMILES; None: limited only by the positions of the model.
            batch_size: Number of molecules that are decoded together.

        Returns:
            N strings. They may be invalid SMILES; check them with `molecules.is_valid`. A warning reports how many were truncated
            at `max_tokens`.

        Raises:
            InvalidShapeError: If `z` has a different shape.
            InvalidLatentError: If `z` contains NaN or infinity, or is an informative embedding of the last layer, which with K = 1 has the
                shape of latents. Embeddings of other layers cannot be recognised.
            ConfigError: If the model has no decoder or no bottleneck.
        """
        require_decoder(self.config, "decode")
        require_bottleneck(self.config, "decode", "call reconstruct with the SMILES")
        check_integer("batch_size", batch_size)
        latents = as_latents(z, self.network, self.device)
        batches = ((batch, None) for batch in latents.split(batch_size) if len(batch))
        return decode_batches(self.network, self.tokenizer, batches, max_tokens)

    def reconstruct(
        self,
        smiles: Any,
        *,
        on_invalid: str = "raise",
        canonical: bool = True,
        standardise: str | Sequence[str] = (),
        max_tokens: int | None = None,
    ) -> list[Any]:
        """Decodes the posterior mean of each molecule, None for an invalid one; see `embed` and `decode` for arguments and errors."""
        require_decoder(self.config, "reconstruct")
        inputs = self._tokenize(smiles, InputOptions(on_invalid, canonical, standardise, placeholder="None"))
        order: list[int] = []

        def latents() -> Iterator[tuple[Tensor, Tensor | None]]:
            for rows, posterior in self._encode(inputs.tokens, self._limits(DECODED_MOLECULES)):
                order.extend(rows.tolist())
                yield posterior.mean_BKD, posterior.is_latent_BK

        texts = decode_batches(self.network, self.tokenizer, latents(), max_tokens)
        of_molecule = dict(zip(order, texts))
        return [of_molecule.get(molecule) for molecule in inputs.molecule_of_row.tolist()]  # -1 is an invalid one

    def sample(
        self,
        n: int = 1,
        *,
        smiles: Any = None,
        scaled_radius: float = 1.0,
        seed: int | None = None,
        max_tokens: int | None = None,
        on_invalid: str = "raise",
        standardise: str | Sequence[str] = (),
    ) -> list[Any]:
        """New molecules: latents drawn at random, decoded greedily.

        Args:
            n: Number of molecules; around each molecule if `smiles` is given.
            smiles: Molecules to sample around, see `embed`; None samples the prior, z ~ N(0, I).
            scaled_radius: How far from each molecule, in posterior standard deviations: z = mean + scaled_radius * std * noise. 0 gives
                reconstructions, 1 draws from q(z|x).
            seed: Seed of the noise, at least 0; None: different in each call.
            max_tokens: See `decode`.
            on_invalid: "raise", or "nan" to return None in the place of the list of an invalid molecule.
            standardise: See `embed`.

        Returns:
            n strings; with `smiles` a list of n for each row. They may be invalid SMILES; check them with `molecules.is_valid`.

        Raises:
            InvalidSmilesError: If a molecule cannot be used and `on_invalid="raise"`.
            ConfigError: If `n`, the radius or the seed is out of range, if an option of `smiles` is given without them, or if the model has
                no decoder or no variance of q(z|x).
        """
        require_decoder(self.config, "sample")
        require_prior(self.config, "sample", "call reconstruct")
        check_integer("n", n)
        check_radius(scaled_radius)
        check_seed(seed)
        generator = torch.Generator()
        generator.manual_seed(generator.seed() if seed is None else int(seed))
        shape = (int(n), self.config.network.latents, self.config.network.hidden_size)
        if smiles is None:
            if scaled_radius != 1:
                raise ConfigError("scaled_radius has no effect without smiles: it is the distance from them. Pass smiles=[...].")
            if on_invalid != "raise" or len(standardise):
                raise ConfigError("on_invalid and standardise have no effect without smiles. Pass smiles=[...], or leave them out.")
            return self.decode(torch.randn(shape, generator=generator), max_tokens=max_tokens)
        posterior = self._posterior(smiles, InputOptions(on_invalid, True, standardise, placeholder="None"))
        mean_N1KD, variance_N1KD = posterior.mean_BKD.unsqueeze(1), posterior.variance_BKD.unsqueeze(1)
        noise_NnKD = torch.randn(len(mean_N1KD), *shape, generator=generator)
        z_NnKD = mean_N1KD + scaled_radius * variance_N1KD.sqrt() * noise_NnKD
        is_valid_N = posterior.mean_BKD.isfinite().all((1, 2))
        texts = iter(self.decode(z_NnKD[is_valid_N].flatten(0, 1), max_tokens=max_tokens))
        return [[next(texts) for _ in range(n)] if is_valid else None for is_valid in is_valid_N.tolist()]

    def interpolate(
        self,
        a: str,
        b: str,
        steps: int = 10,
        *,
        max_tokens: int | None = None,
        on_invalid: str = "raise",
        standardise: str | Sequence[str] = (),
    ) -> list[Any]:
        """Decodes `steps` latents on the straight line between the posterior means of two molecules, both ends included.

        With `on_invalid="nan"`, all are None if an end is invalid. See `embed` for `standardise`.

        Raises:
            InvalidSmilesError: If a molecule cannot be used and `on_invalid="raise"`.
            ConfigError: If `steps` is below 2, or if the model has no bottleneck or no decoder.
        """
        require_decoder(self.config, "interpolate")
        require_bottleneck(self.config, "interpolate", "use a model that has one")
        check_integer("steps", steps, 2)
        start, end = self._posterior([a, b], InputOptions(on_invalid, True, standardise, placeholder="None")).mean_BKD
        if not (start + end).isfinite().all():
            return [None] * int(steps)
        fraction = torch.linspace(0, 1, int(steps))[:, None, None]
        return self.decode(torch.lerp(start, end, fraction), max_tokens=max_tokens)

    def _tokenize(self, smiles: Any, options: InputOptions) -> TokenizedMolecules:
        return tokenize(smiles, self.tokenizer, self.config.network.max_tokens, options)

    def _posterior(self, smiles: Any, options: InputOptions, batch_size: int | None = None) -> Posterior:
        require_bottleneck(self.config, "encode", 'embed(smiles, kind="mean") gives one vector for each molecule')
        check_integer("batch_size", batch_size, optional=True)
        network = self.config.network
        inputs = self._tokenize(smiles, options)
        mean, variance = torch.full((2, len(inputs.tokens) + 1, network.latents, network.hidden_size), torch.nan)
        for rows, posterior in self._encode(inputs.tokens, self._limits(batch_size)):
            mean[rows], variance[rows] = posterior.mean_BKD.cpu(), posterior.variance_BKD.cpu()
        order = torch.from_numpy(inputs.molecule_of_row)  # an invalid row is -1, the last one, which is NaN
        return Posterior(mean[order], variance[order])

    @functools.cached_property
    def _weights_digest(self) -> str:
        return weights_digest(self.network.state_dict())

    def _limits(self, batch_size: int | None) -> BatchLimits:
        return batch_limits(self.config.network, batch_size, on_gpu=self.device.type == "cuda")

    def _encode(self, tokens: Sequence[Sequence[int]], limits: BatchLimits) -> Iterator[tuple[NDArray[np.int64], Posterior]]:
        return posteriors(self.network, self.tokenizer.vocabulary, tokens, limits)

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
