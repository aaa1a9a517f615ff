"""Molecules per second of greedy decoding and beam search, from token ids to token ids, compared with Hugging Face `generate` on BART.

    python -m benchmarks.decoding [--record]

Both networks have random weights and the paper's size, and write the same number of tokens: `<EOS>` is suppressed. All measurements
alternate in one process. Greedy decoding is also compared with the same network without a cache.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import BartConfig, BartForConditionalGeneration

from benchmarks.bart import LAYERS, SIZE
from benchmarks.molecules import sample_smiles, tokenized_batch
from benchmarks.report import record
from benchmarks.timing import take_turns
from nemo_cmim.config import NetworkConfig
from nemo_cmim.generation import DecodingSettings, decode
from nemo_cmim.models import CMIMNetwork
from nemo_cmim.tokenizers import SmilesTokenizer
from nemo_cmim.types import TokenBatch

TOKENS = 32
BEAMS = (1, 4)


@torch.inference_mode()
def decode_without_cache(network: CMIMNetwork, batch: TokenBatch, bos_id: int, forbidden_V: Tensor) -> Tensor:
    """Decodes by definition: the decoder processes the complete sequence for each new token."""
    z_BKD = network.encode(batch.encoder_BS, batch.is_token_BS).mean_BKD
    ids_BT = torch.full((len(z_BKD), 1), bos_id)
    for _ in range(TOKENS):
        last_BV = network.logits(network.hidden_states(ids_BT, z_BKD)[:, -1])
        ids_BT = torch.cat([ids_BT, last_BV.masked_fill(forbidden_V, -torch.inf).argmax(-1, keepdim=True)], 1)
    return ids_BT[:, 1:]


def ours(network: CMIMNetwork, batch: TokenBatch, beam_size: int) -> Callable[[], Tensor]:
    """Returns a function that encodes a batch and decodes the posterior means."""
    vocabulary, settings = SmilesTokenizer().vocabulary, DecodingSettings(beam_size=beam_size, max_tokens=TOKENS)

    @torch.inference_mode()
    def run() -> Tensor:
        z_BKD = network.encode(batch.encoder_BS, batch.is_token_BS).mean_BKD
        return decode(network, vocabulary, z_BKD, settings=settings).ids_BNT[:, 0]

    return run


def bart(batch: TokenBatch, beam_size: int) -> Callable[[], Tensor]:
    """Returns a function that encodes a batch and decodes it with Hugging Face `generate`."""
    vocabulary = SmilesTokenizer().vocabulary
    special = {
        "pad_token_id": vocabulary.pad_id,
        "bos_token_id": vocabulary.bos_id,
        "eos_token_id": vocabulary.eos_id,
        "decoder_start_token_id": vocabulary.bos_id,
        "forced_eos_token_id": None,
    }
    network = BartForConditionalGeneration(
        BartConfig(vocab_size=640, max_position_embeddings=512, **SIZE, **LAYERS, **special)
    ).eval()
    mask = batch.is_token_BS.long()

    @torch.inference_mode()
    def run() -> Tensor:
        length = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS}
        return network.generate(batch.encoder_BS, attention_mask=mask, num_beams=beam_size, do_sample=False, **length)

    return run


def main() -> None:
    """Measures and prints; `--record` saves the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--molecules", type=int, default=128, help="molecules of the batch (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="number of measurements (default: %(default)s)")
    parser.add_argument("--record", action="store_true", help="write the result to benchmarks/RESULTS.md")
    args = parser.parse_args()
    torch.manual_seed(0)
    network, vocabulary = CMIMNetwork(NetworkConfig()).eval(), SmilesTokenizer().vocabulary
    network.output_bias.data[vocabulary.eos_id] = -1e4
    batch = tokenized_batch(sample_smiles(args.molecules))
    forbidden_V = torch.ones(network.config.padded_vocabulary_size, dtype=torch.bool)
    forbidden_V[: len(vocabulary)] = ~torch.tensor(vocabulary.is_chemical)
    functions: dict[str, Callable[[], Tensor]] = {f"ours {beam}": ours(network, batch, beam) for beam in BEAMS}
    functions |= {f"BART {beam}": bart(batch, beam) for beam in BEAMS}
    functions["without cache"] = lambda: decode_without_cache(network, batch, vocabulary.bos_id, forbidden_V)
    seconds = take_turns(functions, args.repeats)
    rate = {name: args.molecules / statistics.median(values) for name, values in seconds.items()}
    same = float((functions["ours 1"]() == functions["without cache"]()).float().mean())
    lines = ["| | molecules/s | Hugging Face BART, molecules/s | ratio |", "|---|---|---|---|"]
    for beam in BEAMS:
        ratio = statistics.median(a / b for a, b in zip(seconds[f"BART {beam}"], seconds[f"ours {beam}"]))
        name = "greedy" if beam == 1 else f"beam search, {beam} sequences"
        lines.append(f"| {name} | {rate[f'ours {beam}']:.1f} | {rate[f'BART {beam}']:.1f} | **{ratio:.2f}** |")
    without = statistics.median(a / b for a, b in zip(seconds["without cache"], seconds["ours 1"]))
    lines += [
        "",
        f"{args.molecules} molecules of MOSES in one batch, {TOKENS} tokens each, paper-size networks (6+6 layers of 512) with random "
        f"weights, {torch.get_num_threads()} threads, medians of {args.repeats} rounds. Target: at least 2 for both. Greedy decoding "
        f"without a cache takes {without:.1f} times as long; {same:.2%} of the tokens agree (ties depend on rounding).",
    ]
    print("\n".join(lines))
    if args.record:
        record("Decoding", "python -m benchmarks.decoding --record", lines, seed=0)


if __name__ == "__main__":
    main()
