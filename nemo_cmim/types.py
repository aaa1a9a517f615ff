"""Tuples of tensors that parts of the package exchange.

Shape letters: B molecules, S encoder tokens, T decoder tokens, K latents, D width, V vocabulary, P properties, F bits of a fingerprint.
The name of a mask says what True means. Terms of a loss are per molecule, in nats, fp32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LossTerms", "MicroBatch", "ObservedProperties", "Posterior", "TokenBatch"]


class TokenBatch(NamedTuple):
    """Padded token ids of B molecules, ready for teacher forcing. T = S + 1, unless augmentation gave the encoder a different SMILES.

    Attributes:
        encoder_BS: int64, the tokens of each SMILES, then padding.
        is_token_BS: bool, True at real encoder tokens.
        decoder_BT: int64, `<BOS>` and the tokens, then padding.
        target_BT: int64, the tokens and `<EOS>`, then padding.
        is_target_BT: bool, True at real targets (tokens and `<EOS>`).
    """

    encoder_BS: Tensor
    is_token_BS: Tensor
    decoder_BT: Tensor
    target_BT: Tensor
    is_target_BT: Tensor

    @property
    def decoder_view(self) -> tuple[Tensor, Tensor]:
        """The decoder's SMILES as encoder input, ids_BS and is_token_BS: a second view if encoder and decoder have different SMILES."""
        return self.decoder_BT[:, 1:], self.is_target_BT[:, 1:]

    def to(self, device: object) -> TokenBatch:
        """The same batch on `device`."""
        return TokenBatch(*(t.to(device, non_blocking=True) for t in self))  # type: ignore[call-overload]


class ObservedProperties(NamedTuple):
    """Properties y of B molecules, computed from their structure; see `observed.PropertyTable`.

    Attributes:
        values_BP: float32, normal scores: quantiles among the prepared molecules, mapped to N(0, 1). NaN if RDKit cannot compute one.
        bits_BF: float32, 0 or 1: bits of the Morgan fingerprint.
    """

    values_BP: Tensor
    bits_BF: Tensor

    def to(self, device: object) -> ObservedProperties:
        """The same properties on `device`."""
        return ObservedProperties(*(t.to(device, non_blocking=True) for t in self))  # type: ignore[call-overload]


class MicroBatch(NamedTuple):
    """A random sample of molecules for one forward and backward pass, divided into buckets of similar length.

    The network computes one bucket at a time, so that little of a batch is padding. The loss is that of all molecules together.

    Attributes:
        buckets: The molecules, the shortest first.
        observed: Properties of all molecules in the order of the buckets; None if the objective does not use them.
    """

    buckets: tuple[TokenBatch, ...]
    observed: ObservedProperties | None = None

    @property
    def molecules(self) -> int:
        """B, the number of molecules of all buckets."""
        return sum(len(bucket.encoder_BS) for bucket in self.buckets)

    @property
    def tokens(self) -> Tensor:
        """The number of real targets of all buckets, int64 scalar."""
        return sum((bucket.is_target_BT.sum() for bucket in self.buckets[1:]), self.buckets[0].is_target_BT.sum())

    def to(self, device: object) -> MicroBatch:
        """The same micro-batch on `device`."""
        return MicroBatch(tuple(bucket.to(device) for bucket in self.buckets), self.observed and self.observed.to(device))


class Posterior(NamedTuple):
    """Gaussian q(z|x) with diagonal covariance; a deterministic latent if the network has no variance head.

    K is the number of tokens (S) for a transformer encoder, which has no bottleneck.

    Attributes:
        mean_BKD: mean of each latent.
        variance_BKD: variance of each latent, at least 1e-6 (Sec. 3.1); 0 for a deterministic latent.
        is_latent_BK: bool, True at real latents; None: all are real.
    """

    mean_BKD: Tensor
    variance_BKD: Tensor
    is_latent_BK: Tensor | None = None

    def sample(self, noise_BKD: Tensor | None = None) -> Tensor:
        """z_BKD = mean + sqrt(variance) * noise, reparameterised; without `noise_BKD`, standard normal noise is drawn."""
        noise = self.mean_BKD.new_empty(self.mean_BKD.shape).normal_() if noise_BKD is None else noise_BKD
        return self.mean_BKD + self.variance_BKD.sqrt() * noise

    def pooled(self) -> Tensor:
        """One vector per molecule: the K latents concatenated, [B, K * D]; without bottleneck the mean of real states, [B, D]."""
        if self.is_latent_BK is None:
            return self.mean_BKD.flatten(1)
        real_B1K = self.is_latent_BK.unsqueeze(1).to(self.mean_BKD.dtype)
        return (real_B1K @ self.mean_BKD).squeeze(1) / real_B1K.sum(2)


class LossTerms(NamedTuple):
    """Terms of a training loss for each molecule, in nats, fp32; terms that the objective does not use are None.

    Attributes:
        log_p_x_given_z_B: reconstruction, sum over tokens (and `<EOS>`).
        log_p_k1_B: Eq. 4.
        log_p_k1_sum_B: Eq. 4 with the sum over negatives in place of their mean (cMIM-Sigma, Sec. 3.6).
        log_p_positive_B: minus Eq. 1.
        log_q_z_given_x_B: sum over K and D.
        log_p_z_B: log N(z; 0, I), sum over K and D.
        kl_B: KL(q(z|x) || N(0, I)), sum over K and D.
        log_p_values_given_h_B: observed properties given the mean of the decoder's states, sum over properties.
        log_p_bits_given_h_B: observed bits of the fingerprint given the same, sum over bits.
        log_p_values_given_z_B: observed properties given the latents, sum over properties.
        log_p_bits_given_z_B: observed bits of the fingerprint given the latents, sum over bits.
    """

    log_p_x_given_z_B: Tensor | None = None
    log_p_k1_B: Tensor | None = None
    log_p_k1_sum_B: Tensor | None = None
    log_p_positive_B: Tensor | None = None
    log_q_z_given_x_B: Tensor | None = None
    log_p_z_B: Tensor | None = None
    kl_B: Tensor | None = None
    log_p_values_given_h_B: Tensor | None = None
    log_p_bits_given_h_B: Tensor | None = None
    log_p_values_given_z_B: Tensor | None = None
    log_p_bits_given_z_B: Tensor | None = None
