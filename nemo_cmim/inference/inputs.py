"""Converts the molecules that callers pass to token ids; each row is either tokenized or reported as invalid."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, KeysView, Mapping, Set
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arguments import check_integer
from ..errors import ConfigError, InvalidSmilesError, UnknownTokenError
from ..molecules import Mol, Standardised, shorten, standard_smiles, standardised, without_extras
from ..steps import Steps, check_steps
from ..tokenizers import SmilesTokenizer

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "COLLECT",
    "EXPLAIN",
    "InputOptions",
    "TokenizedMolecules",
    "invalid_reason",
    "molecule_rows",
    "standardise",
    "tokenize",
    "warn_of_invalid",
]

EXPLAIN = "explain"
"""The choice of `on_invalid` for callers that report invalid rows themselves."""

COLLECT = "collect"
"""Like `EXPLAIN`, but the reasons have the index of the row."""


class TokenizedMolecules(NamedTuple):
    """Distinct molecules of N rows.

    Attributes:
        tokens: Ids of each distinct molecule, without special tokens.
        molecule_of_row: int64 [N], index into `tokens`; -1 for an invalid row.
        invalid: Why a row is invalid, by its index.
        changed: Canonical SMILES of the valid rows that the steps of standardisation changed, by their index.
    """

    tokens: list[list[int]]
    molecule_of_row: NDArray[np.int64]
    invalid: dict[int, str]
    changed: dict[int, str]


class InputOptions(NamedTuple):
    """How the molecules of a caller are read.

    Attributes:
        on_invalid: "raise", "nan" to mark rows that cannot be used and to issue one warning for all of them, or `EXPLAIN` or
            `COLLECT` to mark them without a warning.
        canonical: Convert each SMILES to RDKit's canonical SMILES first.
        standardise: Steps of `steps.STEPS` that are applied before.
        first_index: Index of the first row in error messages.
        placeholder: What stands in the place of an invalid row: "NaN" or "None". It is named in messages.
        is_canonical: Whether the molecules are results of `molecules.standard_smiles`, which are not parsed again.
    """

    on_invalid: str = "raise"
    canonical: bool = True
    standardise: Steps = ()
    first_index: int = 0
    placeholder: str = "NaN"
    is_canonical: bool = False


def tokenize(molecules: Any, tokenizer: SmilesTokenizer, max_tokens: int, options: InputOptions) -> TokenizedMolecules:
    """Canonicalises and tokenizes molecules; equal molecules are kept once.

    Args:
        molecules: SMILES or RDKit molecules, in an order: list, tuple, iterator, NumPy array, pandas or polars Series, pyarrow array, or a
            table of one column.
        tokenizer: Tokenizer of the model.
        max_tokens: Maximum number of tokens of a SMILES.
        options: How they are read.

    Raises:
        InvalidSmilesError: If there are no molecules, or if a row cannot be used and `on_invalid="raise"`.
        ConfigError: If an option has an unknown value.
    """
    if options.on_invalid not in ("raise", "nan", EXPLAIN, COLLECT):
        raise ConfigError(f'on_invalid must be "raise" or "nan", found {options.on_invalid!r}.')
    check_integer("first_index", options.first_index, 0)
    steps = _steps(options.standardise, options.canonical)
    rows = molecule_rows(molecules)
    tokens: list[list[int]] = []
    index_of: dict[str, int] = {}
    molecule_of_row = np.empty(len(rows), dtype=np.int64)
    invalid: dict[int, str] = {}
    changed: dict[int, str] = {}
    for i, row in enumerate(rows):
        name = "the SMILES" if options.on_invalid == EXPLAIN else f"SMILES at index {options.first_index + i}"
        try:
            smiles, is_changed = (row, False) if options.is_canonical else _smiles(row, options.canonical, steps, name)
            if smiles not in index_of:
                tokens.append(_encode(smiles, tokenizer, max_tokens, name))
                index_of[smiles] = len(tokens) - 1
            molecule_of_row[i] = index_of[smiles]
            if is_changed:
                changed[i] = smiles
        except InvalidSmilesError as error:
            if options.on_invalid == "raise":
                kept = "a NaN row" if options.placeholder == "NaN" else f"{options.placeholder} in its place"
                raise type(error)(f'{error}. Pass on_invalid="nan" to keep {kept}.') from error
            invalid[i] = str(error)
            molecule_of_row[i] = -1
    if options.on_invalid == "nan":
        warn_of_invalid(invalid, len(rows), options.placeholder, stacklevel=6)
    return TokenizedMolecules(tokens, molecule_of_row, invalid, changed)


def warn_of_invalid(invalid: Mapping[int, str], rows: int, placeholder: str = "NaN", *, stacklevel: int) -> None:
    """Issues one warning for all invalid rows, if there are any."""
    if invalid:
        first = next(iter(invalid.values()))
        warnings.warn(
            f"{len(invalid)} of {rows} molecules are invalid; their rows are {placeholder}. The first: {first}.",
            stacklevel=stacklevel,
        )


def standardise(smiles: Any, steps: Steps = True) -> pd.DataFrame:
    """What `embed(smiles, standardise=steps)` embeds: the molecules after the steps of standardisation, row by row.

    Args:
        smiles: N SMILES or RDKit molecules; see `CMIMModel.embed`.
        steps: See `standardise` of `CMIMModel.embed`; True removes salts and charges.

    Returns:
        pandas.DataFrame of N rows, in order: `molecule`, as it was passed; `standardised`, its canonical SMILES after the steps, None if
        it is invalid; `changed`, whether a step changed it; `reason`, why it is invalid, or empty.

    Raises:
        InvalidSmilesError: If there are no molecules.
        ConfigError: If a step is unknown.
    """
    import pandas as pd

    names = check_steps(steps)
    table: list[tuple[Any, str | None, bool, str]] = []
    for row in molecule_rows(smiles):
        try:
            table.append((row, *standardised(row, names), ""))
        except InvalidSmilesError as error:
            table.append((row, None, False, str(error)))
    return pd.DataFrame(table, columns=["molecule", "standardised", "changed", "reason"])


def invalid_reason(
    molecule: Any,
    tokenizer: SmilesTokenizer,
    max_tokens: int,
    standardise: Steps = (),
    *,
    is_canonical: bool = False,
) -> str | None:
    """Why a model with this tokenizer and maximum length cannot use a molecule; None if it can. See also `InputOptions`."""
    steps = check_steps(standardise)
    try:
        _encode(molecule if is_canonical else standard_smiles(molecule, steps), tokenizer, max_tokens, "the SMILES")
    except InvalidSmilesError as error:
        return str(error)
    return None


def _steps(standardise: Steps, canonical: bool) -> tuple[str, ...]:
    steps = check_steps(standardise)
    if not canonical and (rewriting := [step for step in steps if step != "extras"]):
        raise ConfigError(
            f"standardise={rewriting[0]!r} writes a new SMILES, but canonical=False embeds the SMILES that is given. Leave out one of them."
        )
    return steps


def molecule_rows(molecules: Any) -> list[Any]:
    """The rows of a collection that has an order and one column.

    Raises:
        InvalidSmilesError: If it is a single value, has no order or more than one column, or is empty.
    """
    if isinstance(molecules, (str, bytes, Mol)):
        raise InvalidSmilesError(
            f"Molecules must be passed as a sequence, found the single value {shorten(molecules)}. Pass [value]."
        )
    if isinstance(molecules, (Mapping, Set)) and not isinstance(molecules, KeysView):
        what = "list(molecules.values())" if isinstance(molecules, Mapping) else "sorted(molecules)"
        raise InvalidSmilesError(
            f"Molecules must be passed in an order, found a {type(molecules).__name__}: rows of the result could not be assigned to "
            f"molecules. Pass a list, for example {what}."
        )
    molecules = _only_column(molecules)
    if not isinstance(molecules, Iterable):
        raise InvalidSmilesError(
            f"Molecules must be passed as a sequence of SMILES, found {shorten(molecules)} ({type(molecules).__name__})."
        )
    if isinstance(molecules, np.ndarray) and molecules.dtype.kind == "S":
        raise InvalidSmilesError("Molecules must be passed as text, found an array of bytes. Pass array.astype(str).")
    rows = molecules.to_pylist() if hasattr(molecules, "to_pylist") else list(molecules)  # pyarrow iterates over scalars
    if not rows:
        raise InvalidSmilesError("There are no molecules: the sequence is empty. Pass at least one SMILES.")
    return rows


def _only_column(table: Any) -> Any:
    """The column of a table of one column: pandas, polars (also lazy), pyarrow, or an array [N, 1]. Other values are returned unchanged.

    These libraries are recognised by their methods, because a caller who has none of them should not have to import them.
    """
    if hasattr(table, "collect_schema"):  # polars
        names = table.collect_schema().names()
    elif hasattr(table, "column_names"):  # pyarrow
        names = table.column_names
    elif hasattr(table, "iloc") and hasattr(table, "columns"):  # pandas
        names = list(table.columns)
    elif hasattr(table, "shape") and getattr(table, "ndim", 1) != 1:
        if len(table.shape) != 2 or table.shape[1] != 1:
            raise InvalidSmilesError(
                f"Molecules must be passed as one column of SMILES, found an array of shape {tuple(table.shape)}. Pass one column."
            )
        return table[:, 0]
    else:
        return table
    if len(names) != 1:
        smiles = next((name for name in names if re.search("smiles", str(name), re.IGNORECASE)), names[0] if names else "smiles")
        found = f"{len(names)} columns: {', '.join(map(str, names[:20]))}{', ...' * (len(names) > 20)}"
        raise InvalidSmilesError(
            f"Molecules must be passed as one column of SMILES, found a table of {found}. Pass one of them, for example table[{smiles!r}]."
        )
    if hasattr(table, "collect"):
        table = table.collect()
    return table.iloc[:, 0] if hasattr(table, "iloc") else table[names[0]]


def _smiles(row: Any, canonical: bool, steps: tuple[str, ...], name: str) -> Standardised:
    found = standardised(row, steps, name=name)  # raises the error that describes the row
    if canonical or isinstance(row, Mol):
        return found
    return found._replace(smiles=without_extras(row) if steps else row)


def _encode(smiles: str, tokenizer: SmilesTokenizer, max_tokens: int, name: str) -> list[int]:
    try:
        ids = tokenizer.encode(smiles)
    except UnknownTokenError as error:
        pairs = zip(tokenizer.tokenize(smiles), tokenizer.encode(smiles, on_unknown="unk"))
        unknown = next(token for token, number in pairs if number == tokenizer.vocabulary.unk_id)
        raise UnknownTokenError(
            f"{name} ({shorten(smiles, 200)}) contains the token {unknown!r}, which is not in the vocabulary of this model"
        ) from error
    if len(ids) > max_tokens:
        raise InvalidSmilesError(f"{name} ({shorten(smiles)}) has {len(ids)} tokens, but this model accepts at most {max_tokens}")
    return ids
