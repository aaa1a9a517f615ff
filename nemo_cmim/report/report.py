"""`nemo-cmim data-report`: one self-contained HTML page about a folder that `prepare` wrote.

It asks for nothing from outside, holds no date and does not depend on chance, so that equal folders give equal pages. Counts and
lengths are the manifest's, of all molecules; weight and logP are computed on a sample.
"""

from __future__ import annotations

import csv
import gzip
import string
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import molecules
from ..errors import ConfigError, DataError
from ..loader.order import permute
from ..prepare.curate import NOT_A_MOLECULE
from ..prepare.rejects import REJECTED
from ..store.manifest import StoreManifest
from ..store.token_store import SPLITS, TokenStore
from ..tokenizers import SmilesTokenizer
from .charts import bars, distribution, share, table
from .tranche_charts import tranche_charts

__all__ = ["data_report", "write_data_report"]

_TEMPLATE = Path(__file__).with_name("report.html")
_EXAMPLES = 4  # rejected lines shown for each reason
_KEPT_EXAMPLES = 8
_LINES_SEARCHED = 2_000_000  # of rejected.tsv.gz, for examples: seconds
_LARGEST = 20  # rows of a table that may have thousands
_LONGEST_DRAWN = 300  # characters of a SMILES; longer ones take RDKit long, and show nothing
_LONGEST_TEXT = 400  # characters of a rejected line


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


