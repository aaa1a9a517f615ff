"""A trained model: embed, encode, decode.

Shape letters: N rows, B molecules in a batch, T decoder positions, K latents (S for a transformer encoder), D width.
"""

from __future__ import annotations

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
from .checkpoint import Checkpoint
from .inputs import invalid_reason, tokenise

__all__ = ["CMIMModel"]

KINDS = ("informative", "mean")
POOLINGS = ("mean", "last")
_ENCODER_MOLECULES = 512  # in a batch of the Perceiver: its latents are few, so batches must be large
_TOKEN_ENCODER_MOLECULES = 64  # in a batch of an encoder that works on all tokens
_DECODER_TOKENS = 2048  # in a batch of the decoder: more gain nothing, fewer make its matrix products slower
_DECODED_MOLECULES = 256  # decoded together
_FREED_BYTES = 32_000_000  # glibc that has freed a block of this size keeps smaller ones, and does not fetch their pages anew
_GPU_FACTOR = 64  # a GPU has no such cache and wants more at a time (not run on a GPU yet)

Progress = Callable[[int, int], None]


class CMIMModel:
    """A network with its tokenizer, in evaluation mode.

    Attributes:
        network: The plain `torch.nn.Module`.
        tokenizer: Its tokenizer.
        config: All settings that it was trained with.
        card: Model card (Markdown), or None.
        device: Where the network is.
    """

    def __init__(self, checkpoint: Checkpoint, device: str | torch.device | None = None) -> None:
        self.config: ModelConfig = checkpoint.config
        self.card = checkpoint.card
        self.tokenizer = SmilesTokenizer(checkpoint.vocabulary)
        with torch.device("meta"):
            network = CMIMNetwork(checkpoint.config.network)
        weights = {name: weight.float() for name, weight in checkpoint.weights.items()}
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
        """Vectors of molecules. A molecule's vector depends on nothing but the molecule.

        Args:
            smiles: N SMILES or RDKit molecules: list, NumPy array, pandas or polars Series.
            kind: "informative": decoder states after the final norm, under teacher forcing on the molecule with z = posterior mean
                (Eq. 10), averaged over the T = tokens + 1 positions that predict its tokens and `<EOS>`; width D.
                "mean": the posterior mean; width K * D. Without bottleneck (`bart`) the mean over the encoder's S states; width D.
            layers: Of "informative": the decoder layers, counted from 1, whose states are put side by side; width D each. None is the
                paper's choice, the last alone. States behind other layers have not passed the final norm.
            pooling: Of "informative": "mean" over positions, or "last", the state that predicts `<EOS>`.
            on_invalid: "raise", or "nan" to keep a NaN row.
            batch_size: Most molecules in a batch; None chooses. It changes nothing but speed and memory.
            canonical: Canonicalise first, as the training data were, so that spelling does not matter.
            sample: Draw z from q(z|x) as Eq. 10 has it, in place of its mean.
            seed: Of `sample`. Equal molecules get equal draws.
            first_index: What the first molecule is called in errors, for callers that pass a long list in parts.
            progress: Called with the molecules done and all molecules.

        Returns:
            float32 [N, width]; row i is `smiles[i]`.

        Raises:
            InvalidSmilesError: No molecules, or one that cannot be used and `on_invalid="raise"`.
            ConfigError: An unknown `kind`, `pooling` or `on_invalid`, a layer that there is not, or a part that this model has not.
        """
        chosen = self._chosen_layers(kind, layers, pooling)
        _check_positive("batch_size", batch_size)
        network = self.config.network
        if sample and not network.is_stochastic:
            raise ConfigError(f"sample=True has no effect: {self._named} gives a point, not a distribution. Leave it out.")
        inputs = tokenise(
            smiles,
            self.tokenizer,
            max_tokens=network.max_tokens,
            canonical=canonical,
            on_invalid=on_invalid,
            first_index=first_index,
            hint='. Pass on_invalid="nan" to keep a NaN row.',
        )
        vectors = np.empty((len(inputs.tokens) + 1, self._width(kind, chosen)), dtype=np.float32)
        vectors[-1] = np.nan  # what invalid rows, numbered -1, get
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        done = 0
        for rows, posterior in self._encode(inputs.tokens, batch_size):
            if sample:
                noise = torch.randn(posterior.mean_BKD.shape, generator=generator)
                posterior = posterior._replace(mean_BKD=posterior.sample(noise.to(self.device)))
            if kind == "mean":
                vectors[rows] = posterior.pooled().cpu()
            else:
                tokens = [inputs.tokens[r] for r in rows]
                for part, pooled in self._decode_states(tokens, posterior, batch_size, chosen, pooling):
                    vectors[rows[part]] = pooled.float().cpu()
                    if progress:
                        progress(done + part.stop, len(inputs.tokens))
            done += len(rows)
            if progress:
                progress(done, len(inputs.tokens))
        return vectors[inputs.molecule_of_row]

    def width(self, kind: str = "informative", layers: Sequence[int] | None = None, pooling: str = "mean") -> int:
        """How many numbers `embed` gives for a molecule; arguments and errors as there."""
        return self._width(kind, self._chosen_layers(kind, layers, pooling))

    def _width(self, kind: str, layers: tuple[int, ...]) -> int:
        network = self.config.network
        return network.hidden_size * (network.latents if kind == "mean" else len(layers))  # `latents` is 1 without bottleneck

    def invalid_reason(self, molecule: Any) -> str | None:
        """Why `embed` cannot take a molecule (not parsable, too long, a token that the model does not know); None if it can."""
        return invalid_reason(molecule, self.tokenizer, self.config.network.max_tokens)

    def encode(self, smiles: Any, *, canonical: bool = True, batch_size: int | None = None) -> Posterior:
        """q(z|x) of N molecules, fields [N, K, D] on the CPU; inputs and errors as `embed`.

        Raises:
            ConfigError: The model has no bottleneck, so its molecules have no latents of a fixed number.
        """
        self._need_latent("encode", 'embed(smiles, kind="mean") gives one vector for each molecule')
        network = self.config.network
        inputs = tokenise(smiles, self.tokenizer, max_tokens=network.max_tokens, canonical=canonical, on_invalid="raise")
        mean, variance = torch.empty(2, len(inputs.tokens), network.latents, network.hidden_size)
        for rows, posterior in self._encode(inputs.tokens, batch_size):
            mean[rows], variance[rows] = posterior.mean_BKD.cpu(), posterior.variance_BKD.cpu()
        order = torch.from_numpy(inputs.molecule_of_row)
        return Posterior(mean[order], variance[order])

    def decode(self, z: Any, *, max_tokens: int | None = None, batch_size: int = _DECODED_MOLECULES) -> list[str]:
        """Greedy decoding of latents to SMILES; only chemical tokens are written.

        Args:
            z: Latents, tensor or array [N, K, D] or [N, K * D].
            max_tokens: Most tokens of a SMILES; None means as many as the model has positions for.
            batch_size: Molecules decoded together.

        Returns:
            N strings; a warning counts those that were cut at `max_tokens`. Not every one need be a valid molecule:
            `molecules.is_valid` tells.

        Raises:
            InvalidShapeError: Another shape.
            ConfigError: The model has no decoder, or no bottleneck.
        """
        self._need_decoder("decode")
        self._need_latent("decode", "call reconstruct with the SMILES")
        network = self.config.network
        _check_positive("batch_size", batch_size)
        latents = torch.as_tensor(z, dtype=torch.float32, device=self.device)
        shape = (network.latents, network.hidden_size)
        if tuple(latents.shape[1:]) not in (shape, (shape[0] * shape[1],)):
            raise InvalidShapeError(f"Latents must have the shape [N, {shape[0]}, {shape[1]}], found {list(latents.shape)}.")
        latents = latents.reshape(-1, *shape)
        return self._written(((part, None) for part in latents.split(batch_size) if len(part)), max_tokens)

    def reconstruct(self, smiles: Any, *, canonical: bool = True, max_tokens: int | None = None) -> list[str]:
        """What the decoder makes of each molecule's posterior mean; inputs and errors as `embed`."""
        self._need_decoder("reconstruct")
        limit = self.config.network.max_tokens
        inputs = tokenise(smiles, self.tokenizer, max_tokens=limit, canonical=canonical, on_invalid="raise")
        order: list[int] = []

        def encoded() -> Iterator[tuple[Tensor, Tensor | None]]:
            for rows, posterior in self._encode(inputs.tokens, _DECODED_MOLECULES):
                order.extend(rows.tolist())
                yield posterior.mean_BKD, posterior.is_latent_BK

        texts = self._written(encoded(), max_tokens)
        of_molecule = dict(zip(order, texts))
        return [of_molecule[molecule] for molecule in inputs.molecule_of_row.tolist()]

    def _written(self, latents: Iterable[tuple[Tensor, Tensor | None]], max_tokens: int | None) -> list[str]:
        """Greedy decoding of batches of latents, each with the mask of its real ones."""
        _check_positive("max_tokens", max_tokens)
        vocabulary = self.tokenizer.vocabulary
        texts: list[str] = []
        cut = 0
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
            cut += int((ids_BT != vocabulary.eos_id).all(1).sum())
        if cut:
            limit = max_tokens or self.config.network.max_tokens
            warnings.warn(f"{cut} of {len(texts)} SMILES had not ended after {limit} tokens, and are cut there.", stacklevel=3)
        return texts

    def sample(
        self, n: int = 1, *, smiles: Any = None, scaled_radius: float = 1.0, seed: int | None = None, max_tokens: int | None = None
    ) -> list[str] | list[list[str]]:
        """New molecules: latents drawn at random, decoded greedily.

        Args:
            n: How many; around each molecule if `smiles` is given.
            smiles: Molecules to sample around, as `embed` takes them; None samples the prior, z ~ N(0, I).
            scaled_radius: How far from each molecule, in posterior standard deviations: z = mean + scaled_radius * std * noise. 0 gives
                reconstructions, 1 draws from q(z|x).
            seed: Of the noise; None draws anew.
            max_tokens: As `decode`.

        Returns:
            n strings; with `smiles` a list of n for each of its rows. Not every one need be a valid molecule: `molecules.is_valid` tells.

        Raises:
            InvalidSmilesError: A molecule that cannot be used.
            ConfigError: `n` below 1, a negative radius, or a model without q(z|x) and prior, or without decoder.
        """
        self._need_decoder("sample")
        if not self.config.network.is_stochastic:
            raise ConfigError(
                f"sample needs a prior and a posterior to draw from, but {self._named} has neither: call reconstruct."
            )
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
        """What the decoder makes of `steps` latents on the straight line between two molecules' posterior means, ends included.

        Raises:
            InvalidSmilesError: A molecule that cannot be used.
            ConfigError: Fewer than 2 steps, or a model without bottleneck or decoder.
        """
        self._need_decoder("interpolate")
        self._need_latent("interpolate", "use a model with one")
        if steps < 2:
            raise ConfigError(f"steps must be at least 2 (the two ends), found {steps}.")
        start, end = self.encode([a, b]).mean_BKD
        share = torch.linspace(0, 1, steps)[:, None, None]
        return self.decode(torch.lerp(start, end, share), max_tokens=max_tokens)

    def _chosen_layers(self, kind: str, layers: Sequence[int] | None, pooling: str) -> tuple[int, ...]:
        """The decoder layers that `embed` reads, after a look at all that says which numbers it gives."""
        if kind not in KINDS:
            raise ConfigError(f"kind must be {' or '.join(map(repr, KINDS))}, found {kind!r}.")
        if kind == "informative":
            self._need_decoder('kind="informative"', 'pass kind="mean"')
        if pooling not in POOLINGS:
            raise ConfigError(f"pooling must be {' or '.join(map(repr, POOLINGS))}, found {pooling!r}.")
        if kind != "informative" and (layers is not None or pooling != "mean"):
            raise ConfigError(
                f'layers and pooling belong to kind="informative" and have no effect on kind={kind!r}. Leave them out.'
            )
        last = self.config.network.decoder_layers
        if layers is None:
            return (last,)
        chosen = tuple(layers) if isinstance(layers, Iterable) else ()
        if not chosen or any(layer not in range(1, last + 1) for layer in chosen) or len(set(chosen)) < len(chosen):
            raise ConfigError(f"layers must be different numbers from 1 to {last}, which is this model's last, found {layers!r}.")
        return chosen

    @property
    def _named(self) -> str:
        return f"this model (objective {self.config.objective.name})"

    def _need_decoder(self, what: str, hint: str = "use a model with one") -> None:
        if not self.config.network.decoder_layers:
            raise ConfigError(f"{what} needs a decoder, but {self._named} only encodes: {hint}.")

    def _need_latent(self, what: str, hint: str) -> None:
        if not self.config.network.has_bottleneck:
            raise ConfigError(
                f"{what} needs latents of a fixed number, but {self._named} has a state for each token and no bottleneck: {hint}."
            )

    @torch.inference_mode()
    def _encode(self, tokens: Sequence[Sequence[int]], batch_size: int | None) -> Iterator[tuple[NDArray[np.int64], Posterior]]:
        """Posteriors in batches of similar lengths, with the rows that they belong to."""
        order = np.argsort([len(row) for row in tokens], kind="stable")
        molecules = _ENCODER_MOLECULES if self.config.network.encoder == "perceiver" else _TOKEN_ENCODER_MOLECULES
        size = batch_size or molecules * (_GPU_FACTOR if self.device.type == "cuda" else 1)
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            batch = collate([tokens[r] for r in rows], self.tokenizer.vocabulary).to(self.device)
            yield rows, self.network.encode(batch.encoder_BS, batch.is_token_BS)

    @torch.inference_mode()
    def _decode_states(
        self,
        tokens: Sequence[Sequence[int]],
        posterior: Posterior,
        batch_size: int | None,
        layers: tuple[int, ...],
        pooling: str,
    ) -> Iterator[tuple[slice, Tensor]]:
        """Pooled decoder states [b, len(layers) * D] of slices of a batch whose molecules are sorted by length."""
        budget = _DECODER_TOKENS * (_GPU_FACTOR if self.device.type == "cuda" else 1)
        memory = self.network.remember(posterior.mean_BKD, posterior.is_latent_BK)
        torch.empty(_FREED_BYTES, dtype=torch.uint8)
        start = 0
        while start < len(tokens):
            stop = start + 1
            limit = batch_size or len(tokens)
            while stop < len(tokens) and stop - start < limit and (stop - start + 1) * (len(tokens[stop]) + 1) <= budget:
                stop += 1
            part = slice(start, stop)
            batch = collate(tokens[part], self.tokenizer.vocabulary).to(self.device)
            weight_B1T = _pooling_weights(batch.is_target_BT, pooling)
            pooled = {}
            for number, hidden_BTD in enumerate(self.network.layer_states(batch.decoder_BT, select(memory, part)), 1):
                if number in layers:
                    pooled[number] = (weight_B1T.to(hidden_BTD.dtype) @ hidden_BTD).squeeze(1)
            yield part, torch.cat([pooled[number] for number in layers], 1)
            start = stop


def _pooling_weights(is_target_BT: Tensor, pooling: str) -> Tensor:
    """What each position counts in a molecule's vector, float32 [B, 1, T]."""
    real_BT = is_target_BT.float()
    lengths_B1 = real_BT.sum(1, keepdim=True)
    if pooling == "last":
        return (torch.arange(real_BT.shape[1], device=real_BT.device) == lengths_B1 - 1).float().unsqueeze(1)
    return (real_BT / lengths_B1).unsqueeze(1)


def _check_positive(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise ConfigError(f"{name} must be at least 1, found {value}.")


def _device(device: str | torch.device | None) -> torch.device:
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise ConfigError(f"There is no device {device!r} ({error}). Pass cpu, or cuda where there is a GPU.") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"The device {device!r} was asked for, but torch finds no GPU here. Pass device='cpu'.")
    return chosen
