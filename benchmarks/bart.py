"""Hugging Face BART of the size of MolMIM's network, as a peer: 6+6 layers of 512, random weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from transformers import BartConfig, BartModel

from nemo_cmim.tokenizers import SmilesTokenizer
from nemo_cmim.tokenizers.collate import collate

__all__ = ["LAYERS", "SIZE", "bart"]

SIZE = {
    "d_model": 512,
    "encoder_ffn_dim": 2048,
    "decoder_ffn_dim": 2048,
    "encoder_attention_heads": 8,
    "decoder_attention_heads": 8,
}
LAYERS = {"encoder_layers": 6, "decoder_layers": 6}


def bart(tokens: Sequence[Sequence[int]], size: int, encoder_only: bool, device: str = "cpu") -> Callable[[], None]:
    """Returns a function that embeds with BART: averaged states of the decoder or the encoder, on precomputed batches of ids."""
    vocabulary = SmilesTokenizer().vocabulary
    special = {"pad_token_id": vocabulary.pad_id, "bos_token_id": vocabulary.bos_id, "eos_token_id": vocabulary.eos_id}
    network = BartModel(BartConfig(vocab_size=640, max_position_embeddings=512, **SIZE, **LAYERS, **special)).eval().to(device)
    order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
    batches = [collate([tokens[i] for i in order[start : start + size]], vocabulary) for start in range(0, len(order), size)]

    @torch.inference_mode()
    def run() -> None:
        for batch in (batch.to(device) for batch in batches):
            mask = batch.is_token_BS.long()
            if encoder_only:
                states, real = network.encoder(batch.encoder_BS, mask).last_hidden_state, batch.is_token_BS
            else:
                output = network(batch.encoder_BS, mask, decoder_input_ids=batch.decoder_BT)
                states, real = output.last_hidden_state, batch.is_target_BT
            ((states * real.unsqueeze(-1)).sum(1) / real.sum(1, keepdim=True)).cpu()

    return run
