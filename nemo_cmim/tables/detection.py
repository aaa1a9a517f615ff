"""Finds out how a file is read, from its first bytes and its name."""

from __future__ import annotations

import codecs
import csv
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from string import whitespace

from ..errors import ConfigError, DataError
from .columns import column_index, find_smiles_column, listed, named, smiles_columns
from .layout import DELIMITED, PARQUET, SDF, SPLIT, Detected, Layout, ReadOptions
from .sources import compression_of
from .text import fields_of

__all__ = ["COMPRESSIONS", "FORMATS", "PARQUET_MAGIC", "detect", "format_of", "is_web_page"]

FORMATS = (".smi", ".smiles", ".ism", ".cxsmiles", ".txt", ".csv", ".tsv", ".tab", ".sdf", ".sd", ".mol", ".parquet")
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")

PARQUET_MAGIC = b"PAR1"

_QUOTED = (",", ";", "|")  # delimiters that come with CSV's quotes whatever the suffix
_WITH_QUOTES = (".csv", ".tsv", ".tab")
_LISTS = (".smi", ".smiles", ".ism", ".cxsmiles", ".cxsmi")  # split at any white space
_NAMES = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": "", "whitespace": "", " ": ""}
_MOL_BLOCK = re.compile(rb"[^\r\n]*(?:(?:\r\n|\n|\r)[^\r\n]*){3}V[23]000[ \t]*(?:[\r\n]|\Z)")
_STRUCTURES = (".sdf", ".sd", ".mol")
_OTHER_COMPRESSIONS = (b"\x1f\x9d", b"\x5d\x00\x00")  # .Z and .lzma
_SPREADSHEETS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
_SAMPLE = 20  # lines from which a delimiter is guessed
_QUOTED_CELL = re.compile(rb'"[^"]*"')
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_EXCELS_DELIMITER = re.compile(r'"?sep=(?P<delimiter>.)"?', re.IGNORECASE)  # a first line that Excel understands


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
        _check_no_text_options(name, options, "a Parquet")
        return Detected(Layout(PARQUET, 0, 0, has_header=False), ())
    _check_text(name, head)
    suffix = format_of(name)
    if suffix in _STRUCTURES or _MOL_BLOCK.match(head):
        _check_no_text_options(name, options, "an SDF")
        if options.smiles is not None:
            raise ConfigError(f"{name} has no SMILES column: RDKit writes the SMILES of its structures. Leave out --smiles.")
        layout = Layout(SDF, 0, 1, has_header=False, line_end=_line_end(head), standardise=options.standardise)
        return Detected(layout, ())
    line_end = _line_end(head if suffix in _LISTS else _QUOTED_CELL.sub(b"", head))
    text = head.decode("utf-8-sig", "backslashreplace")
    preamble, delimiter, text = _without_preamble(text.replace("\r", "\n") if line_end == "\r" else text)
    if options.delimiter is None and delimiter:
        options = dataclasses.replace(options, delimiter=delimiter)
    found = _detect_text(name, suffix, text, preamble + 1, options)
    return found._replace(layout=found.layout._replace(line_end=line_end, preamble=preamble))


def _line_end(head: bytes) -> str:
    """The character that ends most lines."""
    return "\r" if head.count(b"\r") - head.count(b"\r\n") > head.count(b"\n") else "\n"


def _without_preamble(text: str) -> tuple[int, str, str]:
    """Number of lines before the header or the first row, the delimiter that they name, and the text after them."""
    number, delimiter = 0, ""
    first, _, rest = text.partition("\n")
    while rest.strip(whitespace):
        match = _EXCELS_DELIMITER.fullmatch(first.strip("\r "))
        if first.strip(whitespace) and not match:
            break
        delimiter = match["delimiter"] if match else delimiter
        number, text = number + 1, rest
        first, _, rest = text.partition("\n")
    return number, delimiter, text


def _check_no_text_options(name: str, options: ReadOptions, kind: str) -> None:
    for option, value in (("delimiter", options.delimiter), ("header", options.header)):
        if value is not None:
            raise ConfigError(f"{option}={value!r} is for text files, but {name} is {kind} file. Leave it out.")


def _check_text(name: str, head: bytes) -> None:
    if not head.removeprefix(codecs.BOM_UTF8).strip():
        raise DataError(f"{name} holds no molecules. Leave the file out, or download it again.")
    if compression_of(head):
        raise DataError(f"{name} is compressed twice. Decompress it once.")
    if head.startswith(_OTHER_COMPRESSIONS):
        raise DataError(
            f"{name} is compressed, but not by gzip, bzip2, xz or Zstandard. Decompress it, or compress it by one of these."
        )
    if head.startswith(_UTF16) or head[:2].count(0) == 1 or head[:3] == bytes(3):  # a mark, or an ASCII character
        raise DataError(f"{name} is UTF-16 or UTF-32 text. Save it as UTF-8.")
    if head.startswith(_SPREADSHEETS) or head[257:262] == b"ustar":
        raise DataError(f"{name} is a spreadsheet or an archive, not text. Open it and save the table as CSV.")
    if is_web_page(head[:100].decode("utf-8-sig", "replace")):
        raise DataError(
            f"{name} is a web page, not a list of molecules, perhaps a server's answer to a missing file. Download the file again."
        )
    if format_of(name) == ".parquet":
        raise DataError(
            f"{name} cannot be read: it is not a Parquet file. It is damaged or has the wrong suffix: download or rename it."
        )


