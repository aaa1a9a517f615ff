"""What `prepare` says about the folder that it wrote: settings, counts and checksums, kept as `manifest.json`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError
from .folder import ByteRange, Folder, folder_at

__all__ = ["MANIFEST", "StoreManifest"]

MANIFEST = "manifest.json"
_HASHED_AT_ONCE = 8 << 20  # bytes
_FORMAT = "nemo_cmim token store 2"


@dataclass(frozen=True, kw_only=True)
class StoreManifest:
    """Contents of `manifest.json`. It holds no dates, so that equal inputs give equal files.

    Attributes:
        versions: of the packages that shaped the data.
        settings: the arguments of `prepare`.
        vocabulary: `size` and `fingerprint`.
        counts: lines `read`, `kept` and `rejected`; read = kept + rejected.
        rejected: lines by reason; `duplicate` is one.
        unknown_tokens: molecules rejected for each token that the vocabulary lacks.
        tokens: how often each token occurs in the molecules of all splits.
        inputs: for each file `file`, `bytes`, `sha256`, `read`, `kept`, and `rejected` by reason.
        tranches: for the code of each ZINC tranche among the inputs `read`, `kept`, and `rejected` by reason.
        splits: for each split `molecules`, `tokens`, `lengths`: molecules by number of tokens, and
            `shards`: `name` and number of `molecules` of each, in their order.
        files: for each file of the folder `bytes` and `sha256`.
    """

    versions: dict[str, str]
    settings: dict[str, Any]
    vocabulary: dict[str, Any]
    counts: dict[str, int]
    rejected: dict[str, int]
    unknown_tokens: dict[str, int]
    tokens: dict[str, int]
    inputs: list[dict[str, Any]]
    tranches: dict[str, dict[str, Any]]
    splits: dict[str, dict[str, Any]]
    files: dict[str, dict[str, Any]]

    def save(self, folder: Path) -> None:
        """Writes `manifest.json` into `folder`."""
        content = {"format": _FORMAT, **dataclasses.asdict(self)}
        (folder / MANIFEST).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> StoreManifest:
        """Reads `manifest.json` of a folder: a path or a URL.

        Raises:
            DataError: There is none, or it is not one of ours.
        """
        files = folder_at(folder)
        try:
            content = json.loads(files.read(MANIFEST))
            if (found := content.pop("format")) != _FORMAT:
                raise ValueError(f"format {found!r}, not {_FORMAT!r}")
            return cls(**content)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DataError(
                f"{folder} holds no {MANIFEST}: no prepared data are there. Prepare them first: nemo-cmim prepare INPUT... -o FOLDER"
            ) from error
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"{files.place(MANIFEST)} is damaged, or of another version ({error!r}): prepare the folder again."
            ) from error

    def check_files(self, folder: str | Path, names: list[str], *, contents: bool) -> None:
        """Compares files of `folder` with what was written: their sizes, and their SHA-256 where `contents` is set.

        Raises:
            DataError: A file is missing or differs.
        """
        files = folder_at(folder)
        sizes = files.sizes(names)
        for name in names:
            place, expected, found = files.place(name), self.files[name], sizes.get(name)
            if found != expected["bytes"]:
                state = "is missing" if found is None else f"has {found} bytes"
                raise DataError(
                    f"{place} {state}, but {MANIFEST} says {expected['bytes']} bytes: prepare or copy the folder again."
                )
            if contents and _sha256_in(files, name, expected["bytes"]) != expected["sha256"]:
                raise DataError(f"{place} was changed: its SHA-256 is not that of {MANIFEST}. Prepare or copy the folder again.")


def _sha256_in(folder: Folder, name: str, size: int) -> str:
    digest = hashlib.sha256()
    for start in range(0, size, _HASHED_AT_ONCE):
        digest.update(folder.parts([ByteRange(name, start, min(start + _HASHED_AT_ONCE, size))])[0])
    return digest.hexdigest()
