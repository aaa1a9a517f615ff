"""Peak memory of `nemo-cmim embed` for 1,000,000 rows and for 10,000 rows; checks that no row is lost.

    python -m benchmarks.embed_stream [--record]

Each size runs in a separate process. Takes about ten minutes, mostly in RDKit.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet
import torch

from benchmarks.molecules import sample_smiles
from benchmarks.report import record
from nemo_cmim.config import ModelConfig, NetworkConfig
from nemo_cmim.inference.model_file import ModelFile, write_model_file
from nemo_cmim.models import CMIMNetwork
from nemo_cmim.tokenizers import SmilesTokenizer

NETWORK = NetworkConfig(hidden_size=16, encoder_layers=1, decoder_layers=1, attention_heads=2, ffn_size=32, max_positions=128)
MEASURE = """
import resource, sys
from nemo_cmim.cli import main
status = main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
sys.exit(status)
"""


def embed_rows(folder: Path, smiles: list[str], rows: int) -> float:
    """Embeds a CSV of `rows` rows that cycles through `smiles`, and counts the output rows; returns the peak memory in MB."""
    source, target = folder / f"{rows}.csv", folder / f"{rows}.parquet"
    with source.open("w") as file:
        file.write("id,smiles\n")
        file.writelines(f"{i:07d},{smiles[i % len(smiles)]}\n" for i in range(rows))
    command = [sys.executable, "-c", MEASURE, "embed", str(source), "-o", str(target), "--model", str(folder / "m.nemo")]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    written = pyarrow.parquet.read_table(target, columns=["id"])["id"]
    assert len(written) == rows and written[rows - 1].as_py() == f"{rows - 1:07d}", "the output has a different number of rows"
    return int(done.stdout.split()[-1]) / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    """Measures both sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the large file (default: %(default)s)")
    parser.add_argument("--record", action="store_true", help="write the result to benchmarks/RESULTS.md")
    args = parser.parse_args()
    torch.manual_seed(0)
    smiles = sample_smiles(50_000)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        weights = CMIMNetwork(NETWORK).state_dict()
        write_model_file(path / "m.nemo", ModelFile(ModelConfig(network=NETWORK), SmilesTokenizer().vocabulary, weights))
        small, large = embed_rows(path, smiles, 10_000), embed_rows(path, smiles, args.rows)
    lines = [
        "CSV of real SMILES (50,000 distinct) to Parquet, tiny network with random weights; the number of output rows was checked.",
        "",
        f"- 10,000 rows: peak memory {small:.0f} MB",
        f"- {args.rows:,} rows: peak memory {large:.0f} MB",
        f"- **difference {large - small:.0f} MB** (target: at most 300 MB)",
    ]
    print("\n".join(lines))
    if args.record:
        record("Embedding a large file", "python -m benchmarks.embed_stream --record", lines, seed=0)


if __name__ == "__main__":
    main()
