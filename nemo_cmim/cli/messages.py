"""Errors and warnings of the package as lines on a terminal: in one line, and with options instead of Python arguments."""

from __future__ import annotations

import argparse
import itertools
import re
import shlex
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

__all__ = ["one_line", "reason_of", "warnings_as_lines", "with_options"]

# of an argument in a message, such as `kind="mean"`: quoted, a tuple, or a word without the punctuation that may follow it
_VALUE = r"""(?P<value>"[^"]*"|'[^']*'|\([^()]*\)|[^\s"'(),;]*[^\s"'(),;.:])"""

_QUOTED = r"(?<![\w=])'[^']*'"  # but not the value of an argument, or an apostrophe


def one_line(text: object) -> str:
    """The text with its lines joined."""
    return " ".join(line.strip() for line in str(text).splitlines() if line.strip())


def reason_of(error: Exception) -> str:
    """The message of an error in one line. For an error of the operating system: the name of the file, and the reason."""
    if isinstance(error, OSError) and error.filename is not None:
        return one_line(f"{error.filename}: {error.strerror}")
    return one_line((isinstance(error, OSError) and error.strerror) or error)


def with_options(text: str, parser: argparse.ArgumentParser | None, given: Sequence[str] = ()) -> str:
    """Replaces arguments of Python functions by the options of a command: `on_invalid="nan"` by `--on-invalid nan`.

    What a message quotes in single quotes, such as a SMILES, stays as it is, except the value of an argument.

    Args:
        text: A message.
        parser: The parser of the command; None: the text stays as it is.
        given: Texts of the user that also stay as they are, such as names of files.
    """
    names = "|".join(re.escape(one) for one in sorted(given, key=len, reverse=True) if "=" in one)
    kept = re.compile(rf"{_QUOTED}|{names}" if names else _QUOTED)
    originals = kept.findall(text)
    numbers = itertools.count()
    text = kept.sub(lambda _: f"\0{next(numbers)}\0", text)
    for action in parser._actions if parser else ():
        if action.option_strings and action.help != argparse.SUPPRESS:
            text = _with_option(text, action)
    return re.sub("\0(\\d+)\0", lambda match: originals[int(match[1])], text)


def _with_option(text: str, action: argparse.Action) -> str:
    option, name = action.option_strings[-1], re.escape(action.dest)
    if option != f"--{action.dest}":  # what other commands call it
        text = re.sub(rf"(?<!\S)--{name}(?![\w-])", option, text)

    def call(match: re.Match[str]) -> str:
        value = match["value"]
        if action.nargs == 0:  # a flag
            return option if value == str(action.const) else match[0]
        if value in ("None", "False", "True"):
            return match[0]
        if value.startswith("("):
            items = [item.strip().strip("'\"") for item in value[1:-1].split(",") if item.strip()]
            return f"{option} {' '.join(items) if action.nargs == '+' else ','.join(items)}"
        return f"{option} {shlex.quote(value[1:-1])}" if value[0] in "'\"" else f"{option} {value}"

    text = re.sub(rf"(?<![\w.\-/'\"]){name}={_VALUE}", call, text)
    ending = r"(?![\w.=(/])" if "_" in action.dest else r"(?=\s+must\b)"  # a name with _ is not an English word
    return re.sub(rf"(?<![\w.\-/'\"]){name}{ending}", option, text)


@contextmanager
def warnings_as_lines(command: str, parser: argparse.ArgumentParser) -> Iterator[None]:
    """Context in which a warning is one line on stderr, without the source line that gave it."""
    before = warnings.formatwarning

    def line(message: Warning | str, *place: object) -> str:
        return f"{command}: warning: {with_options(one_line(message), parser)}\n"

    warnings.formatwarning = line  # type: ignore[assignment]
    try:
        yield
    finally:
        warnings.formatwarning = before
