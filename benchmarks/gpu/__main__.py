"""Measures training and embedding on one GPU. Not run on a GPU yet; meant to take less than ten minutes.

    python -m benchmarks.gpu [--record] [--smiles FILE] [SECTION ...]

`--device cpu` rehearses it on a computer without a GPU, with a tiny network; its numbers mean nothing. A section that fails prints its
traceback; the others still run, and the exit status is 1. Without a GPU, nothing is measured.
"""

from __future__ import annotations

import argparse
import lzma
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.gpu import compiled, embedding, loading, training
from benchmarks.gpu.setting import Setting
from benchmarks.molecules import sample_smiles
from benchmarks.report import RESULTS, record
from nemo_cmim.inference import list_models, load
from nemo_cmim.molecules import canonical_smiles

SECTIONS: dict[str, tuple[str, Callable[[Setting], list[str]]]] = {
    "training": ("GPU: training step", training.measure),
    "embedding": ("GPU: embedding", embedding.measure),
    "loading": ("GPU: loader", loading.measure),
    "compiled": ("GPU: torch.compile and CUDA graphs", compiled.measure),
}


def main() -> int:
    """Measures, prints and records. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)} (default: all)")
    parser.add_argument(
        "--device", default="cuda", choices=("cuda", "cpu"), help="cpu rehearses the program (default: %(default)s)"
    )
    parser.add_argument(
        "--smiles", type=Path, metavar="FILE", help="one SMILES per line, plain or .xz (default: MOSES, of molsets)"
    )
    parser.add_argument("--molecules", type=int, default=20_000, metavar="N", help="molecules to use (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="rounds to measure (default: %(default)s)")
    parser.add_argument("--record", action="store_true", help="write each section to the file of --results")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE", help="default: benchmarks/RESULTS.md")
    args = parser.parse_args()
    for name in set(args.sections) - set(SECTIONS):
        parser.error(f"unknown section {name!r}. Choose from {', '.join(SECTIONS)}.")
    if args.device == "cuda" and not torch.cuda.is_available():
        print("Nothing is measured: torch finds no GPU. Pass --device cpu to rehearse on a CPU.")
        return 0
    if args.record and args.device == "cpu":
        parser.error("a rehearsal is not recorded. Remove --record.")
    smiles = _first_lines(args.smiles, args.molecules) if args.smiles else sample_smiles(args.molecules)
    torch.set_float32_matmul_precision("highest")  # NVIDIA's containers turn TF32 on
    model = load(list_models()[0], "cpu")
    smiles = list({canonical_smiles(one): None for one in smiles if model.invalid_reason(one) is None})  # nor any that is too long
    setting = Setting(args.device, smiles, args.repeats, is_rehearsal=args.device == "cpu")
    failed = 0
    for name in args.sections or SECTIONS:
        title, measure = SECTIONS[name]
        try:
            lines = [f"{setting.card}, torch {torch.__version__}.", "", *measure(setting)]
        except Exception:  # noqa: BLE001 - the other sections are still measured
            traceback.print_exc()
            failed = 1
            continue
        print("\n".join([f"\n## {title}\n", *lines]), flush=True)
        if args.record:
            record(title, f"python -m benchmarks.gpu {name} --record", lines, seed=0, results=args.results)
    return failed


def _first_lines(file: Path, count: int) -> list[str]:
    with lzma.open(file, "rt") if file.suffix == ".xz" else file.open() as lines:
        return [line.split()[0] for _, line in zip(range(count), lines)]


if __name__ == "__main__":
    sys.exit(main())
