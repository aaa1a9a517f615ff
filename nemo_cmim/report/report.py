"""`nemo-cmim data-report`: one self-contained HTML page about a folder that `prepare` wrote.

The page loads nothing from elsewhere, and contains neither a date nor random numbers, so that equal folders give equal pages. Counts
and lengths are those of the manifest, of all molecules. Weight and logP are computed for a sample.
"""

from __future__ import annotations

import csv
import gzip
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import molecules
from ..errors import ConfigError, DataError, InvalidSmilesError
from ..loader.order import permute
from ..outputs import check_file, write_file
from ..prepare.curate import FORBIDDEN_CHARACTER, NOT_A_MOLECULE, reason_of
from ..prepare.merge import DUPLICATE
from ..prepare.rejects import REJECTED
from ..store.manifest import StoreManifest
from ..store.token_store import SPLITS, TokenStore
from ..tokenizers import SmilesTokenizer
from . import SAMPLE
from .charts import Histogram, histogram
from .pages import LONGEST_DRAWN, cut, drawn, templates
from .tranche_charts import tranche_charts

__all__ = ["data_report", "write_data_report"]

_EXAMPLES = 4  # rejected lines shown for each reason
_KEPT_EXAMPLES = 8
_LINES_SEARCHED = 2_000_000  # maximum number of lines of rejected.tsv.gz read for examples: seconds
_LARGEST = 20  # rows of a table that may have thousands


class _Kept(NamedTuple):
    """A kept molecule of the sample."""

    smiles: str
    molecular_weight: float
    logp: float
    tokens: int


class _Rejected(NamedTuple):
    """A line of rejected.tsv.gz."""

    file: str
    line: str
    reason: str
    text: str


class _Figure(NamedTuple):
    """The SVG of a molecule, empty if it is not drawn, with a caption and the text of its line."""

    drawing: str
    caption: str
    text: str


def write_data_report(
    folder: str | Path, output: str | Path, *, sample: int = SAMPLE, seed: int = 0, overwrite: bool = False
) -> None:
    """Writes a page about prepared data: counts, tranches, properties, tokens, and rejected and kept molecules.

    Args:
        folder: A folder that `prepare` wrote.
        output: The HTML file to write.
        sample: Maximum number of molecules whose weight and logP are computed.
        seed: Seed of the sample.
        overwrite: Replace `output` if it exists.

    Raises:
        DataError: If the folder is missing or damaged, or the output exists or cannot be written.
        ConfigError: If `sample` is below 1.
    """
    check_file(output, overwrite=overwrite, others=[path for path in Path(folder).glob("*") if path.suffix != ".html"])
    page = data_report(folder, sample=sample, seed=seed)
    with write_file(output, overwrite=overwrite) as staging:
        staging.write_text(page, encoding="utf-8")


def data_report(folder: str | Path, *, sample: int = SAMPLE, seed: int = 0) -> str:
    """The HTML of `write_data_report`.

    Raises:
        DataError: If the folder is missing or damaged.
        ConfigError: If `sample` is below 1.
    """
    if sample < 1:
        raise ConfigError(f"sample must be at least 1, found {sample}.")
    folder = Path(folder).resolve()
    manifest = StoreManifest.load(folder)
    split = next((split for split in SPLITS if manifest.splits[split]["molecules"]), SPLITS[0])  # train, unless it is empty
    store = TokenStore.open(folder, split)
    kept = _sample(store, sample, seed)
    total = manifest.splits[split]["molecules"]
    of_sample = f"{len(kept):,} of the {total:,} molecules of the {split} split, drawn at random with seed {seed}"
    if len(kept) == total:
        of_sample = f"all {total:,} molecules of the {split} split"
    return (
        templates()
        .get_template("report.html")
        .render(
            folder=folder.name,
            **_counts(manifest),
            **_inputs(manifest),
            **_rejected_lines(folder, manifest),
            sample=of_sample,
            histograms=_histograms(manifest, kept),
            vocabulary_size=int(store.vocabulary.is_chemical.sum()),
            kept_molecules=[_kept_figure(one) for one in kept[:_KEPT_EXAMPLES]],
            settings=_settings(manifest),
        )
    )


def _sample(store: TokenStore, size: int, seed: int) -> list[_Kept]:
    tokenizer = SmilesTokenizer(store.vocabulary)
    kept = []
    with molecules.quiet_rdkit():
        for index in permute(np.arange(min(size, len(store))), len(store), seed, "report"):
            tokens = store.tokens(int(index))
            smiles = tokenizer.decode(tokens)
            properties = molecules.properties(molecules.parse(smiles, name=f"molecule {index} of {store.split}", quiet=False))
            kept.append(_Kept(smiles, *properties, len(tokens)))
    return kept


def _counts(manifest: StoreManifest) -> dict[str, Any]:
    """Counts for the entire folder. A tile has a name, a count, and whether that is a fraction of the lines read."""
    duplicates = manifest.rejected.get(DUPLICATE, 0)
    unknown_tokens, other_unknown_tokens = _largest(list(manifest.unknown_tokens.items()), "tokens")
    return {
        "counts": manifest.counts,
        "tiles": [
            ("lines read", manifest.counts["read"], False),
            ("molecules kept", manifest.counts["kept"], True),
            ("lines rejected", manifest.counts["rejected"], True),
            ("rejected duplicates", duplicates, True),
            ("tokens kept", sum(split["tokens"] for split in manifest.splits.values()), False),
        ],
        "splits": [(name, split["molecules"], split["tokens"]) for name, split in manifest.splits.items()],
        "rejected": manifest.rejected,
        "duplicates": duplicates,
        "tokens": manifest.tokens,
        "unknown_tokens": unknown_tokens,
        "other_unknown_tokens": other_unknown_tokens,
    }