def _detect_text(name: str, suffix: str, text: str, first_line: int, options: ReadOptions) -> Detected:
    lines = text.split("\n", _SAMPLE)[:_SAMPLE]
    first = lines[0].rstrip("\r")
    is_table = suffix in _WITH_QUOTES

    def has_quotes(delimiter: str) -> bool:
        is_quoted = first.startswith('"') or f'{delimiter}"' in first
        return bool(delimiter) and (is_table or delimiter in _QUOTED or is_quoted)

    def split(delimiter: str) -> list[str]:
        return _quoted_cells(text, delimiter) if has_quotes(delimiter) else _split(first, delimiter)

    def check_header(delimiter: str) -> None:
        if not has_quotes(delimiter):
            return
        try:
            _first_record(text, delimiter, strict=True)
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise DataError(
                    f"{name}, line {first_line}: a quotation mark opens a cell of the header that is not closed. Close it, or double the "
                    "quotation marks inside the cell and quote the complete cell."
                ) from error

    def detected(delimiter: str, index: int, names: Sequence[str], *, has_header: bool) -> Detected:
        if has_header:
            check_header(delimiter)
        form = DELIMITED if has_quotes(delimiter) else SPLIT
        return Detected(Layout(form, index, len(names), has_header, delimiter), named(names))

    delimiters = [_delimiter(options.delimiter)] if options.delimiter is not None else _candidates(suffix, first)
    if options.header is not False:
        for delimiter in delimiters:
            names = split(delimiter)
            if _has_column(names, options.smiles):
                index = find_smiles_column(name, names) if options.smiles is None else column_index(name, names, options.smiles)
                return detected(delimiter, index, names, has_header=True)
    has_header = is_table if options.header is None else options.header
    guess = is_table or options.smiles is not None
    best = max(delimiters, key=lambda one: _agreement(lines, one, has_quotes(one))) if guess else delimiters[0]
    fields = split(best)
    is_list = not has_header and (not is_table or len(fields) == 1)
    number = 1 if options.smiles is None and is_list else _number(options.smiles)
    if number is None or number > len(fields):
        check_header(best)
        raise _no_column(name, fields, options, has_header)
    if options.smiles is None and len(fields) > 1 and fields[0].isdecimal():
        raise DataError(
            f"{name} is read as a list of SMILES, but its first line begins with the number {fields[0]}: {listed(fields)}. Name the number "
            "of the SMILES column with --smiles, for example --smiles 2."
        )
    if has_header:
        if options.header is None and _is_molecule(fields[number - 1]):
            raise DataError(
                f"The column {number} of {name} is called {fields[number - 1]!r}, which is a molecule. If the file has no header, pass "
                "--no-header; if it has one, pass this name with --smiles."
            )
        return detected(best, number - 1, fields, has_header=True)
    if not best and number == 1:  # the rest of a line of .smi is its name
        return Detected(Layout(SPLIT, 0, min(len(fields), 2), has_header=False), ("smiles", "id"))
    names = ["smiles" if i == number else f"column{i}" for i in range(1, len(fields) + 1)]
    if not best and number == len(fields) == 2:
        names[0] = "id"
    return detected(best, number - 1, names, has_header=False)


def _is_molecule(text: str) -> bool:
    from ..molecules import is_valid

    return is_valid(text)


def _no_column(name: str, fields: Sequence[str], options: ReadOptions, has_header: bool) -> DataError:
    column = "'smiles'" if options.smiles is None else repr(options.smiles)
    if options.header is False:
        return DataError(
            f"{name} is read without a header, so the SMILES column has a number, counted from 1. Its first line has {len(fields)} "
            f"columns: {listed(fields)}. Name the number with --smiles"
            + ("." if options.smiles is None else f"; found {options.smiles!r}.")
        )
    hint = " If the first line is a molecule, also pass --no-header, and the number of the column." if has_header else ""
    return DataError(
        f"{name} has no column {column}; its first line is {listed(fields)}. Name the SMILES column with --smiles.{hint}"
    )


def _number(column: str | None) -> int | None:
    return int(column) if column is not None and column.isdecimal() and int(column) > 0 else None


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


def _split(line: str, delimiter: str) -> list[str]:
    return line.split(delimiter) if delimiter else fields_of(line)


def _first_record(text: str, delimiter: str, *, strict: bool) -> list[str]:
    return next(csv.reader((f"{line}\n" for line in text.split("\n")), delimiter=delimiter, strict=strict), [])


def _quoted_cells(text: str, delimiter: str) -> list[str]:
    """The cells of the first row, which may be quoted and extend over several lines."""
    try:
        return _first_record(text, delimiter, strict=False)
    except csv.Error:
        return text.split("\n", 1)[0].split(delimiter)


def _has_column(names: Sequence[str], column: str | None) -> bool:
    if column is None:
        return bool(smiles_columns(names))
    wanted = column.strip().lower()
    return any(name.strip().lower() == wanted for name in names) or (_number(column) is not None and bool(smiles_columns(names)))


def _agreement(lines: Sequence[str], delimiter: str, has_quotes: bool) -> tuple[float, int]:
    """For a file without a known column: the fraction of the first lines with as many fields as the first line, and this number."""
    cells = (_quoted_cells(line, delimiter) if has_quotes else _split(line, delimiter) for line in lines if line.strip(whitespace))
    widths = [len(row) for row in cells]
    same = sum(width == widths[0] for width in widths) / len(widths)
    return (same if widths[0] > 1 and delimiter else 0.0, widths[0])
