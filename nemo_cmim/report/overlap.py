"""Which molecules are in prepared data: what leaks from pretraining into a test, counted.

The molecules of a split lie in the order of a hash of their canonical SMILES, so one is found by a binary search, whatever the size
of the folder. Molecules that differ in stereo alone have other hashes: they are found by one pass over the tokens, in flat memory, in
which only molecules of the right composition are given to RDKit. N molecules that are asked for.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import DataError, InvalidSmilesError
from ..molecules import canonical_smiles, parse, quiet_rdkit, without_stereo
from ..prepare.cluster import versions
from ..prepare.curate import Rejection, canonicalise, digest_of
from ..prepare.settings import Rules
from ..store.manifest import StoreManifest
from ..store.token_store import SPLITS, TokenStore
from ..tables.readers import read_molecules
from ..tokenizers import SmilesTokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Overlap", "find_overlap", "read_smiles"]

_SOUGHT_AT_ONCE = 1 << 14
_READ_AT_ONCE = 1 << 15
_STEREO = re.compile(r"[@/\\]")
_ATOM = re.compile(r"\[[0-9]*(?P<symbol>[A-Z][a-z]?|[a-z][a-z]?|\*)[^+-]*(?P<charge>[+-][+0-9-]*)?(?::[0-9]+)?\]")


class Overlap(NamedTuple):
    """Where N molecules were found.

    Attributes:
        same: For each split that has molecules, bool [N]: the molecule is in it, however it was spelled.
        flat: Likewise: a molecule is in it that is the same without stereo, the molecule itself, another stereoisomer or
            the form that says nothing of stereo. Empty if it was not asked for.
    """

    same: dict[str, NDArray[np.bool_]]
    flat: dict[str, NDArray[np.bool_]]

    @staticmethod
    def anywhere(splits: dict[str, NDArray[np.bool_]]) -> NDArray[np.bool_]:
        """bool [N]: found in any split."""
        return np.any(list(splits.values()), axis=0)


def find_overlap(
    folder: str | Path, smiles: Sequence[str], *, stereo: bool = True, progress: Callable[[int], None] | None = None
) -> Overlap:
    """Looks molecules up in a folder that `prepare` wrote. They are first made what `prepare` made of its own (`desalt`, `neutralise`).

    Args:
        folder: A path or a URL.
        smiles: N SMILES.
        stereo: Also find molecules that differ in stereo alone, which reads all tokens.
        progress: Called now and then with the number of molecules read since.

    Raises:
        InvalidSmilesError: A SMILES that RDKit cannot read, with its index.
        DataError: The folder cannot be used, or is not in the order of the hash.
    """
    manifest = StoreManifest.load(folder)
    _check_rdkit(folder, manifest)
    wanted = _as_prepared(smiles, manifest)
    stores = [TokenStore.open(folder, split) for split in SPLITS if manifest.splits[split]["molecules"]]
    hashes = [_number(one) for one in wanted]
    same = {store.split: _search(store, hashes) for store in stores}
    if not stereo:
        return Overlap(same, {})
    flat = [without_stereo(parse(one)) for one in wanted]
    found = {store.split: _scan(store, flat, progress) for store in stores}
    # What is there as it is counts also where RDKit, reading its own spelling, gives another one.
    return Overlap(same, {split: is_flat | same[split] for split, is_flat in found.items()})


def read_smiles(path: str | Path, column: str | None = None) -> Iterator[tuple[int, str]]:
    """Number and SMILES of each line of a file that `data.readers` reads.

    Args:
        path: The file.
        column: Name of the column of SMILES; None: `smiles` or `canonical_smiles`.

    Raises:
        DataError: The file cannot be read, or a line holds no SMILES that RDKit reads; the message has its number.
    """
    for line in read_molecules(path, column):
        try:
            if line.problem:
                raise InvalidSmilesError(line.problem)
            parse(line.smiles)
        except InvalidSmilesError as error:
            raise DataError(f"{path}, line {line.line_number}: {error}. Mend the line, or leave it out.") from error
        yield line.line_number, line.smiles


def _check_rdkit(folder: str | Path, manifest: StoreManifest) -> None:
    then, now = manifest.versions.get("rdkit"), versions()["rdkit"]
    if then != now:
        warnings.warn(
            f"{folder} was prepared with RDKit {then}, and this is {now}: if the two spell a molecule differently, it is not found.",
            stacklevel=3,
        )


def _as_prepared(smiles: Sequence[str], manifest: StoreManifest) -> list[str]:
    """Canonical SMILES under the folder's settings, but for its limits: what is beyond them is in no split anyway."""
    settings = {name: manifest.settings.get(name, False) for name in ("desalt", "neutralise")}
    rules = Rules(max_molecular_weight=math.inf, max_logp=math.inf, **settings)
    made = []
    with quiet_rdkit():
        for index, one in enumerate(smiles):
            parse(one, name=f"SMILES at index {index}", quiet=False)
            result = canonicalise(one, rules)
            made.append(canonical_smiles(one) if isinstance(result, Rejection) else result)
    return made


def _number(canonical: str) -> int:
    """The hash that shards are in the order of, as one number."""
    high, low = np.frombuffer(digest_of(canonical), "<u8").tolist()
    return high << 64 | low


def _search(store: TokenStore, hashes: Sequence[int]) -> NDArray[np.bool_]:
    """bool [N]: the store holds a molecule of this hash. All searches go on together, so that remote blocks are fetched together."""
    tokenizer = SmilesTokenizer(store.vocabulary)
    found = np.zeros(len(hashes), bool)
    hash_at: dict[int, int] = {}
    for begin in range(0, len(hashes), _SOUGHT_AT_ONCE):
        bounds = {i: (0, len(store)) for i in range(begin, min(begin + _SOUGHT_AT_ONCE, len(hashes)))}
        while bounds:
            middles = {i: (low + high) // 2 for i, (low, high) in bounds.items()}
            new = sorted(set(middles.values()) - hash_at.keys())
            hash_at.update((place, _number(tokenizer.decode(row))) for place, row in zip(new, store.gather(new)))
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
        raise DataError(f"Split {store.split!r} of {store.folder} is not in the order of its molecules' hashes: prepare it again.")
    return found


def _scan(store: TokenStore, flat: Sequence[str], progress: Callable[[int], None] | None) -> NDArray[np.bool_]:
    """bool [N]: the store holds a molecule that is this one without stereo."""
    tokenizer = SmilesTokenizer(store.vocabulary)
    weights = np.array([_weight(token) for token in store.vocabulary.tokens], np.uint64)
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, one in enumerate(flat):
        rows_of[one].append(row)
    compositions = np.array([_composition(tokenizer.tokenize(one)) for one in rows_of], np.uint64)
    found = np.zeros(len(flat), bool)
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
    return sum(map(_weight, tokens)) % (1 << 64)


@functools.cache
def _weight(token: str) -> int:
    """A random number for what a token says beside stereo and hydrogens; 0 for what depends on where a SMILES begins."""
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
