"""ZINC's 2D tranches: the meaning of their four-letter codes, and selection by their properties.

A code such as `BAAA` gives a bin of molecular weight, a bin of logP, the reactivity and the purchasability of the molecules in a file.
Conditions are words such as `mw<=500`, `logp>-1`, `reactivity=reactive`, `purchasability=A,B` or `subset=lead-like`; a tranche must
meet all of them. An edge belongs to the bin below it, so `<` means `<=` and `>=` means `>`. Named levels include those before them.
"""

from __future__ import annotations

import difflib
import itertools
import math
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError

__all__ = ["BASE", "BINS", "EDGES", "MEANINGS", "PAPER", "Tranche", "describe", "select"]

BASE = "http://files.docking.org/2D"
PAPER = "mw<=500 logp<=5 reactivity=reactive purchasability=annotated"  # of MegaMolBART, MolMIM and cMIM

BINS = "ABCDEFGHIJK"
EDGES: dict[str, Sequence[float]] = {
    "mw": (200, 250, 300, 325, 350, 375, 400, 425, 450, 500),  # Da
    "logp": (-1, 0, 1, 2, 2.5, 3, 3.5, 4, 4.5, 5),  # Crippen
}
MEANINGS = {
    "reactivity": {"A": "anodyne", "B": "bother", "C": "clean", "E": "mild", "G": "reactive", "I": "hot"},
    "purchasability": {
        "A": "in stock",
        "B": "in stock",
        "C": "in stock via agent",
        "D": "make on demand",
        "E": "boutique",
        "F": "annotated, not for sale",
    },
}
_LETTERS = {"mw": BINS, "logp": BINS, **{name: "".join(meanings) for name, meanings in MEANINGS.items()}}
_LEVELS = {
    "reactivity": {"anodyne": "A", "bother": "AB", "clean": "ABC", "standard": "ABCE", "reactive": "ABCEG", "hot": "ABCEGI"},
    "purchasability": {"in-stock": "AB", "agent": "ABC", "wait-ok": "ABCD", "boutique": "ABCDE", "annotated": "ABCDEF"},
}
# Letters of molecular weight and logP, from zincdl 0.1.0. In openpharmacophore, lead-like and lugs have logP up to H.
_SUBSETS = {
    "drug-like": ("BCDEFGHIJ", "ABCDEFGHIJ"),
    "shards": ("A", BINS),
    "fragments": ("AB", "ABCDEFG"),
    "flagments": ("BCD", "ABCDEFG"),
    "goldilocks": ("CDE", "DEF"),
    "big-n-greasy": ("JK", "IJK"),
    "lead-like": ("CDE", "ABCDEFG"),
    "lugs": ("EFGHI", "ABCDEFGHI"),
}
# The 205 of the paper's 3,000 codes that ZINC's downloader did not list, by their last two letters: taken from
# NVIDIA/MegaMolBART's list of 2,795 (@b8f29f80, Apache-2.0). ZINC changes: a different list of its downloader has 8 of them
# (CBBC FBCC HAAC HDBC ICCC IIBC IICC JGBC). Nothing is known about codes outside these 3,000.
_ABSENT = {
    "AC": "AJ DA GB HA",
    "AD": "AJ",
    "BA": "AJ",
    "BB": "AJ",
    "BC": "AA AB AG AH AI AJ BH BI BJ CA CB CJ DA DB DC DD EA EB ED EF FA FB FC FH FI GA GB GC GD GE GF GH "
    "HA HB HC HD HF HG HH HJ IA IB IC ID IE IF IG II JA JB JE JF JG",
    "BD": "AH AI AJ",
    "BF": "AI",
    "CA": "AJ",
    "CB": "AJ",
    "CC": "AA AB AC AE AF AG AH AI AJ BA BB BC BH BJ CB CC CH CJ DA DB DC DD DE DF DG DH DI DJ EA EB EC ED EF EH EI EJ "
    "FA FB FC FD FE FF FG FH FI FJ GA GB GC GD GE GF GH GI GJ HA HB HC HD HE HF HI HJ IA IB IC IE IF IG IH II "
    "JA JB JC JE JG JH JI",
    "CD": "AA AI AJ",
    "CE": "AJ",
    "CF": "AI AJ",
    "EC": "AA AI AJ BA DA DC EA EB EC FB FD GB GC GD HA HB IA IB ID JC JG JH",
    "ED": "AJ",
    "GB": "AJ",
    "GC": "AI AJ BA CA DA DB DC EA EB EC FA FB FC FH GB GC GD HA HB HF HG IA IB IC IF IJ JA JE",
    "GD": "AI AJ",
    "GF": "AJ",
}
_LISTED = re.compile("[A-J]{2}[ABCEG][A-F]")  # the 3,000 codes