def _inputs(manifest: StoreManifest) -> dict[str, Any]:
    """Counts by tranche, and by file for the other inputs."""
    others = [file for file in manifest.inputs if Path(file["file"]).name.split(".")[0] not in manifest.tranches]
    files, other_files = _largest([(f["file"], f["read"], f["kept"], sum(f["rejected"].values())) for f in others], "files")
    tranches = tranche_charts(manifest.tranches) if manifest.tranches else None
    return {"tranches": tranches, "files": files, "other_files": other_files}


def _largest(rows: list[Any], kind: str) -> tuple[list[Any], Any]:
    """The rows with the largest first number, and a row with the sums of the others, or () if there are none."""
    rows = sorted(rows, key=lambda row: -row[1])
    rest = rows[_LARGEST:]
    return rows[:_LARGEST], (f"{len(rest):,} further {kind}", *map(sum, zip(*(row[1:] for row in rest)))) if rest else ()


def _histograms(manifest: StoreManifest, kept: Sequence[_Kept]) -> list[Histogram]:
    lengths: Counter[int] = Counter()
    for split in manifest.splits.values():
        lengths.update({int(length): count for length, count in split["lengths"].items()})
    ones = np.ones(len(kept), dtype=np.int64)
    return [
        histogram(np.sort([one.molecular_weight for one in kept]), ones, "molecular weight", "Da", 1),
        histogram(np.sort([one.logp for one in kept]), ones, "Crippen logP", "", 2),
        histogram(np.array(sorted(lengths)), np.array([lengths[n] for n in sorted(lengths)]), "length", "tokens", 0, 1.0),
    ]


def _settings(manifest: StoreManifest) -> list[tuple[str, dict[str, str]]]:
    """Tables of names and values, each with the heading of its names."""
    return [
        ("setting", {name: "none" if value is None else str(value) for name, value in manifest.settings.items()}),
        ("version of", manifest.versions),
        ("vocabulary", {name: str(value) for name, value in manifest.vocabulary.items()}),
    ]


def _rejected_lines(folder: Path, manifest: StoreManifest) -> dict[str, Any]:
    """Examples of each reason. `lines_searched` is 0 if all rejected lines were searched."""
    if not manifest.rejected:
        return {}
    found, is_complete = _find_rejected(folder, manifest)
    return {
        "rejected_lines": {reason: [_rejected_figure(row) for row in rows] for reason, rows in found.items()},
        "examples": _EXAMPLES,
        "longest_drawn": LONGEST_DRAWN,
        "lines_searched": 0 if is_complete else _LINES_SEARCHED,
    }


def _find_rejected(folder: Path, manifest: StoreManifest) -> tuple[dict[str, list[_Rejected]], bool]:
    """The first lines of each reason, and False if the search for them ended early."""
    manifest.check_files(folder, [REJECTED], contents=False)
    found: dict[str, list[_Rejected]] = {reason: [] for reason in manifest.rejected}
    missing = sum(min(count, _EXAMPLES) for count in manifest.rejected.values())
    for searched, row in enumerate(_rows(folder / REJECTED), 1):
        examples = found[reason_of(row.reason)]
        if len(examples) < _EXAMPLES:
            examples.append(row)
            missing -= 1
        if not missing:
            break
        if searched == _LINES_SEARCHED:
            return found, False
    return found, True


def _rows(path: Path) -> Iterator[_Rejected]:
    limit = csv.field_size_limit(sys.maxsize)  # a rejected line may have any length
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as stream:
            rows = csv.reader(stream, delimiter="\t")
            next(rows, None)
            for row in rows:
                yield _Rejected(*row)
    except (EOFError, OSError, TypeError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}). Prepare or copy the folder again.") from error
    finally:
        csv.field_size_limit(limit)


def _figure(smiles: str, caption: str, text: str) -> _Figure:
    return _Figure(drawn(smiles), caption, cut(text))


def _kept_figure(kept: _Kept) -> _Figure:
    caption = f"{kept.molecular_weight:.1f} Da, logP {kept.logp:.2f}, {kept.tokens} tokens"
    return _figure(kept.smiles, caption, kept.smiles)


def _rejected_figure(row: _Rejected) -> _Figure:
    smiles = "" if row.reason.startswith((FORBIDDEN_CHARACTER, NOT_A_MOLECULE)) else _molecule_in(row.text)
    return _figure(smiles, f"{row.file}, line {row.line}: {row.reason}", row.text)


def _molecule_in(text: str) -> str:
    """The molecule of an SDF record, or the longest word of another line that RDKit parses as one; empty if there is none to draw."""
    if blocks := text.count("\nM  END"):
        try:
            return molecules.smiles_of_mol_block(text) if blocks == 1 else ""
        except InvalidSmilesError:
            return ""
    words = (word.strip('"') for word in text.replace(",", " ").split())
    for word in sorted(words, key=len, reverse=True):
        if len(word) > LONGEST_DRAWN:
            return ""  # a shorter word may be the name of the molecule
        if molecules.is_valid(word):
            return word
    return ""
