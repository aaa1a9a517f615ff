"""Lists of files to download, in the formats of ZINC's tranche browser: `.uri`, `.wget`, curl; plain or .gz."""

from __future__ import annotations

import gzip
import re
import shlex
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import urlsplit

from ..errors import ConfigError, DataError
from .tranches import BASE, Tranche, select

__all__ = ["FORMS", "Source", "UrlList", "list_lines", "read_url_list", "sources_of"]

FORMS = ("uri", "wget", "curl", "codes")


class Source(NamedTuple):
    """A file to download.

    Attributes:
        url: Its address, http or https.
        file: Path of the downloaded file, relative to the folder of the download.
    """

    url: str
    file: str


class UrlList(NamedTuple):
    """The `sources` of a list in order, each URL once, and the number of repeated lines that were skipped."""

    sources: list[Source]
    duplicates: int


def list_lines(tranches: Iterable[Tranche], form: str, extension: str = "smi", base: str = BASE) -> Iterator[str]:
    """The lines of a list in one of the formats `FORMS`."""
    if form not in FORMS:
        raise ConfigError(f"Unknown list format {form!r}. Choices: {', '.join(FORMS)}.")
    for tranche in tranches:
        url, file = tranche.url(extension, base), tranche.file(extension)
        forms = {
            "uri": url,
            "wget": f"mkdir -pv {tranche.code[:2]} && wget {url} -O {file}",
            "curl": f"curl {url} -O {tranche.code}.{extension}",
            "codes": tranche.code,
        }
        yield forms[form]


def read_url_list(path: str | Path, extension: str = "smi", base: str = BASE) -> UrlList:
    """Reads a list with one URL, wget or curl command of ZINC, or tranche code per line.

    The file of a URL is that of wget's `-O` or curl's `-o` option, otherwise that of ZINC's scripts (`BA/BAAA.smi`). Empty lines
    and lines that start with `#` are skipped.

    Args:
        path: The list; plain text or .gz.
        extension: For codes: `smi` or `txt`.
        base: For codes: URL of the folder of tranches.

    Raises:
        DataError: If the file is missing, damaged or empty, or a line has no valid URL.
    """
    path = Path(path)
    sources: dict[str, Source] = {}
    duplicates = 0
    for number, line in enumerate(_text_of(path).splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            source = _source_of(line.strip(), extension, base)
        except ValueError as error:
            raise DataError(f"{path}, line {number} ({line.strip()[:100]!r}): {error}. Correct or remove this line.") from error
        duplicates += source.url in sources
        sources.setdefault(source.url, source)
    if not sources:
        raise DataError(f"{path} contains no URL. Write a list with: nemo-cmim tranches -o {path}")
    return UrlList(list(sources.values()), duplicates)


def sources_of(
    words: Iterable[str], extension: str = "smi", base: str = BASE, *, include_absent: bool = False
) -> tuple[list[Source], dict[str, int]]:
    """The files given by lists and conditions, in order, and the number of repeated lines of each list.

    Args:
        words: Paths of lists (see `read_url_list`), and conditions (see `tranches.select`). Tranches must meet all conditions.
        extension: `smi` or `txt`, for conditions and codes.
        base: URL of the folder of tranches, for conditions and codes.
        include_absent: Include tranches that are known not to exist.

    Raises:
        DataError: If a list cannot be read.
        ConfigError: If a word is neither a file nor a condition.
    """
    sources: list[Source] = []
    duplicates: dict[str, int] = {}
    conditions = []
    for word in words:
        if Path(word).is_file():
            found = read_url_list(word, extension, base)
            sources += found.sources
            duplicates[word] = found.duplicates
        elif re.search(r"\.(uri|wget|curl|txt|sh|gz)$", word) or "/" in word:
            raise DataError(f"The list {word} is missing; check the path.")
        else:
            conditions.append(word)
    if conditions:
        chosen = select(conditions, include_absent=include_absent)
        sources += [_checked(tranche.url(extension, base), tranche.file(extension)) for tranche in chosen]
    once: dict[str, Source] = {}
    for source in sources:
        once.setdefault(source.url, source)
    return list(once.values()), duplicates


def _text_of(path: Path) -> str:
    if not path.is_file():
        raise DataError(f"The list {path} is missing; check the path.")
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    except (EOFError, OSError, UnicodeDecodeError, zlib.error) as error:
        raise DataError(f"The list {path} cannot be read: {error}. Download the list again.") from error


def _source_of(line: str, extension: str, base: str) -> Source:
    """The source of one line. The ValueError for an invalid line does not name the line."""
    words = shlex.split(line)
    if len(words) == 1:
        if len(line) == 4:
            tranche = Tranche(line)
            return _checked(tranche.url(extension, base), tranche.file(extension))
        return _checked(line, _file_of(line))
    program = next((word for word in words if word in ("wget", "curl")), None)
    urls = [word for word in words if "://" in word]
    if program is None or len(urls) != 1:
        raise ValueError("the line is neither one URL nor a wget or curl command with one URL")
    # ZINC's `curl URL -O NAME` gives no folder (and curl's -O has no argument): the file is that of the wget command
    option = "-O" if program == "wget" else "-o"
    file = words[words.index(option) + 1] if option in words[:-1] else _file_of(urls[0])
    return _checked(urls[0], file)


def _file_of(url: str) -> str:
    """The file of a URL in ZINC's scripts, below the folder of its first letters. For other servers, the name in the URL."""
    path = urlsplit(url).path
    if match := re.search("/[23]D/(.+)", path):
        return match[1]
    name = PurePosixPath(path).name
    return f"{name[:2]}/{name}" if Tranche.of_file(name) else name


def _checked(url: str, file: str) -> Source:
    address = urlsplit(url)
    if address.scheme not in ("http", "https") or not address.netloc:
        raise ConfigError(f"{url!r} is not an http or https URL")
    file = str(PurePosixPath(file))
    if (
        any(name.startswith((".", "/")) for name in PurePosixPath(file).parts)
        or file == "."
        or "\\" in file
        or not file.isprintable()
    ):
        raise ConfigError(f"{file!r} is not a path inside the folder of the download")
    if file.endswith((".part", ".part.json")) or file == "downloads.json":
        raise ConfigError(f"{file!r} is a name that the download itself uses")
    return Source(url, file)