def write_data_report(
    folder: str | Path, output: str | Path, *, sample: int = 10_000, seed: int = 0, overwrite: bool = False
) -> None:
    """Writes a page about prepared data: counts, tranches, properties, tokens, and rejected and kept molecules.

    Args:
        folder: What `prepare` wrote.
        output: The HTML file to write.
        sample: Most molecules whose weight and logP are computed.
        seed: Another seed takes another sample.
        overwrite: Replace `output`.

    Raises:
        DataError: The folder is missing or damaged, or the output is in the way or cannot be written.
        ConfigError: `sample` is below 1.
    """
    output = Path(output)
    if output.exists() and not overwrite:
        raise DataError(f"{output} exists already. Name another file, or replace it with --overwrite.")
    page = data_report(folder, sample=sample, seed=seed)
    try:
        output.write_text(page, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{output} cannot be written: {error.strerror}. Name another file.") from error


def data_report(folder: str | Path, *, sample: int = 10_000, seed: int = 0) -> str:
    """The page of `write_data_report`.

    Raises:
        DataError: The folder is missing or damaged.
        ConfigError: `sample` is below 1.
    """
    if sample < 1:
        raise ConfigError(f"sample must be at least 1, found {sample}.")
    folder = Path(folder).resolve()
    manifest = StoreManifest.load(folder)
    split = next((split for split in SPLITS if manifest.splits[split]["molecules"]), SPLITS[0])  # train, unless it is empty
    store = TokenStore.open(folder, split)
    kept = _sample(store, sample, seed)
    whole = manifest.splits[split]["molecules"]
    of_sample = f"{len(kept):,} of the {whole:,} molecules of the {split} split, drawn at random with seed {seed}"
    if len(kept) == whole:
        of_sample = f"all {whole:,} molecules of the {split} split"
    sections = [
        _headline(manifest),
        _rejections(manifest),
        _inputs(manifest),
        _properties(manifest, kept, of_sample),
        _tokens(manifest, int(store.vocabulary.is_chemical.sum())),
        _rejected_examples(folder, manifest),
        _section("Kept molecules", _molecules(map(_kept_figure, kept[:_KEPT_EXAMPLES])), f"The first of the sample: {of_sample}."),
        _settings(manifest),
    ]
    template = string.Template(_TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(folder=escape(folder.name), body="\n".join(sections))


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


def _section(title: str, content: str, note: str = "", kind: str = "") -> str:
    explained = f"<p>{escape(note)}</p>\n" if note else ""
    return f'<section class="{kind}">\n<h2>{escape(title)}</h2>\n{explained}{content}</section>'


def _headline(manifest: StoreManifest) -> str:
    read, kept, rejected = (manifest.counts[name] for name in ("read", "kept", "rejected"))
    duplicates = manifest.rejected.get("duplicate", 0)
    tiles = [
        ("lines read", read, ""),
        ("molecules kept", kept, f", {share(kept, read)} of lines"),
        ("lines rejected", rejected, f", {share(rejected, read)} of lines"),
        ("duplicates among them", duplicates, f", {share(duplicates, read)} of lines"),
        ("tokens kept", sum(split["tokens"] for split in manifest.splits.values()), ""),
    ]
    shown = "".join(f'<div class="tile"><b>{n:,}</b><span>{name}{escape(part)}</span></div>\n' for name, n, part in tiles)
    rows = [(name, split["molecules"], split["tokens"]) for name, split in manifest.splits.items()]
    splits = table(("split", "molecules", "tokens"), rows)
    return _section("Overview", f'<div class="tiles">\n{shown}</div>\n{splits}')


def _rejections(manifest: StoreManifest) -> str:
    if not manifest.rejected:
        return _section("Rejected", "<p>No line was rejected.</p>\n")
    duplicates, kept = manifest.rejected.get("duplicate", 0), manifest.counts["kept"]
    note = (
        "The first test that a line fails is its reason. A duplicate has the canonical SMILES of a molecule kept before it: "
        f"{share(duplicates, kept + duplicates)} of the molecules that pass all other tests."
    )
    reasons = bars(("reason", "lines", "share of lines read"), list(manifest.rejected.items()), manifest.counts["read"])
    return _section("Rejected by reason", reasons, note)


def _inputs(manifest: StoreManifest) -> str:
    tranches = _section("ZINC tranches", tranche_charts(manifest.tranches)) if manifest.tranches else ""
    others = [file for file in manifest.inputs if Path(file["file"]).name.split(".")[0] not in manifest.tranches]
    if not others:
        return tranches
    rows, rest = _largest([(f["file"], f["read"], f["kept"], sum(f["rejected"].values())) for f in others], "files")
    files = table(("file", "lines read", "kept", "rejected"), rows, last=rest, sortable=True)
    note = "The files that are no tranche." if manifest.tranches else ""
    if rest:
        note += f" The {_LARGEST} with the most lines, and the sum of the others."
    return tranches + _section("Input files", files, note.strip())


def _largest(rows: list[Any], kind: str) -> tuple[list[Any], Any]:
    """The rows with the largest first number, and a row with the sums of the others if there are any."""
    rows = sorted(rows, key=lambda row: -row[1])
    rest = rows[_LARGEST:]
    return rows[:_LARGEST], (f"{len(rest):,} further {kind}", *map(sum, zip(*(row[1:] for row in rest)))) if rest else ()


def _properties(manifest: StoreManifest, kept: Sequence[_Kept], of_sample: str) -> str:
    lengths: Counter[int] = Counter()
    for split in manifest.splits.values():
        lengths.update({int(length): count for length, count in split["lengths"].items()})
    ones = np.ones(len(kept), dtype=np.int64)
    charts = [
        distribution(np.sort([one.molecular_weight for one in kept]), ones, "molecular weight", "Da", 1),
        distribution(np.sort([one.logp for one in kept]), ones, "Crippen logP", "", 2),
        distribution(np.array(sorted(lengths)), np.array([lengths[n] for n in sorted(lengths)]), "length", "tokens", 0, 1.0),
    ]
    note = f"Molecular weight and logP: {of_sample}. Length: all {manifest.counts['kept']:,} kept molecules."
    return _section("Properties of kept molecules", f'<div class="charts">\n{"".join(charts)}</div>\n', note)


def _tokens(manifest: StoreManifest, chemical: int) -> str:
    occurring = bars(
        ("token", "count", "share of tokens"), list(manifest.tokens.items()), sum(manifest.tokens.values()), sortable=True
    )
    note = (
        f"{len(manifest.tokens):,} tokens occur in the kept molecules. Of the {chemical:,} tokens of the vocabulary that can stand "
        f"in a SMILES, {chemical - len(manifest.tokens):,} never occur."
    )
    unknown = "<p>No line was rejected for a token that the vocabulary lacks.</p>\n"
    if manifest.unknown_tokens:
        rows, rest = _largest(list(manifest.unknown_tokens.items()), "tokens")
        unknown = "<p>Each line counts once for every such token in it.</p>\n" + bars(
            ("token", "lines", "share of lines read"), rows, manifest.counts["read"], last=rest
        )
    content = f"{occurring}<h3>Unknown tokens that led to rejections</h3>\n{unknown}"
    return _section("Tokens", content, note, "tall")


def _settings(manifest: StoreManifest) -> str:
    vocabulary = {name: str(value) for name, value in manifest.vocabulary.items()}
    settings = {name: "none" if value is None else str(value) for name, value in manifest.settings.items()}
    tables = [
        table((head, ""), list(rows.items()))
        for head, rows in (("setting", settings), ("version of", manifest.versions), ("vocabulary", vocabulary))
    ]
    return _section("Settings", f'<div class="columns">\n{"".join(tables)}</div>\n')


def _rejected_examples(folder: Path, manifest: StoreManifest) -> str:
    if not manifest.rejected:
        return ""
    found, is_cut = _find_rejected(folder, manifest)
    note = (
        f"The first {_EXAMPLES} lines of each reason. Drawn is the longest word of a line that RDKit reads as a molecule; "
        f"where there is none, or a word has more than {_LONGEST_DRAWN} characters, only the text is shown."
    )
    if is_cut:
        note += f" Only the first {_LINES_SEARCHED:,} rejected lines were searched for them."
    groups = [
        f"<h3>{escape(reason)} ({manifest.rejected[reason]:,})</h3>\n{_molecules(map(_rejected_figure, lines))}"
        for reason, lines in found.items()
    ]
    return _section("Rejected lines", "".join(groups), note)


def _find_rejected(folder: Path, manifest: StoreManifest) -> tuple[dict[str, list[_Rejected]], bool]:
    """The first lines of each reason, and True if the search for them ended early."""
    manifest.check_files(folder, [REJECTED], contents=False)
    found: dict[str, list[_Rejected]] = {reason: [] for reason in manifest.rejected}
    missing = sum(min(count, _EXAMPLES) for count in manifest.rejected.values())
    for searched, row in enumerate(_rows(folder / REJECTED), 1):
        examples = found[row.reason.partition(": ")[0]]
        if len(examples) < _EXAMPLES:
            examples.append(row)
            missing -= 1
        if not missing:
            break
        if searched == _LINES_SEARCHED:
            return found, True
    return found, False


def _rows(path: Path) -> Iterator[_Rejected]:
    limit = csv.field_size_limit(sys.maxsize)  # a rejected line may be of any length
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as stream:
            rows = csv.reader(stream, delimiter="\t")
            next(rows, None)
            for row in rows:
                yield _Rejected(*row)
    except (EOFError, OSError, TypeError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}): prepare or copy the folder again.") from error
    finally:
        csv.field_size_limit(limit)


def _molecules(figures: Iterator[str]) -> str:
    return f'<div class="molecules">\n{"".join(figures)}</div>\n'


def _figure(drawing: str, caption: str, text: str) -> str:
    text = text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}… ({len(text):,} characters)"
    return f'<figure class="molecule">\n{drawing}<figcaption>{escape(caption)}<code>{escape(text)}</code></figcaption></figure>\n'


def _kept_figure(kept: _Kept) -> str:
    caption = f"{kept.molecular_weight:.1f} Da, logP {kept.logp:.2f}, {kept.tokens} tokens"
    return _figure(molecules.drawing(kept.smiles) if len(kept.smiles) <= _LONGEST_DRAWN else "", caption, kept.smiles)


def _rejected_figure(row: _Rejected) -> str:
    smiles = "" if row.reason == NOT_A_MOLECULE else _molecule_in(row.text)
    return _figure(molecules.drawing(smiles) if smiles else "", f"{row.file}, line {row.line}: {row.reason}", row.text)


def _molecule_in(text: str) -> str:
    """The longest word of a line (of .smi, .txt or .csv) that RDKit reads as a molecule; empty if there is none to draw."""
    words = (word.strip('"') for word in text.replace(",", " ").split())
    for word in sorted(words, key=len, reverse=True):
        if len(word) > _LONGEST_DRAWN:
            return ""  # rather than a shorter word, which may be the molecule's name
        if molecules.is_valid(word):
            return word
    return ""
