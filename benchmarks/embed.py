"""Speed of `embed` with the paper-size network, compared with bare matrix multiplications of the same shapes and with BART.

    python -m benchmarks.embed [--record]

Takes about five minutes on two cores. All measurements alternate in one process; weights are random.
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Callable, Sequence

import torch
from transformers import BartConfig, BartModel

from benchmarks.molecules import sample_smiles
from benchmarks.products import RecordProducts, operations, plain_products
from benchmarks.report import record
from benchmarks.timing import take_turns
from nemo_cmim.config import ModelConfig
from nemo_cmim.inference import CMIMModel
from nemo_cmim.inference.model_file import ModelFile
from nemo_cmim.models import CMIMNetwork
from nemo_cmim.tokenizers import SmilesTokenizer
from nemo_cmim.tokenizers.collate import collate

KINDS = ("informative", "mean")
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


def ratio(of: list[float], to: list[float]) -> float:
    """Median over rounds of `of` / `to`."""
    return statistics.median(a / b for a, b in zip(of, to))


def main() -> None:
    """Measures and prints; `--record` saves the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--molecules", type=int, default=512, help="molecules to embed (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds to measure (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch (default: all cores)")
    parser.add_argument("--record", action="store_true", help="write the result to benchmarks/RESULTS.md")
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    config = ModelConfig()
    tokenizer = SmilesTokenizer()
    model = CMIMModel(ModelFile(config, tokenizer.vocabulary, CMIMNetwork(config.network).state_dict()), device="cpu")
    smiles = sample_smiles(args.molecules)
    tokens = [tokenizer.encode(s) for s in smiles]

    functions: dict[str, Callable[[], object]] = {}
    work = {}
    for kind in KINDS:
        functions[kind] = functools.partial(model.embed, smiles, kind)
        with RecordProducts() as products:
            model.embed(smiles, kind)
        work[kind] = operations(products.shapes)
        functions[f"products of {kind}"] = plain_products(products.shapes)
    functions["BART"] = bart(tokens, 32, encoder_only=False)
    functions["BART encoder"] = bart(tokens, 32, encoder_only=True)
    seconds = take_turns(functions, args.repeats)

    lines = [
        f"{args.molecules} molecules of MOSES ({sum(map(len, tokens)) / len(tokens):.1f} tokens on average), {args.threads} threads, "
        f"fp32, paper-size network (61 M parameters), medians of {args.repeats} rounds.",
        "",
        "| | molecules/s | GFLOP/s | fraction of the speed of bare matmuls | speed relative to BART | relative to BART's encoder |",
        "|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        median = statistics.median(seconds[kind])
        rate = ratio(seconds[f"products of {kind}"], seconds[kind])
        times = [ratio(seconds[name], seconds[kind]) for name in ("BART", "BART encoder")]
        lines.append(f"| `{kind}` | {args.molecules / median:.1f} | {work[kind] / median / 1e9:.0f} | {rate:.1%} | "
                     f"{times[0]:.2f}x | {times[1]:.2f}x |")  # fmt: skip
    lines += [
        "",
        "`embed` is timed from SMILES to array, including canonicalisation. Bare matmuls: only `torch.mm` and `torch.bmm`, once for "
        "each matrix multiplication of `embed`, with the same shapes, including those inside attention. BART: Hugging Face "
        "`BartModel`, 6+6 layers of 512, on the same tokens, sorted by length, in precomputed batches of 32, averaged states. Targets: "
        "`informative` at least 85 % and 2x BART, `mean` at least 8x BART.",
    ]
    print("\n".join(lines))
    if args.record:
        record("Embedding", "python -m benchmarks.embed --record", lines, seed=0)


if __name__ == "__main__":
    main()
