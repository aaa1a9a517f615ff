"""Molecules per second of a training step: Megatron network, plain network and Hugging Face BART, on the same molecules.

    python -m benchmarks.training_step [--record]

A step is forward, loss, backward and Adam. Steps of the networks alternate, so that other load slows all of them; medians are compared.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from transformers import BartConfig, BartForConditionalGeneration

from benchmarks.molecules import sample_smiles
from benchmarks.report import record
from nemo_cmim.config import NetworkConfig, ObjectiveConfig, ParallelConfig
from nemo_cmim.losses import build_objective, log_p_x_given_z
from nemo_cmim.mcore.network import MegatronCMIMNetwork
from nemo_cmim.mcore.parallel import initialise
from nemo_cmim.models import CMIMNetwork
from nemo_cmim.scaling import read_network
from nemo_cmim.tokenizers import SmilesTokenizer
from nemo_cmim.tokenizers.collate import collate
from nemo_cmim.types import TokenBatch

SIZES = {"paper size": (NetworkConfig(), 32), "tiny": (read_network("conf/model/tiny.yaml"), 128)}

Step = Callable[[TokenBatch], torch.Tensor]


def plain_step(config: NetworkConfig) -> tuple[torch.nn.Module, Step]:
    """cMIM with the plain network."""
    network, objective = CMIMNetwork(config), build_objective(ObjectiveConfig())

    def loss(batch: TokenBatch) -> torch.Tensor:
        posterior = network.encode(batch.encoder_BS, batch.is_token_BS)
        z_BKD = posterior.sample()
        log_p_x = log_p_x_given_z(network(batch.decoder_BT, z_BKD), batch.target_BT, batch.is_target_BT)
        return objective(log_p_x, z_BKD, posterior).loss

    return network, loss


def megatron_step(config: NetworkConfig) -> tuple[torch.nn.Module, Step]:
    """cMIM with Megatron-Core layers."""
    network, objective = MegatronCMIMNetwork(config, ParallelConfig()), build_objective(ObjectiveConfig())

    def loss(batch: TokenBatch) -> torch.Tensor:
        posterior = network.encode(batch.encoder_BS, batch.is_token_BS)
        z_BKD = posterior.sample()
        log_p_x = network.log_p_x_given_z(network(batch.decoder_BT, z_BKD), batch.target_BT, batch.is_target_BT)
        return objective(log_p_x, z_BKD, posterior).loss

    return network, loss


def bart_step(config: NetworkConfig) -> tuple[torch.nn.Module, Step]:
    """Hugging Face BART with the same decoder sizes, and one full-length encoder layer for each block of our encoder."""
    sizes = {
        f"{side}_{name}": value
        for side, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers))
        for name, value in (("layers", layers), ("attention_heads", config.attention_heads), ("ffn_dim", config.ffn_size))
    }
    network = BartForConditionalGeneration(
        BartConfig(
            vocab_size=config.padded_vocabulary_size,
            d_model=config.hidden_size,
            max_position_embeddings=config.max_positions,
            dropout=config.dropout,
            attention_dropout=config.dropout,
            **sizes,
        )
    )

    def loss(batch: TokenBatch) -> torch.Tensor:
        labels = batch.target_BT.masked_fill(~batch.is_target_BT, -100)
        out = network(batch.encoder_BS, attention_mask=batch.is_token_BS.long(), decoder_input_ids=batch.decoder_BT, labels=labels)
        return out.loss

    return network, loss


def measure(config: NetworkConfig, batches: list[TokenBatch], repeats: int) -> dict[str, float]:
    """Median seconds of a step of each network."""
    steps = {}
    for name, build in {"Megatron": megatron_step, "plain": plain_step, "BART": bart_step}.items():
        torch.manual_seed(0)
        network, loss = build(config)
        network.train()
        steps[name] = (torch.optim.Adam(network.parameters(), lr=1e-4), loss)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 1):
        for name, (optimiser, loss) in steps.items():
            start = time.perf_counter()
            optimiser.zero_grad()
            loss(batches[repeat % len(batches)]).backward()
            optimiser.step()
            if repeat:  # the first is warm-up
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Measures both sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9, help="number of steps to measure (default: %(default)s)")
    parser.add_argument("--record", action="store_true", help="write the result to benchmarks/RESULTS.md")
    args = parser.parse_args()
    initialise(ParallelConfig())
    tokenizer = SmilesTokenizer()
    lines = ["| size | network | molecules/s | Megatron / this network |", "|---|---|---|---|"]
    for title, (config, batch_size) in SIZES.items():
        smiles = sorted(sample_smiles(4 * batch_size), key=len)
        tokens = [tokenizer.encode(text, on_unknown="unk") for text in smiles]
        batches = [collate(tokens[i : i + batch_size], tokenizer.vocabulary) for i in range(0, len(tokens), batch_size)]
        seconds = measure(config, batches, args.repeats)
        for name, value in seconds.items():
            ratio = seconds[name] / seconds["Megatron"]
            lines.append(f"| {title}, batch {batch_size} | {name} | {batch_size / value:.1f} | {ratio:.2f} |")
    lines += ["", "Target: Megatron at most 5 % slower than plain (ratio at least 0.95)."]
    print("\n".join(lines))
    if args.record:
        record("Training step", f"python -m benchmarks.training_step --repeats {args.repeats} --record", lines, seed=0)


if __name__ == "__main__":
    main()
