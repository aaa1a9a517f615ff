"""Speed of greedy decoding of 256 molecules with the key/value cache, compared with the same network without a cache.

python -m benchmarks.decoding [--record]
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor

from benchmarks.report import record
from nemo_cmim.config import NetworkConfig
from nemo_cmim.models import CMIMNetwork, greedy_decode
from nemo_cmim.tokenizers import SmilesTokenizer

MOLECULES, TOKENS = 256, 32


@torch.inference_mode()
def decode_without_cache(network: CMIMNetwork, z_BKD: Tensor, bos_id: int, forbidden_V: Tensor) -> Tensor:
    """Decodes by definition: the decoder processes the complete sequence for each new token."""
    ids_BT = torch.full((len(z_BKD), 1), bos_id)
    for _ in range(TOKENS):
        last_BV = network.logits(network.hidden_states(ids_BT, z_BKD)[:, -1])
        ids_BT = torch.cat([ids_BT, last_BV.masked_fill(forbidden_V, -torch.inf).argmax(-1, keepdim=True)], 1)
    return ids_BT[:, 1:]


def main() -> None:
    """Measures the paper-size network with random weights. `<EOS>` is suppressed, so that both write the same number of tokens."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=2, help="number of measurements (default: %(default)s)")
    parser.add_argument("--record", action="store_true", help="write the result to benchmarks/RESULTS.md")
    args = parser.parse_args()
    torch.manual_seed(0)
    network, vocabulary = CMIMNetwork(NetworkConfig()).eval(), SmilesTokenizer().vocabulary
    network.output_bias.data[vocabulary.eos_id] = -1e4
    forbidden = torch.ones(network.config.padded_vocabulary_size, dtype=torch.bool)
    forbidden[: len(vocabulary)] = ~torch.tensor(vocabulary.is_chemical)
    z_BKD = torch.randn(MOLECULES, 1, network.config.hidden_size)
    times: dict[str, list[float]] = {"cache": [], "no cache": []}
    for _ in range(args.repeats):
        start = time.perf_counter()
        cached = greedy_decode(network, z_BKD, bos_id=vocabulary.bos_id, eos_id=vocabulary.eos_id, is_allowed_V=~forbidden,
                               max_tokens=TOKENS)  # fmt: skip
        middle = time.perf_counter()
        plain = decode_without_cache(network, z_BKD, vocabulary.bos_id, forbidden)
        times["cache"].append(middle - start)
        times["no cache"].append(time.perf_counter() - middle)
    cache, without = (statistics.median(values) for values in times.values())
    same = float((cached == plain).float().mean())
    lines = [
        f"{MOLECULES} molecules of {TOKENS} tokens, paper-size network with random weights, medians of {args.repeats} repeats.",
        "",
        f"- with cache: {MOLECULES / cache:.1f} molecules/s; without: {MOLECULES / without:.1f} molecules/s",
        f"- **ratio {without / cache:.1f}** (target: at least 5); {same:.2%} of the tokens agree (ties depend on rounding)",
    ]
    print("\n".join(lines))
    if args.record:
        record("Greedy decoding", "python -m benchmarks.decoding --record", lines, seed=0)


if __name__ == "__main__":
    main()
