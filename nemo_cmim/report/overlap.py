"""Which of N molecules are in prepared data, for example test molecules in the training data (leakage).

The molecules of a split are sorted by a hash of their canonical SMILES, so a molecule is found by binary search, whatever the size of
the folder. Stereoisomers have different hashes. They are found by one pass over all tokens in constant memory, in which RDKit parses
only molecules with the composition of a queried molecule.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import DataError, InvalidSmilesError
from ..molecules import parse, standard_smiles, without_stereo
from ..prepare.cluster import versions
from ..prepare.curate import digest_of
from ..steps import STEPS, Steps, check_steps, field_of
from ..store.manifest import StoreManifest
from ..store.token_store import SPLITS, TokenStore
from ..tables.layout import DETECT, ReadOptions
from ..tables.rows import MoleculeTable
from ..tokenizers import SmilesTokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Overlap", "find_overlap", "read_smiles"]

_SEARCHES_AT_ONCE = 1 << 14
_READ_AT_ONCE = 1 << 15
_STEREO = re.compile(r"[@/\\]")
_ATOM = re.compile(r"\[[0-9]*(?P<symbol>[A-Z][a-z]?|[a-z][a-z]?|\*)[^+-]*(?P<charge>[+-][+0-9-]*)?(?::[0-9]+)?\]")


class Overlap(NamedTuple):
    """Which of N molecules were found in each split that has molecules.

    Attributes:
        same: bool [N] by split. The same molecule is in the split, compared by canonical SMILES.
        without_stereo: bool [N] by split. A molecule that is the same without stereochemistry is in the split: the molecule itself,
            a stereoisomer, or the form without stereochemistry. Empty if not requested.
    """

    same: dict[str, NDArray[np.bool_]]
    without_stereo: dict[str, NDArray[np.bool_]]

    @staticmethod
    def anywhere(splits: dict[str, NDArray[np.bool_]]) -> NDArray[np.bool_]:
        """bool [N]: the molecule was found in any of the splits."""
        return np.any(list(splits.values()), axis=0)


def find_overlap(
    folder: str | Path,
    smiles: Sequence[str],
    *,
    standardise: Steps = (),
    stereo: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Overlap:
    """Finds molecules in a folder that `prepare` wrote. They are first standardised as the molecules of the folder were.

    Args:
        folder: Path or URL.
        smiles: N SMILES.
        standardise: More steps of standardisation; see `molecules.standard_smiles`.
        stereo: Also find molecules that differ only in stereochemistry, which reads all tokens.
        progress: Called repeatedly with the number of molecules read since the last call.

    Raises:
        InvalidSmilesError: If a SMILES cannot be used; the message has its index.
        ConfigError: If a step is unknown.
        DataError: If the folder cannot be used, or its molecules are not sorted by hash.
    """
    manifest = StoreManifest.load(folder)
    _check_rdkit(folder, manifest)
    steps = _steps(manifest, standardise)
    wanted = [standard_smiles(one, steps, name=f"SMILES at index {index}") for index, one in enumerate(smiles)]
    stores = [TokenStore.open(folder, split) for split in SPLITS if manifest.splits[split]["molecules"]]
    hashes = [_digest_number(one) for one in wanted]
    same = {store.split: _search(store, hashes) for store in stores}
    if not stereo:
        return Overlap(same, {})
    queries = [without_stereo(parse(one)) for one in wanted]
    found = {store.split: _scan(store, queries, progress) for store in stores}
    # The same molecule always counts, even if RDKit's SMILES without stereochemistry changes when it is parsed again.
    return Overlap(same, {split: is_found | same[split] for split, is_found in found.items()})


def read_smiles(
    path: str | Path, folder: str | Path, options: ReadOptions = DETECT, *, on_invalid: str = "raise"
) -> Iterator[tuple[int, str]]:
    """Yields number and SMILES of each row of a file that `find_overlap` can look for; see `MoleculeTable` for both.

    Args:
        path: The file.
        folder: The folder that is searched; its steps of standardisation decide which SMILES can be used.
        options: What is known about the file, and more steps of standardisation.
        on_invalid: "raise", or "drop" to leave out rows without a usable SMILES, with one warning for all of them.

    Raises:
        DataError: If the file cannot be read or has no usable SMILES, or if a row has none and `on_invalid` is "raise"; the message has
            its number.
    """
    steps = _steps(StoreManifest.load(folder), options.standardise)
    invalid: list[str] = []
    rows = 0
    with MoleculeTable(path, dataclasses.replace(options, standardise=steps)) as table:
        for block in table.blocks(_READ_AT_ONCE):
            for index, (number, smiles) in enumerate(zip(block.numbers, block.smiles)):
                rows += 1
                try:
                    if smiles is None:
                        raise InvalidSmilesError(block.problems[index])
                    standard_smiles(smiles, steps)
                except InvalidSmilesError as error:
                    invalid.append(f"{table.name}, {table.unit} {number}: {error}")
                    if on_invalid == "raise":
                        raise DataError(
                            f'{invalid[0]}. Correct the {table.unit}, or pass on_invalid="drop" to leave out rows like this.'
                        ) from error
                else:
                    yield number, smiles
    if rows == len(invalid):
        raise DataError(
            f"{table.name} holds no {'usable ' if rows else ''}molecules.{f' The first: {invalid[0]}.' if rows else ''}"
        )
    if invalid:
        warnings.warn(f"{table.name}: left out {len(invalid):,} of {rows:,} rows. The first: {invalid[0]}.", stacklevel=2)


def _check_rdkit(folder: str | Path, manifest: StoreManifest) -> None:
    then, now = manifest.versions.get("rdkit"), versions()["rdkit"]
    if then != now:
        warnings.warn(
            f"{folder} was prepared with RDKit {then}, but RDKit {now} is installed. A molecule is not found if its canonical SMILES "
            "differs between the two.",
            stacklevel=3,
        )


def _steps(manifest: StoreManifest, more: Steps) -> tuple[str, ...]:
    """The steps of standardisation of the molecules of a folder, and more."""
    return check_steps([*(step for step in STEPS if manifest.settings.get(field_of(step))), *check_steps(more)])


def _digest_number(canonical: str) -> int:
    """The digest that the molecules of a shard are sorted by, as one number."""
    high, low = np.frombuffer(digest_of(canonical), "<u8").tolist()
    return high << 64 | low


def _search(store: TokenStore, hashes: Sequence[int]) -> NDArray[np.bool_]:
    """bool [N]: the store contains a molecule with this hash. All searches advance together, so that remote blocks are fetched together."""
    tokenizer = SmilesTokenizer(store.vocabulary)
    found = np.zeros(len(hashes), bool)
    hash_at: dict[int, int] = {}
    for begin in range(0, len(hashes), _SEARCHES_AT_ONCE):
        bounds = {i: (0, len(store)) for i in range(begin, min(begin + _SEARCHES_AT_ONCE, len(hashes)))}
        while bounds:
            middles = {i: (low + high) // 2 for i, (low, high) in bounds.items()}
            new = sorted(set(middles.values()) - hash_at.keys())
            hash_at.update((place, _digest_number(tokenizer.decode(row))) for place, row in zip(new, store.gather(new)))
            for i, middle in middles.items():
                low, high = bounds.pop(i)
                if hash_at[middle] == hashes[i]:
                    found[i] = True
                    continue
                low, high = (middle + 1, high) if hash_at[middle] < hashes[i] else (low, middle)
                if low < high:
                    bounds[i] = low, high
    in_place = [hash_at[place] for place in sorted(hash_at)]
    if any(first >= second for first, second in itertools.pairwise(in_place)):
        raise DataError(
            f"The molecules of split {store.split!r} in {store.folder} are not sorted by hash. Prepare the folder again."
        )
    return found


def _scan(store: TokenStore, queries: Sequence[str], progress: Callable[[int], None] | None) -> NDArray[np.bool_]:
    """bool [N]: the store contains a molecule whose canonical SMILES without stereochemistry is this one."""
    tokenizer = SmilesTokenizer(store.vocabulary)
    weights = np.array([_weight(token) for token in store.vocabulary.tokens], np.uint64)
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, one in enumerate(queries):
        rows_of[one].append(row)
    compositions = np.array([_composition(tokenizer.tokenize(one)) for one in rows_of], np.uint64)
    found = np.zeros(len(queries), bool)
    for start in range(0, len(store), _READ_AT_ONCE):
        tokens = store.gather(np.arange(start, min(start + _READ_AT_ONCE, len(store))))
        stops = np.cumsum([len(row) for row in tokens])
        sums = np.add.reduceat(weights[np.concatenate(tokens)], np.concatenate([[0], stops[:-1]]))
        for place in np.flatnonzero(np.isin(sums, compositions)):
            text = tokenizer.decode(tokens[place])
            found[rows_of.get(without_stereo(parse(text)) if _STEREO.search(text) else text, [])] = True
        if progress:
            progress(len(tokens))
    return found


def _composition(tokens: Sequence[str]) -> int:
    """A number that all SMILES of a molecule and its stereoisomers have in common."""
    return sum(map(_weight, tokens)) % (1 << 64)


@functools.cache
def _weight(token: str) -> int:
    """A random number for the element and charge, bond or ring of a token; 0 for stereochemistry, hydrogens and branches."""
    atom = _ATOM.fullmatch(token)
    if atom:
        kind = f"{atom['symbol']}{atom['charge'] or ''}"
    elif token[0] == "%" or token.isdigit():
        kind = "ring"
    else:
        kind = token
    if kind in ("H", *"()/\\-<>"):
        return 0
    return int.from_bytes(hashlib.blake2b(kind.encode(), digest_size=8).digest(), "little")
