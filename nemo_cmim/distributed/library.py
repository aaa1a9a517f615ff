"""An embedded library: a folder of Parquet files with a manifest."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError
from .folder import Folder

__all__ = ["MANIFEST", "REASON", "LibraryManifest"]

MANIFEST = "manifest.json"
REASON = "invalid_reason"
"""Column of the reason why a row has no embedding; null for all others."""

_FORMAT = "nemo_cmim library 1"


@dataclass(frozen=True, kw_only=True)
class LibraryManifest:
    """Contents of `manifest.json`. It does not say when it was written, so that equal inputs give equal files.

    Attributes:
        job: Hash of everything that the parts depend on: inputs, settings and versions.
        embedding: `model`, `precision`, `engine`, `fingerprint`, `kind`, `layers`, `standardise`, `width`, and `stored`, the type of
            the numbers.
        settings: The other settings that the parts depend on.
        versions: Of the packages that the parts depend on.
        inputs: `file`, `state` (see `tables.sources.source_state`) and `rows` of each file.
        counts: `rows`, `embedded` and `invalid`; rows = embedded + invalid.
        invalid: Number of invalid rows by reason.
        examples: Place and reason of the first invalid rows.
        parts: `name`, `rows`, `invalid`, `bytes` and `sha256` of each Parquet file, in the order of the inputs.
    """

    job: str
    embedding: dict[str, Any]
    settings: dict[str, Any]
    versions: dict[str, str]
    inputs: list[dict[str, Any]]
    counts: dict[str, int]
    invalid: dict[str, int]
    examples: list[str]
    parts: list[dict[str, Any]]

    def save(self, folder: Folder) -> None:
        """Writes `manifest.json`."""
        folder.save(MANIFEST, {"format": _FORMAT, **dataclasses.asdict(self)})

    @classmethod
    def load(cls, where: str | Path | Folder) -> LibraryManifest:
        """Reads `manifest.json` of a folder.

        Raises:
            DataError: If it is missing, damaged or of another format.
        """
        folder = where if isinstance(where, Folder) else Folder.of(where)
        try:
            content = folder.read(MANIFEST)
        except ValueError as error:
            raise DataError(f"{folder / MANIFEST} is damaged: {error}. Embed the library again.") from error
        if content is None:
            raise DataError(
                f"{folder} has no {MANIFEST}, so it is not an embedded library, or it is not complete. Write it with `nemo-cmim embed "
                "--scheduler`; the same command resumes an interrupted one."
            )
        if not isinstance(content, dict) or content.pop("format", None) != _FORMAT:
            raise DataError(f"{folder / MANIFEST} is not of the format {_FORMAT!r}. Embed the library again.")
        try:
            return cls(**content)
        except TypeError as error:
            raise DataError(f"{folder / MANIFEST} is damaged: {error}. Embed the library again.") from error

    @property
    def digest(self) -> str:
        """SHA-256 of the checksums of all parts: equal for equal libraries only."""
        return hashlib.sha256("".join(part["sha256"] for part in self.parts).encode()).hexdigest()
