"""Speed of `embed` with each engine, compared with bare matrix multiplications and with BART; and the first vector of a new process.

    python -m benchmarks.engines [--record]

Takes about ten minutes on two cores. Engines and BART alternate in one process; the network has the size of the paper's and random
weights. New processes embed one molecule with the default model. Requires the [onnx] extra.
"""

from __future__ import annotations

import argparse
import functools
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.bart import bart
from benchmarks.molecules import sample_smiles
from benchmarks.products import RecordProducts, operations, plain_products
from benchmarks.report import record
from benchmarks.timing import ratio, take_turns
from nemo_cmim import list_models
from nemo_cmim.config import ModelConfig
from nemo_cmim.inference import CMIMModel
from nemo_cmim.inference.capabilities import KINDS
from nemo_cmim.inference.embedding import EmbeddingModel
from nemo_cmim.inference.engines import ENGINES, INT8, ONNX
from nemo_cmim.inference.engines.export import export_engine
from nemo_cmim.inference.engines.onnx_model import OnnxModel
from nemo_cmim.inference.model_file import ModelFile
from nemo_cmim.models import CMIMNetwork
from nemo_cmim.tokenizers import SmilesTokenizer

FIRST = "import sys, nemo_cmim; nemo_cmim.embed(['CCO'], sys.argv[1], engine=sys.argv[2])"


def cpu_seconds(engine: str) -> float:
    """Processor time, user and system, of a new process that embeds one molecule."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", FIRST, list_models()[0], engine], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


def first_vectors(repeats: int) -> dict[str, float]:
    """Median processor time for the first vector of a new process, by engine. The first round exports the engines to a new cache."""
    seconds: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    with tempfile.TemporaryDirectory() as cache:
        os.environ["NEMO_CMIM_CACHE"] = cache
        for round_ in range(repeats + 1):
            for engine, times in seconds.items():
                time = cpu_seconds(engine)
                if round_:
                    times.append(time)
    return {engine: statistics.median(times) for engine, times in seconds.items()}


def main() -> None:
    """Measures and prints; `--record` saves the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--molecules", type=int, default=512, help="molecules to embed (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds to measure (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of each engine (default: all cores)")
    parser.add_argument("--record", action="store_true", help="write the result to benchmarks/RESULTS.md")
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    config, tokenizer = ModelConfig(), SmilesTokenizer()
    content = ModelFile(config, tokenizer.vocabulary, CMIMNetwork(config.network).state_dict())
    smiles = sample_smiles(args.molecules)
    tokens = [tokenizer.encode(s) for s in smiles]
    with tempfile.TemporaryDirectory() as folder:
        reports = export_engine(content, folder, name="random", engines=(ONNX, INT8))
        models: dict[str, EmbeddingModel] = {engine: OnnxModel.load(Path(folder), engine) for engine in reports}
        models = {"torch": CMIMModel(content, "cpu"), **models}
        work = {}
        functions: dict[str, Callable[[], object]] = {
            f"{engine} {kind}": functools.partial(model.embed, smiles, kind) for engine, model in models.items() for kind in KINDS
        }
        for kind in KINDS:
            with RecordProducts() as products:
                models["torch"].embed(smiles, kind)
            work[kind] = operations(products.shapes)
            functions[f"products of {kind}"] = plain_products(products.shapes)
        functions["BART"] = bart(tokens, 32, encoder_only=False)
        functions["BART encoder"] = bart(tokens, 32, encoder_only=True)
        seconds = take_turns(functions, args.repeats)
    first = first_vectors(args.repeats)

    lines = [
        f"{args.molecules} molecules of MOSES ({sum(map(len, tokens)) / len(tokens):.1f} tokens on average), {args.threads} threads, "
        f"paper-size network (61 M parameters), medians of {args.repeats} rounds.",
        "",
        "| engine | kind | molecules/s | GFLOP/s | fraction of the speed of bare matmuls | speed relative to `torch` | relative to BART | "
        "relative to BART's encoder | smallest cosine similarity to `torch` |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for engine in models:
        for kind in KINDS:
            own = seconds[f"{engine} {kind}"]
            median = statistics.median(own)
            others = (f"torch {kind}", "BART", "BART encoder")
            speeds = " | ".join(f"{ratio(seconds[name], own):.2f}x" for name in others)
            cosine = f"{reports[engine].fidelity[kind].smallest_cosine:.6f}" if engine in reports else ""
            lines.append(
                f"| `{engine}` | `{kind}` | {args.molecules / median:.1f} | {work[kind] / median / 1e9:.0f} | "
                f"{ratio(seconds[f'products of {kind}'], own):.1%} | {speeds} | {cosine} |"
            )
    lines += [
        "",
        f"First vector of a new process with {list_models()[0]}, seconds of processor time: "
        + ", ".join(f"`{engine}` {time:.2f}" for engine, time in first.items())
        + ".",
        "",
        "`embed` is timed from SMILES to array, including canonicalisation. Bare matmuls: only `torch.mm` and `torch.bmm` in fp32, once "
        "for each matrix multiplication of `torch`, with the same shapes, including those inside attention. BART: Hugging Face "
        "`BartModel`, 6+6 layers of 512, fp32, on the same tokens, sorted by length, in precomputed batches of 32, averaged states. "
        "Targets: `informative` in fp32 at least 90 % of bare matmuls and 2x BART, and with `onnx-int8` 1.7x `torch`; `mean` at least "
        "20x BART; first vector of an ONNX engine under 1 s.",
    ]
    print("\n".join(lines))
    if args.record:
        record("Engines", "python -m benchmarks.engines --record", lines, seed=0)


if __name__ == "__main__":
    main()