_CODE = re.compile("".join(f"[{letters}]" for letters in _LETTERS.values()))
_FILE = re.compile(rf"({_CODE.pattern})\.(smi|txt)(\.gz|\.xz)?")
_CONDITION = re.compile(r"([^<>=]*)(<=|>=|<|>|=)(.*)")


@dataclass(frozen=True, order=True)
class Tranche:
    """One tranche.

    Attributes:
        code: Four letters: molecular weight, logP, reactivity, purchasability.
    """

    code: str

    def __post_init__(self) -> None:
        if len(self.code) != 4:
            raise ConfigError(f"The code of a 2D tranche has four letters, such as BAAA; found {self.code!r}.")
        for letter, (name, letters) in zip(self.code, _LETTERS.items()):
            if letter not in letters:
                raise ConfigError(f"{self.code!r} is not a tranche code: its letter of {name} is {letter!r}, not one of {letters}.")

    @classmethod
    def of_file(cls, path: str | Path) -> Tranche | None:
        """The tranche of a file name (`BAAA.smi`, `BAAA.txt`, each also with .gz or .xz); None for other names."""
        match = _FILE.fullmatch(Path(path).name)
        return cls(match[1]) if match else None

    @property
    def molecular_weight(self) -> tuple[float, float]:
        """Bin in Da: above the first number, up to and including the second. ZINC is not exact: 0.7 % of `J` are above 500."""
        return _bin("mw", self.code[0], 0.0)

    @property
    def logp(self) -> tuple[float, float]:
        """Bin of Crippen logP: above the first number, up to and including the second."""
        return _bin("logp", self.code[1], -math.inf)

    @property
    def exists(self) -> bool | None:
        """Whether ZINC's downloader listed the tranche; None if unknown."""
        if not _LISTED.fullmatch(self.code):
            return None
        return self.code[:2] not in _ABSENT.get(self.code[2:], "").split()

    def file(self, extension: str = "smi") -> str:
        """Path of the file in ZINC's scripts: `BA/BAAA.smi`."""
        return f"{self.code[:2]}/{self.code}.{extension}"

    def url(self, extension: str = "smi", base: str = BASE) -> str:
        """URL of the file. `txt` files have more columns than `smi` files."""
        return f"{base.rstrip('/')}/{self.file(extension)}"


def _bin(name: str, letter: str, lowest: float) -> tuple[float, float]:
    edges = (lowest, *EDGES[name], math.inf)
    index = BINS.index(letter)
    return edges[index], edges[index + 1]


def select(conditions: str | Iterable[str] = PAPER, *, include_absent: bool = False) -> list[Tranche]:
    """The tranches that meet all conditions, in the order of their codes. A property without a condition can have any value.

    Args:
        conditions: See the docstring of the module. If some words are codes, only these tranches are searched.
        include_absent: Include tranches that are known not to exist. Tranches given by their codes are always included.

    Raises:
        ConfigError: If a word is not a condition or code, a limit is not an edge of a bin, or no tranche meets the conditions.
    """
    text = conditions if isinstance(conditions, str) else " ".join(conditions)
    words = re.sub(r"\s*(<=|>=|[<>=,])\s*", r"\1", text).split()
    letters = {name: set(all_letters) for name, all_letters in _LETTERS.items()}
    codes = set()
    for word in words:
        if match := _CONDITION.fullmatch(word):
            for name, allowed in _allowed(word, match[1].lower(), match[2], match[3]):
                letters[name] &= set(allowed)
        elif _CODE.fullmatch(word.upper()):
            codes.add(word.upper())
        else:
            raise ConfigError(
                f"{word!r} is neither a condition, such as mw<=500 or reactivity=standard, nor the code of a tranche, such as BAAA. "
                "In a shell, put conditions in quotes."
            )
    possible = codes or {"".join(code) for code in itertools.product(*letters.values())}
    chosen = [Tranche(code) for code in sorted(possible) if all(c in letters[name] for c, name in zip(code, letters))]
    found = [tranche for tranche in chosen if codes or include_absent or tranche.exists is not False]
    if not found:
        raise ConfigError(f"No tranche that is known to exist meets {text!r}. Remove a condition.")
    return found


