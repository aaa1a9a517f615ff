"""Finds out how a file is read, from its first bytes and its name."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import ConfigError, DataError
from .columns import column_index, find_smiles_column, listed, smiles_columns
from .layout import DELIMITED, PARQUET, SDF, SPLIT, Detected, Layout, ReadOptions

__all__ = ["COMPRESSIONS", "FORMATS", "PARQUET_MAGIC", "detect", "format_of", "is_web_page"]

FORMATS = (".smi", ".txt", ".csv", ".tsv", ".sdf", ".mol", ".parquet")
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")

PARQUET_MAGIC = b"PAR1"

_QUOTED = (",", ";", "|")  # delimiters that come with CSV's quotes whatever the suffix
_WITH_QUOTES = (".csv", ".tsv", ".tab")
_LISTS = (".smi", ".smiles", ".ism")  # split at any white space
_NAMES = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": "", "whitespace": "", " ": ""}
_MOL_BLOCK = re.compile(rb"^.*(?:\r?\n.*){3}V[23]000\s*$", re.MULTILINE)
_SPREADSHEETS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
_SAMPLE = 20  # lines from which a delimiter is guessed
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def format_of(name: str) -> str:
    """The suffix of a file name in lower case, without that of a compression: `.csv` for `molecules.csv.gz`."""
    path = Path(name.lower())
    return Path(path.stem).suffix if path.suffix in COMPRESSIONS else path.suffix


def is_web_page(beginning: str) -> bool:
    """Whether a file that begins with this text is HTML or XML, which servers send in place of a missing file."""
    return beginning.lstrip().lower().startswith(("<!doctype", "<html", "<?xml"))


def detect(name: str, head: bytes, options: ReadOptions) -> Detected:
    """Finds out how a file is read.

    Args:
        name: Name of the file.
        head: Its first bytes, decompressed.
        options: What the user says about it.

    Returns:
        Layout and names. Of a Parquet or SDF file only the form: `detect_parquet` and `data_names` read the rest.

    Raises:
        DataError: If the file has no molecules, is not a table of molecules, or has no or several possible SMILES columns.
        ConfigError: If an option cannot be used.
    """
    if head.startswith(PARQUET_MAGIC):
        return Detected(Layout(PARQUET, 0, 0, has_header=False), ())
    _check_text(name, head)
    suffix = format_of(name)
    if suffix in (".sdf", ".sd", ".mol") or _MOL_BLOCK.match(head):
        return Detected(Layout(SDF, 0, 1, has_header=False, standardise=options.standardise), ())
    line_end = "\n" if b"\n" in head or b"\r" not in head else "\r"
    text = head.decode("utf-8-sig", "backslashreplace")
    found = _detect_text(name, suffix, text.replace("\r", "\n") if line_end == "\r" else text, options)
    return found._replace(layout=found.layout._replace(line_end=line_end))


def _check_text(name: str, head: bytes) -> None:
    if not head.strip():
        raise DataError(f"{name} holds no molecules. Leave the file out, or download it again.")
    if head.startswith(_UTF16):
        raise DataError(f"{name} is UTF-16 text. Save it as UTF-8.")
    if head.startswith(_SPREADSHEETS):
        raise DataError(f"{name} is a spreadsheet or an archive, not text. Open it and save the table as CSV.")
    if is_web_page(head[:100].decode("utf-8-sig", "replace")):
        raise DataError(
            f"{name} is a web page, not a list of molecules, perhaps a server's answer to a missing file. Download the file again."
        )
    if format_of(name) == ".parquet":
        raise DataError(
            f"{name} cannot be read: it is not a Parquet file. It is damaged or has the wrong suffix: download or rename it."
        )


def _detect_text(name: str, suffix: str, text: str, options: ReadOptions) -> Detected:
    lines = text.split("\n", _SAMPLE)[:_SAMPLE]
    first = lines[0].rstrip("\r")
    has_quotes = suffix in _WITH_QUOTES

    def split(delimiter: str) -> list[str]:
        return _first_row(text if delimiter and (has_quotes or delimiter in _QUOTED) else first, delimiter, has_quotes)

    delimiters = [_delimiter(options.delimiter)] if options.delimiter is not None else _candidates(suffix, first)
    if options.header is not False:
        for delimiter in delimiters:
            names = split(delimiter)
            if _has_column(names, options.smiles):
                index = find_smiles_column(name, names) if options.smiles is None else column_index(name, names, options.smiles)
                return _detected(has_quotes, delimiter, index, names, has_header=True)
    has_header = has_quotes if options.header is None else options.header
    best = max(delimiters, key=lambda one: _agreement(lines, one, has_quotes)) if has_quotes or options.smiles else delimiters[0]
    fields = split(best)
    is_list = not has_header and (not has_quotes or len(fields) == 1)
    number = 1 if options.smiles is None and is_list else _number(options.smiles)
    if number is None or number > len(fields):
        raise _no_column(name, fields, options, has_header)
    if has_header:
        return _detected(has_quotes, best, number - 1, fields, has_header=True)
    if not best and number == 1:  # the rest of a line of .smi is its name
        return Detected(Layout(SPLIT, 0, min(len(fields), 2), has_header=False), ("smiles", "id"))
    names = ["smiles" if i == number else f"column{i}" for i in range(1, len(fields) + 1)]
    if not best and number == len(fields) == 2:
        names[0] = "id"
    return _detected(has_quotes, best, number - 1, names, has_header=False)


def _no_column(name: str, fields: Sequence[str], options: ReadOptions, has_header: bool) -> DataError:
    column = "'smiles'" if options.smiles is None else repr(options.smiles)
    if options.header is False:
        return DataError(
            f"{name} is read without a header, so the SMILES column has a number, counted from 1. Its first line has {len(fields)} "
            f"columns: {listed(fields)}. Name the number with --smiles; found {options.smiles!r}."
        )
    hint = " If the first line is a molecule, also pass --no-header, and the number of the column." if has_header else ""
    return DataError(
        f"{name} has no column {column}; its first line is {listed(fields)}. Name the SMILES column with --smiles.{hint}"
    )


def _number(column: str | None) -> int | None:
    return int(column) if column is not None and column.isdecimal() and int(column) > 0 else None


def _detected(has_quotes: bool, delimiter: str, index: int, names: Sequence[str], *, has_header: bool) -> Detected:
    form = DELIMITED if delimiter and (has_quotes or delimiter in _QUOTED) else SPLIT
    return Detected(Layout(form, index, len(names), has_header, delimiter), names)


def _delimiter(text: str) -> str:
    delimiter = _NAMES.get(text.lower(), text)
    if len(delimiter) > 1 or delimiter in ('"', "\r", "\n"):
        raise ConfigError(f"delimiter must be one character, tab or space, found {text!r}.")
    return delimiter


def _candidates(suffix: str, first: str) -> list[str]:
    """Delimiters that a file may have, the most likely one first."""
    if suffix in _WITH_QUOTES:
        return [",", ";", "\t", "|"] if suffix == ".csv" else ["\t", ",", ";", "|"]
    if "\t" in first and (suffix not in _LISTS or smiles_columns(first.split("\t"))):
        return ["\t", *_QUOTED]
    return ["", *_QUOTED]


def _first_row(text: str, delimiter: str, has_quotes: bool) -> list[str]:
    """The cells of the first row."""
    if not delimiter:
        return text.split()
    if not has_quotes and delimiter not in _QUOTED:
        return text.split(delimiter)
    try:
        return next(csv.reader(text.splitlines(keepends=True), delimiter=delimiter), [])
    except csv.Error:
        return text.split("\n", 1)[0].split(delimiter)


def _has_column(names: Sequence[str], column: str | None) -> bool:
    if column is None:
        return bool(smiles_columns(names))
    wanted = column.strip().lower()
    return any(name.strip().lower() == wanted for name in names) or (_number(column) is not None and bool(smiles_columns(names)))


def _agreement(lines: Sequence[str], delimiter: str, has_quotes: bool) -> tuple[float, int]:
    """For a file without a known column: the fraction of the first lines with as many fields as the first line, and this number."""
    widths = [len(_first_row(line, delimiter, has_quotes)) for line in lines if line.strip()]
    same = sum(width == widths[0] for width in widths) / len(widths)
    return (same if widths[0] > 1 and delimiter else 0.0, widths[0])
