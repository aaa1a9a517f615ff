"""A step of the complete trainer compared with plain PyTorch loops, and with the matrix multiplications of the network alone."""

from __future__ import annotations

import functools
import json
import statistics
import tempfile
from pathlib import Path

import torch

from benchmarks.gpu.setting import DTYPES, Setting
from benchmarks.gpu.step import example_batch, sizes, training_step
from benchmarks.products import RecordProducts, Shapes, operations, plain_products, with_backward
from benchmarks.training_step import bart_step, plain_step
from nemo_cmim.config import NetworkConfig
from nemo_cmim.mappings import hydra_quoted
from nemo_cmim.models import CMIMNetwork
from nemo_cmim.types import TokenBatch

__all__ = ["measure"]

PEERS = {"plain PyTorch": plain_step, "Hugging Face BART": bart_step}


def measure(setting: Setting) -> list[str]:
    """Rows for each size and precision: molecules/s, ratios, memory, and the rate of the matrix multiplications."""
    lines = [
        "| size, molecules of a step | precision | network | molecules/s | trainer / this network | memory, GiB | TFLOP/s of products "
        "| bare products / step |",
        "|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as name:
        data = setting.prepared(Path(name))
        for size, (model, network, molecules) in sizes(setting).items():
            batch = example_batch(setting, molecules)
            shapes = with_backward(_products(network, batch))
            for precision in setting.precisions:
                seconds, memory = {}, {}
                seconds["trainer"], memory["trainer"] = _trainer(
                    setting, data, Path(name) / f"{model}-{precision}", model, molecules, precision
                )
                for peer, build in PEERS.items():
                    before = setting.start_memory()
                    step = functools.partial(training_step(build, network, precision, setting), batch)
                    step()
                    seconds[peer], memory[peer] = setting.seconds({peer: step}, calls=4)[peer], setting.peak_gib(before)
                    del step
                bare = setting.seconds({"bare": plain_products(shapes, setting.device, DTYPES[precision])})["bare"]
                for peer, value in seconds.items():
                    rate = f"{operations(shapes) / value / 1e12:.1f} | {bare / value:.0%}" if "BART" not in peer else "|"
                    lines.append(
                        f"| {size}, {molecules} | {precision} | {peer} | {molecules / value:,.0f} | {value / seconds['trainer']:.2f} "
                        f"| {memory[peer]} | {rate} |"
                    )
    return [
        *lines,
        "",
        "Trainer: `nemo-cmim train` with Adam, on random batches of one bucket: the complete step with data, metrics and checks. Plain "
        "PyTorch: the same network, loss, clipping and batch size in a loop over one batch, with scaled dot-product attention, fused "
        "Adam and autocast. BART: the same decoder, one full-length encoder layer for each Perceiver block. Bare products: only the matrix "
        "multiplications of this network's forward and backward pass. Medians of steps; memory is the peak with weights and optimiser.",
    ]


@torch.inference_mode()
def _products(config: NetworkConfig, batch: TokenBatch) -> Shapes:
    network = CMIMNetwork(config).to(batch.encoder_BS.device).eval()
    with RecordProducts() as products:
        posterior = network.encode(batch.encoder_BS, batch.is_token_BS)
        network(batch.decoder_BT, posterior.mean_BKD)
    return products.shapes


def _trainer(setting: Setting, data: Path, run: Path, model: str, molecules: int, precision: str) -> tuple[float, str]:
    """Median seconds of a step of the complete trainer, and its peak memory in GiB."""
    from nemo_cmim.training.run import compose, train

    steps = 4 if setting.is_rehearsal else 40
    before = setting.start_memory()
    train(
        compose(
            [
                f"model={model}", f"model.train_ds.folder={hydra_quoted(data)}", f"model.train_ds.batch_size={molecules}",
                "model.train_ds.buckets=1", "model.train_ds.workers=4", "model.validation_ds.workers=0", f"trainer.max_steps={steps}",
                f"trainer.accelerator={'gpu' if setting.device == 'cuda' else 'cpu'}", f"trainer.precision={precision}",
                "trainer.limit_val_batches=0", "trainer.num_sanity_val_steps=0", "trainer.enable_progress_bar=false",
                f"exp_manager.explicit_log_dir={hydra_quoted(run)}",
                "exp_manager.checkpoint_callback_params.save_nemo_on_train_end=false",
            ]
        )
    )  # fmt: skip
    rows = [json.loads(line) for line in (run / "metrics" / "steps.jsonl").read_text().splitlines()]
    return statistics.median(row["seconds"] for row in rows[steps // 2 : -1]), setting.peak_gib(before)
