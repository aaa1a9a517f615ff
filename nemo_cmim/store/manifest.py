"""The manifest of a folder written by `prepare`: settings, counts and checksums, in `manifest.json`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError
from .folder import ByteRange, Folder, open_folder

__all__ = ["FORMAT_NAME", "MANIFEST", "StoreManifest"]

MANIFEST = "manifest.json"
FORMAT_NAME = "nemo_cmim token store"
_HASH_BLOCK = 8 << 20  # bytes
_FORMAT = f"{FORMAT_NAME} 3"  # 2: RDKit's canonical form in one pass, no observed properties


@dataclass(frozen=True, kw_only=True)
class StoreManifest:
    """Contents of `manifest.json`. It contains no dates, so that equal inputs give equal files.

    Attributes:
        versions: of the packages that the data depend on.
        settings: the arguments of `prepare`.
        vocabulary: `size` and `fingerprint`.
        counts: lines `read`, `kept` and `rejected`; read = kept + rejected.
        rejected: lines by reason, including `duplicate`.
        unknown_tokens: molecules rejected for each token that the vocabulary lacks.
        tokens: how often each token occurs in the molecules of all splits.
        inputs: for each file `file`, `bytes`, `sha256`, `read`, `kept`, and `rejected` by reason.
        tranches: for the code of each ZINC tranche among the inputs `read`, `kept`, and `rejected` by reason.
        splits: for each split `molecules`, `tokens`, `lengths`: molecules by number of tokens, and
            `shards`: `name` and number of `molecules` of each, in order.
        files: `bytes` and `sha256` of each file of the folder.
        properties: names, bits and quantiles of the observed properties, see `observed.PropertyTable`; None if there are none.
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
    properties: dict[str, Any] | None

    def save(self, folder: Path) -> None:
        """Writes `manifest.json` to `folder`."""
        content = {"format": _FORMAT, **dataclasses.asdict(self)}
        (folder / MANIFEST).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> StoreManifest:
        """Reads `manifest.json` of a folder, given by a path or URL.

        Raises:
            DataError: If the file does not exist, is damaged, or has a different format.
        """
        files = open_folder(folder)
        try:
            content = json.loads(files.read(MANIFEST))
            if (found := content.pop("format")) != _FORMAT:
                raise DataError(
                    f"{files.location(MANIFEST)} has the format {found!r}, but this version of nemo_cmim reads {_FORMAT!r}. Prepare the "
                    "folder again from its inputs: nemo-cmim prepare INPUT... -o FOLDER --overwrite"
                )
            return cls(**content)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DataError(
                f"{folder} contains no {MANIFEST}, so it is not a folder of prepared data. Write one: nemo-cmim prepare INPUT... -o FOLDER"
            ) from error
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{files.location(MANIFEST)} is damaged ({error!r}). Prepare the folder again.") from error

    def check_files(self, folder: str | Path, names: list[str], *, contents: bool) -> None:
        """Compares the sizes of files of `folder` with the manifest, and their SHA-256 if `contents` is True.

        Raises:
            DataError: If a file is missing or differs.
        """
        files = open_folder(folder)
        sizes = files.sizes(names)
        for name in names:
            location, expected, found = files.location(name), self.files[name], sizes.get(name)
            if found != expected["bytes"]:
                state = "is missing" if found is None else f"has {found} bytes"
                raise DataError(
                    f"{location} {state}, but {MANIFEST} says {expected['bytes']} bytes. Prepare or copy the folder again."
                )
            if contents and _sha256_in(files, name, expected["bytes"]) != expected["sha256"]:
                raise DataError(f"{location} was changed: its SHA-256 is not that of {MANIFEST}. Prepare or copy the folder again.")


def _sha256_in(folder: Folder, name: str, size: int) -> str:
    digest = hashlib.sha256()
    for start in range(0, size, _HASH_BLOCK):
        digest.update(folder.read_ranges([ByteRange(name, start, min(start + _HASH_BLOCK, size))])[0])
    return digest.hexdigest()
