"""Bodies to validated requests, in a bounded time for any bytes: amounts are counted before anything is parsed."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from pydantic import ValidationError

from .jobs import BadMolecules
from .schemas import DecodeBody, EmbeddingBody, GenerateBody, HiddenBody, SamplingBody

__all__ = ["Mistakes", "check_amount", "check_latents", "check_texts", "mistakes_of", "parse", "too_large"]

Body = TypeVar("Body", EmbeddingBody, HiddenBody, DecodeBody, SamplingBody, GenerateBody)
_FIELDS = 256  # strings, lists and values that a body may have beside its rows
_MOST_MISTAKES = 10
_MOST_CHARACTERS = 400


class Mistakes(ValueError):
    """Mistakes in a body.

    Attributes:
        items: For each, its type, place and message, in the form of FastAPI.
    """

    def __init__(self, *items: dict[str, Any]) -> None:
        super().__init__(f"{len(items)} mistakes")
        self.items = list(items)


def _mistake(kind: str, place: list[int | str], message: str, **more: Any) -> dict[str, Any]:
    short = message if len(message) <= _MOST_CHARACTERS else f"{message[: _MOST_CHARACTERS - 3]}..."
    return {"type": kind, "loc": ["body", *place], "msg": short, **more}


def check_amount(body: bytes, rows: int, numbers: int = 0, lists: int = 0) -> None:
    """Raises `Mistakes` if a JSON document has more strings, lists or values than a valid request.

    The document is not parsed: quotes, brackets and commas are counted, which takes a millisecond for each megabyte. Strings are found by
    their quotes. In a valid document, backslashes occur only in strings, where a pair of them is one character. In an invalid one, counts
    are right up to the first mistake, at which a parser stops.

    Args:
        body: The document.
        rows: Maximum number of strings.
        numbers: Maximum number of values outside of strings, in addition to one for each row.
        lists: Maximum number of lists, in addition to a few.
    """
    text = body.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in body else body
    if text.count(b'"') > 2 * (rows + _FIELDS):
        raise Mistakes(_too_many(rows))
    outside = b"".join(text.split(b'"')[::2])
    openings = outside.count(b"[") + outside.count(b"{")
    if openings > lists + _FIELDS or outside.count(b",") > rows + numbers + _FIELDS:
        raise Mistakes(_too_many(rows))


def _too_many(rows: int) -> dict[str, Any]:
    return _mistake("too_long", [], f"The body contains too many values. A request may have at most {rows} rows.")


def too_large(field: str, message: str) -> Mistakes:
    """A request that would take too long, as a mistake in a field."""
    return Mistakes(_mistake("too_large", [field], message))


def parse(schema: type[Body], body: bytes) -> Body:
    """Validates a body whose amounts were checked.

    Raises:
        Mistakes: If it is not JSON, or does not have the fields of the schema.
    """
    try:
        return schema.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        items = [_mistake(each["type"], list(each["loc"]), each["msg"]) for each in found[:_MOST_MISTAKES]]
        raise Mistakes(*items) from None


def check_texts(field: str, texts: list[str], rows: int, characters: int) -> None:
    """Raises `Mistakes` if there are too many SMILES, or if one of them is too long."""
    if len(texts) > rows:
        message = f"A request may have at most {rows} rows, found {len(texts)}. Send them in several requests."
        raise Mistakes(_mistake("too_long", [field], message))
    for i, text in enumerate(texts):
        if len(text) > characters:
            message = f"A SMILES may have at most {characters} characters, found {len(text)}."
            place: list[int | str] = [field] if field == "smi" else [field, i]
            raise Mistakes(_mistake("string_too_long", place, message))


def check_latents(body: DecodeBody, rows: int, shape: tuple[int, int]) -> np.ndarray:
    """The latents of a body as float32 [N, K, D].

    Raises:
        Mistakes: If there are too many, if their shape is not [N, K, D], or if the mask does not mark all of them as present.
    """
    if len(body.hiddens) > rows:
        message = f"A request may have at most {rows} rows, found {len(body.hiddens)}. Send them in several requests."
        raise Mistakes(_mistake("too_long", ["hiddens"], message))
    for i, row in enumerate(body.hiddens):
        if len(row) != shape[0] or any(len(latent) != shape[1] for latent in row):
            raise Mistakes(
                _mistake("shape", ["hiddens", i], f"Each row must have {shape[0]} x {shape[1]} numbers, as from /hidden.")
            )
    if body.mask is not None and body.mask != [[True] * shape[0]] * len(body.hiddens):
        message = f"The mask must be true for each latent, {len(body.hiddens)} x {shape[0]} values, as from /hidden."
        raise Mistakes(_mistake("mask", ["mask"], message))
    with np.errstate(over="ignore"):  # becomes infinite, which is reported with the row
        return np.array(body.hiddens, dtype=np.float64).astype(np.float32)


def mistakes_of(error: ValueError) -> Mistakes:
    """An error of the package as a mistake in the body."""
    if isinstance(error, Mistakes):
        return error
    if not isinstance(error, BadMolecules):
        return Mistakes(_mistake("value_error", [], str(error)))
    items = []
    for index, reason in list(error.reasons.items())[:_MOST_MISTAKES]:
        name, more = (error.field, {}) if index is None else (f"{error.field}[{index}]", {"index": index})
        place: list[int | str] = [error.field] if index is None else [error.field, index]
        items.append(_mistake("invalid_smiles", place, f"{name}: {reason}", **more, reason=reason[:_MOST_CHARACTERS]))
    remaining = len(error.reasons) - len(items)
    if remaining:
        items.append(_mistake("invalid_smiles", [error.field], f"{remaining} more molecules cannot be used."))
    return Mistakes(*items)
