"""A trained model: embed, encode, decode.

Shape letters: N rows, B molecules in a batch, T decoder positions, K latents (S for a transformer encoder), D width.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..config import ModelConfig
from ..errors import ConfigError, InvalidShapeError
from ..models import CMIMNetwork, greedy_decode
from ..models.layers import select
from ..tokenizers import SmilesTokenizer
from ..tokenizers.collate import collate
from ..types import Posterior
from .batching import DECODED_MOLECULES, BatchLimits, batch_limits, length_sorted_batches, pooling_weights, token_budget_slices
from .capabilities import (
    EmbeddingSpec,
    check_positive,
    embedding_spec,
    model_name,
    require_bottleneck,
    require_decoder,
    require_prior,
)
from .fingerprint import embedding_fingerprint, weights_digest
from .inputs import EXPLAIN, TokenizedMolecules, invalid_reason, tokenize
from .model_file import ModelFile

__all__ = ["CMIMModel"]

Progress = Callable[[int, int], None]


class CMIMModel:
    """A network with its tokenizer, in evaluation mode.

    Attributes:
        network: The `torch.nn.Module`.
        tokenizer: The tokenizer that it was trained with.
        config: All settings that it was trained with.
        card: Model card (Markdown), or None.
        property_table: Table of the observed properties that heads of the network predict; None without heads.
        device: Device of the network.
    """

    def __init__(self, model_file: ModelFile, device: str | torch.device | None = None) -> None:
        self.config: ModelConfig = model_file.config
        self.card = model_file.card
        self.property_table = model_file.properties
        self.tokenizer = SmilesTokenizer(model_file.vocabulary)
        with torch.device("meta"):
            network = CMIMNetwork(model_file.config.network)
        weights = {name: weight.float() for name, weight in model_file.weights.items()}
        network.load_state_dict(weights, assign=True)
        self.device = _device(device)
        self.network = network.requires_grad_(False).eval().to(self.device)

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
        sample: bool = False,
        seed: int | None = None,
        first_index: int = 0,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """Computes vectors of molecules. A molecule's vector depends only on the molecule, not on its batch.

        Args:
            smiles: N SMILES or RDKit molecules: list, NumPy array, pandas or polars Series.
            kind: "informative": decoder states after the final norm, under teacher forcing on the molecule with z = posterior mean
                (Eq. 10), averaged over the T = tokens + 1 positions that predict its tokens and `<EOS>`; width D.
                "mean": the posterior mean; width K * D. Without bottleneck (`bart`) the mean over the encoder's S states; width D.
            layers: For "informative": the decoder layers, counted from 1, whose states are concatenated; width D each. None uses the
                last layer only, as in the paper. States of other layers have not passed the final norm.
            pooling: For "informative": "mean" over positions, or "last", the state that predicts `<EOS>`.
            on_invalid: "raise", or "nan" to return a row of NaN.
            batch_size: Maximum number of molecules in a batch; None: chosen for speed. It affects only speed and memory.
            canonical: Canonicalise each SMILES first, as the training data were, so that all SMILES of a molecule give the same vector.
            sample: Draw z from q(z|x), as in Eq. 10, instead of using its mean.
            seed: Seed for `sample`; None uses torch's global generator. Equal molecules get equal draws.
            first_index: Index of the first molecule in error messages, for callers that pass a long list in chunks.
            progress: Called with the number of molecules done and of all molecules, duplicates not counted.

        Returns:
            float32 [N, width]; row i is `smiles[i]`.

        Raises:
            InvalidSmilesError: If there are no molecules, or if one cannot be used and `on_invalid="raise"`.
            ConfigError: If `kind`, `pooling` or `on_invalid` is unknown, or if the model does not have the layers, the decoder or the
                posterior that is needed.
        """
        spec = embedding_spec(self.config, kind, layers, pooling)
        check_positive("batch_size", batch_size)
        network = self.config.network
        if sample and not network.is_stochastic:
            raise ConfigError(
                f"sample=True has no effect: the latent of {model_name(self.config)} is deterministic. Leave sample out."
            )
        inputs = tokenize(
            smiles,
            self.tokenizer,
            max_tokens=network.max_tokens,
            canonical=canonical,
            on_invalid=on_invalid,
            first_index=first_index,
            hint='. Pass on_invalid="nan" to keep a NaN row.',
        )
        return self._vectors(inputs, spec, self._limits(batch_size), progress, sample=sample, seed=seed)

    def embed_or_explain(
        self,
        smiles: Sequence[Any],
        kind: str = "informative",
        *,
        layers: Sequence[int] | None = None,
        batch_size: int | None = None,
        progress: Progress | None = None,
    ) -> tuple[NDArray[np.float32], dict[int, str]]:
        """`embed` for callers that report invalid molecules themselves.

        Returns:
            Vectors, float32 [N, width], NaN for an invalid molecule; and why a molecule is invalid, by its index.
        """
        spec = embedding_spec(self.config, kind, layers, "mean")
        check_positive("batch_size", batch_size)
        limit = self.config.network.max_tokens
        inputs = tokenize(smiles, self.tokenizer, max_tokens=limit, canonical=True, on_invalid=EXPLAIN)
        return self._vectors(inputs, spec, self._limits(batch_size), progress), inputs.invalid

    def _vectors(
        self,
        inputs: TokenizedMolecules,
        spec: EmbeddingSpec,
        limits: BatchLimits,
        progress: Progress | None = None,
        *,
        sample: bool = False,
        seed: int | None = None,
    ) -> NDArray[np.float32]:
        vectors = np.empty((len(inputs.tokens) + 1, spec.width), dtype=np.float32)
        vectors[-1] = np.nan  # the row of invalid molecules, whose index is -1
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        done = 0
        for rows, posterior in self._encode(inputs.tokens, limits):
            if sample:
                noise = torch.randn(posterior.mean_BKD.shape, generator=generator)
                posterior = posterior._replace(mean_BKD=posterior.sample(noise.to(self.device)))
            if spec.kind == "mean":
                vectors[rows] = posterior.pooled().cpu()
            else:
                for part, pooled in self._pooled_states([inputs.tokens[r] for r in rows], posterior, spec, limits):
                    vectors[rows[part]] = pooled.float().cpu()
                    if progress:
                        progress(done + part.stop, len(inputs.tokens))
            done += len(rows)
            if progress:
                progress(done, len(inputs.tokens))
        return vectors[inputs.molecule_of_row]

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
        self, smiles: Any, *, on_invalid: str = "raise", batch_size: int | None = None, canonical: bool = True
    ) -> dict[str, NDArray[np.float64]]:
        """Predicts the observed properties that the model was trained with, from the informative embedding or else the latents.

        They are properties of the structure, which RDKit computes exactly: the predictions show what a vector knows about a molecule.

        Args:
            smiles: N SMILES or RDKit molecules; see `embed` for all arguments.
            on_invalid: "raise", or "nan" to return NaN.
            batch_size: Maximum number of molecules in a batch; None: chosen for speed.
            canonical: Canonicalise each SMILES first.

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
        vectors = self.embed(smiles, kind, on_invalid=on_invalid, batch_size=batch_size, canonical=canonical)
        head = self.network.heads[source]
        scores = head(torch.from_numpy(vectors).to(self.device))[:, : len(table.values)]
        return dict(zip(table.values, table.from_scores(scores.cpu().numpy()).T))

    def invalid_reason(self, molecule: Any) -> str | None:
        """Why `embed` cannot use a molecule (not parsable, too long, a token outside the vocabulary); None if it can."""
        return invalid_reason(molecule, self.tokenizer, self.config.network.max_tokens)

    def encode(self, smiles: Any, *, canonical: bool = True, batch_size: int | None = None) -> Posterior:
        """Computes q(z|x) of N molecules, fields [N, K, D] on the CPU; see `embed` for arguments.

        Raises:
            InvalidSmilesError: If there are no molecules, or if one cannot be used.
            ConfigError: If the model has no bottleneck, so that the number of latents differs between molecules.
        """
        require_bottleneck(self.config, "encode", 'embed(smiles, kind="mean") gives one vector for each molecule')
        check_positive("batch_size", batch_size)
        network = self.config.network
        inputs = tokenize(smiles, self.tokenizer, max_tokens=network.max_tokens, canonical=canonical, on_invalid="raise")
        mean, variance = torch.empty(2, len(inputs.tokens), network.latents, network.hidden_size)
        for rows, posterior in self._encode(inputs.tokens, self._limits(batch_size)):
            mean[rows], variance[rows] = posterior.mean_BKD.cpu(), posterior.variance_BKD.cpu()
        order = torch.from_numpy(inputs.molecule_of_row)
        return Posterior(mean[order], variance[order])

    def decode(self, z: Any, *, max_tokens: int | None = None, batch_size: int = DECODED_MOLECULES) -> list[str]:
        """Decodes latents to SMILES greedily; only chemical tokens are written.

        Args:
            z: Latents, tensor or array [N, K, D] or [N, K * D].
            max_tokens: Maximum number of tokens of a SMILES; None: limited only by the positions of the model.
            batch_size: Number of molecules that are decoded together.

        Returns:
            N strings. They may be invalid SMILES; check them with `molecules.is_valid`. A warning reports how many were truncated
            at `max_tokens`.

        Raises:
            InvalidShapeError: If `z` has a different shape.
            ConfigError: If the model has no decoder or no bottleneck.
        """
        require_decoder(self.config, "decode")
        require_bottleneck(self.config, "decode", "call reconstruct with the SMILES")
        network = self.config.network
        check_positive("batch_size", batch_size)
        latents = torch.as_tensor(z, dtype=torch.float32, device=self.device)
        shape = (network.latents, network.hidden_size)
        if tuple(latents.shape[1:]) not in (shape, (shape[0] * shape[1],)):
            raise InvalidShapeError(f"Latents must have the shape [N, {shape[0]}, {shape[1]}], found {list(latents.shape)}.")
        latents = latents.reshape(-1, *shape)
        return self._decode(((batch, None) for batch in latents.split(batch_size) if len(batch)), max_tokens)

    def reconstruct(self, smiles: Any, *, canonical: bool = True, max_tokens: int | None = None) -> list[str]:
        """Decodes the posterior mean of each molecule; see `embed` and `decode` for arguments and errors."""
        require_decoder(self.config, "reconstruct")
        limit = self.config.network.max_tokens
        inputs = tokenize(smiles, self.tokenizer, max_tokens=limit, canonical=canonical, on_invalid="raise")
        order: list[int] = []

        def latents() -> Iterator[tuple[Tensor, Tensor | None]]:
            for rows, posterior in self._encode(inputs.tokens, self._limits(DECODED_MOLECULES)):
                order.extend(rows.tolist())
                yield posterior.mean_BKD, posterior.is_latent_BK

        texts = self._decode(latents(), max_tokens)
        of_molecule = dict(zip(order, texts))
        return [of_molecule[molecule] for molecule in inputs.molecule_of_row.tolist()]

    def sample(
        self, n: int = 1, *, smiles: Any = None, scaled_radius: float = 1.0, seed: int | None = None, max_tokens: int | None = None
    ) -> list[str] | list[list[str]]:
        """New molecules: latents drawn at random, decoded greedily.

        Args:
            n: Number of molecules; around each molecule if `smiles` is given.
            smiles: Molecules to sample around, see `embed`; None samples the prior, z ~ N(0, I).
            scaled_radius: How far from each molecule, in posterior standard deviations: z = mean + scaled_radius * std * noise. 0 gives
                reconstructions, 1 draws from q(z|x).
            seed: Seed of the noise; None: different in each call.
            max_tokens: See `decode`.

        Returns:
            n strings; with `smiles` a list of n for each row. They may be invalid SMILES; check them with `molecules.is_valid`.

        Raises:
            InvalidSmilesError: If a molecule cannot be used.
            ConfigError: If `n` is below 1, if the radius is negative, or if the model has no decoder or no variance of q(z|x).
        """
        require_decoder(self.config, "sample")
        require_prior(self.config, "sample", "call reconstruct")
        if n < 1 or scaled_radius < 0:
            raise ConfigError(f"n must be at least 1 and scaled_radius at least 0, found n={n} and scaled_radius={scaled_radius}.")
        generator = torch.Generator()
        generator.manual_seed(generator.seed() if seed is None else seed)
        shape = (n, self.config.network.latents, self.config.network.hidden_size)
        if smiles is None:
            if scaled_radius != 1:
                raise ConfigError("scaled_radius has no effect without smiles: it is the distance from them. Pass smiles=[...].")
            return self.decode(torch.randn(shape, generator=generator), max_tokens=max_tokens)
        posterior = self.encode(smiles)
        mean_N1KD, variance_N1KD = posterior.mean_BKD.unsqueeze(1), posterior.variance_BKD.unsqueeze(1)
        noise_NnKD = torch.randn(len(mean_N1KD), *shape, generator=generator)
        z_NnKD = mean_N1KD + scaled_radius * variance_N1KD.sqrt() * noise_NnKD
        texts = self.decode(z_NnKD.flatten(0, 1), max_tokens=max_tokens)
        return [texts[start : start + n] for start in range(0, len(texts), n)]

    def interpolate(self, a: str, b: str, steps: int = 10, *, max_tokens: int | None = None) -> list[str]:
        """Decodes `steps` latents on the straight line between the posterior means of two molecules, both ends included.

        Raises:
            InvalidSmilesError: If a molecule cannot be used.
            ConfigError: If `steps` is below 2, or if the model has no bottleneck or no decoder.
        """
        require_decoder(self.config, "interpolate")
        require_bottleneck(self.config, "interpolate", "use a model that has one")
        if steps < 2:
            raise ConfigError(f"steps must be at least 2 (the two ends), found {steps}.")
        start, end = self.encode([a, b]).mean_BKD
        fraction = torch.linspace(0, 1, steps)[:, None, None]
        return self.decode(torch.lerp(start, end, fraction), max_tokens=max_tokens)

    @functools.cached_property
    def _weights_digest(self) -> str:
        return weights_digest(self.network.state_dict())

    def _limits(self, batch_size: int | None) -> BatchLimits:
        return batch_limits(self.config.network, batch_size, on_gpu=self.device.type == "cuda")

    @torch.inference_mode()
    def _encode(self, tokens: Sequence[Sequence[int]], limits: BatchLimits) -> Iterator[tuple[NDArray[np.int64], Posterior]]:
        """Posteriors in batches sorted by length, with the indices of their molecules."""
        for rows in length_sorted_batches([len(row) for row in tokens], limits.encoder_molecules):
            batch = collate([tokens[r] for r in rows], self.tokenizer.vocabulary).to(self.device)
            yield rows, self.network.encode(batch.encoder_BS, batch.is_token_BS)

    @torch.inference_mode()
    def _pooled_states(
        self, tokens: Sequence[Sequence[int]], posterior: Posterior, spec: EmbeddingSpec, limits: BatchLimits
    ) -> Iterator[tuple[slice, Tensor]]:
        """Pooled decoder states [b, width] of slices of a batch whose molecules are sorted by length."""
        memory = self.network.remember(posterior.mean_BKD, posterior.is_latent_BK)
        lengths = [len(row) for row in tokens]
        for part in token_budget_slices(lengths, limits):
            batch = collate(tokens[part], self.tokenizer.vocabulary).to(self.device)
            weight_B1T = torch.from_numpy(pooling_weights(lengths[part], spec.pooling)).to(self.device)
            pooled = {}
            for number, hidden_BTD in enumerate(self.network.layer_states(batch.decoder_BT, select(memory, part)), 1):
                if number in spec.layers:
                    pooled[number] = (weight_B1T.to(hidden_BTD.dtype) @ hidden_BTD).squeeze(1)
            yield part, torch.cat([pooled[number] for number in spec.layers], 1)

    def _decode(self, latents: Iterable[tuple[Tensor, Tensor | None]], max_tokens: int | None) -> list[str]:
        """Greedy decoding of batches of latents, each with its mask of real latents."""
        check_positive("max_tokens", max_tokens)
        vocabulary = self.tokenizer.vocabulary
        texts: list[str] = []
        truncated = 0
        for z_BKD, is_latent_BK in latents:
            ids_BT = greedy_decode(
                self.network,
                z_BKD,
                is_latent_BK,
                bos_id=vocabulary.bos_id,
                eos_id=vocabulary.eos_id,
                is_allowed_V=torch.tensor(vocabulary.is_chemical),
                max_tokens=max_tokens,
            )
            texts += [self.tokenizer.decode(row) for row in ids_BT.tolist()]
            truncated += int((ids_BT != vocabulary.eos_id).all(1).sum())
        if truncated:
            limit = max_tokens or self.config.network.max_tokens
            warnings.warn(
                f"{truncated} of {len(texts)} SMILES had not ended after {limit} tokens and were truncated.", stacklevel=3
            )
        return texts


def _device(device: str | torch.device | None) -> torch.device:
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise ConfigError(f"The device {device!r} does not exist ({error}). Pass 'cpu', or 'cuda' if there is a GPU.") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"The device {device!r} is not available: torch finds no GPU. Pass device='cpu'.")
    return chosen