def _allowed(word: str, name: str, sign: str, value: str) -> Iterator[tuple[str, Iterable[str]]]:
    """The properties that a condition limits, and their allowed letters."""
    if name == "subset":
        if sign != "=" or value.lower() not in _SUBSETS:
            raise ConfigError(f"{word!r}: write subset=NAME. {_choices(value, _SUBSETS)}")
        yield from zip(("mw", "logp"), _SUBSETS[value.lower()])
    elif name not in _LETTERS:
        raise ConfigError(f"{word!r}: there is no property {name!r}. {_choices(name, [*_LETTERS, 'subset'])}")
    elif sign == "=":
        yield name, itertools.chain.from_iterable(_named_letters(word, name, one) for one in value.split(","))
    elif name in EDGES:
        index = _index_of_edge(word, name, value) + 1
        yield name, BINS[:index] if sign.startswith("<") else BINS[index:]
    else:
        raise ConfigError(f"{word!r}: write {name}=LETTERS or {name}=LEVEL. {_choices(value, _LEVELS[name])}")


def _named_letters(word: str, name: str, value: str) -> str:
    levels = _LEVELS.get(name, {})
    if value.lower() in levels:
        return levels[value.lower()]
    if len(value) == 1 and value.upper() in _LETTERS[name]:
        return value.upper()
    more = _choices(value, levels) if levels else f"For limits write {name}<=NUMBER or {name}>NUMBER."
    raise ConfigError(f"{word!r}: {value!r} is not a value of {name}; its letters are {', '.join(_LETTERS[name])}. {more}")


def _choices(value: str, names: Iterable[str]) -> str:
    names = list(names)
    close = difflib.get_close_matches(value.lower(), names, 1)
    return (f"Did you mean {close[0]}? " if close else "") + f"Choices: {', '.join(names)}."


def _index_of_edge(word: str, name: str, value: str) -> int:
    edges = EDGES[name]
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)", value):
        raise ConfigError(
            f"{word!r}: {value!r} is not a number. The limits of {name} are {', '.join(f'{edge:g}' for edge in edges)}."
        )
    index = bisect_left(edges, float(value))
    if index == len(edges) or edges[index] != float(value):
        nearest = " and ".join(f"{edge:g}" for edge in edges[max(index - 1, 0) : index + 1])
        raise ConfigError(
            f"{word!r}: {value} is not an edge between tranches; the nearest: {nearest}. Choose an edge, and filter with nemo-cmim prepare."
        )
    return index


def describe(tranches: Iterable[Tranche]) -> Iterator[str]:
    """Yields a header and one line per tranche with the meaning of its code."""
    row = "{:6}{:>12}{:>10}  {:<13}{:<25}{}".format
    yield row("code", "weight (Da)", "logP", "reactivity", "purchasability", "exists")
    known = {True: "yes", False: "no", None: "not known"}
    for tranche in tranches:
        reactivity, purchasability = (meanings[c] for c, meanings in zip(tranche.code[2:], MEANINGS.values()))
        weight, logp = _range_text(tranche.molecular_weight), _range_text(tranche.logp)
        yield row(tranche.code, weight, logp, reactivity, purchasability, known[tranche.exists])


def _range_text(limits: tuple[float, float]) -> str:
    low, high = limits
    if high == math.inf:
        return f">{low:g}"
    return f"<={high:g}" if low in (0.0, -math.inf) and high in (200, -1) else f"{low:g}..{high:g}"
