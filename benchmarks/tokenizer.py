"""Speed of SmilesTokenizer compared with NeMo's RegExTokenizer, on the same SMILES in the same run.

    python -m benchmarks.tokenizer [--smiles FILE...] [--record]

NeMo's tokenizer uses MegaMolBART's regular expression and our vocabulary, so that ids are comparable. It is called as in NeMo:
text_to_tokens, then tokens_to_ids, one SMILES at a time. The default molecules are those of MOSES (`pip install --no-deps
molsets==0.3.1`).
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.report import record
from nemo_cmim.tokenizers import SmilesTokenizer

MEGAMOLBART_REGEX = r"\[[^\]]+]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\(|\)|\.|=|#|-|\+|\\\\|\/|:|~|@|\?|>|\*|\$|\%[0-9]{2}|[0-9]"


def moses() -> Path:
    """Path of MOSES' training set in the package `molsets`."""
    package = importlib.util.find_spec("moses")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("The package molsets is not installed. Pass --smiles FILE, or run: pip install --no-deps molsets==0.3.1")
    return Path(package.submodule_search_locations[0]) / "dataset" / "data" / "train.csv.gz"


def read_smiles(path: Path, count: int) -> list[str]:
    """First column of the first `count` rows, without a header."""
    smiles: list[str] = []
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        for line in lines:
            first = re.split(r"[\s,]", line, maxsplit=1)[0]
            if first and first.lower() != "smiles":
                smiles.append(first)
            if len(smiles) == count:
                break
    return smiles


def nemo_encoder(ours: SmilesTokenizer) -> Callable[[list[str]], list[list[int]]]:
    """NeMo's tokenizer with our vocabulary, as a function of a list of SMILES."""
    from nemo.collections.common.tokenizers.regex_tokenizer import RegExTokenizer

    theirs = RegExTokenizer(regex=MEGAMOLBART_REGEX, unk_token="<UNK>", bos_token="<BOS>", eos_token="<EOS>")
    theirs.vocab = ours.vocab
    theirs._update_cache()
    return lambda smiles: [theirs.tokens_to_ids([theirs.text_to_tokens(s)])[0] for s in smiles]


def seconds(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compare(path: Path, count: int, repeats: int) -> str:
    """One row of the table."""
    smiles = read_smiles(path, count)
    ours = SmilesTokenizer()
    nemo = nemo_encoder(ours)
    flat, offsets = ours.encode_batch(smiles)
    expected = nemo(smiles)
    if not np.array_equal(flat, np.concatenate(expected)) or not np.array_equal(np.diff(offsets), [len(ids) for ids in expected]):
        raise SystemExit(f"{path}: the tokens differ from NeMo's")
    # Alternating, so that other load slows both.
    pairs = [(seconds(lambda: nemo(smiles)), seconds(lambda: ours.encode_batch(smiles))) for _ in range(repeats)]
    theirs_s, ours_s = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(theirs / mine for theirs, mine in pairs)
    n = len(smiles)
    return f"| {path.name} | {n:,} | {len(flat):,} | {n / theirs_s:,.0f} | {n / ours_s:,.0f} | {ratio:.1f}x |"


def main() -> None:
    """Measures and prints; `--record` saves the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--smiles", nargs="+", type=Path, metavar="FILE", help=".smi, .txt or .csv with SMILES in the first column; plain or .gz"
    )
    parser.add_argument("--count", type=int, default=100_000, help="number of SMILES to read from each file (default: 100000)")
    parser.add_argument("--repeats", type=int, default=7, help="number of measurements (default: %(default)s)")
    parser.add_argument("--record", action="store_true", help="write the table to benchmarks/RESULTS.md")
    args = parser.parse_args()
    paths = args.smiles or [moses()]
    lines = [
        "| SMILES | molecules | tokens | NeMo RegExTokenizer, molecules/s | SmilesTokenizer.encode_batch, molecules/s | ratio |",
        "|---|---|---|---|---|---|",
        *(compare(path, args.count, args.repeats) for path in paths),
        "",
        f"Median of {args.repeats} repeats; both give identical ids for every molecule. Target: at least 5x.",
    ]
    print("\n".join(lines))
    if args.record:
        given = f" --smiles {' '.join(path.name for path in args.smiles)}" if args.smiles else ""
        record("Tokenizer", f"python -m benchmarks.tokenizer{given} --record", lines)


if __name__ == "__main__":
    main()
