"""What `prepare` says about the folder that it wrote: settings, counts and checksums, kept as `manifest.json`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError

__all__ = ["MANIFEST", "Manifest", "sha256_of"]

MANIFEST = "manifest.json"
_FORMAT = "nemo_cmim token store 1"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Contents of `manifest.json`. It holds no dates, so that equal inputs give equal files.

    Attributes:
        versions: of the packages that shaped the data.
        settings: the arguments of `prepare`.
        vocabulary: `size` and `fingerprint`.
        counts: lines `read`, `kept` and `rejected`; read = kept + rejected.
        rejected: lines by reason; `duplicate` is one.
        unknown_tokens: molecules rejected for each token that the vocabulary lacks.
        tokens: how often each token occurs in the kept molecules, the most frequent first.
        tranches: for each ZINC tranche that was an input, by its code: lines `read`, `kept`, and `rejected` by reason.
        inputs: for each file `file`, `bytes`, `sha256`, `read`, `kept`, and `rejected` by reason.
        splits: for each split `molecules`, `tokens`, and `lengths`: molecules by number of tokens.
        files: for each file of the folder `bytes` and `sha256`.
    """

    versions: dict[str, str]
    settings: dict[str, Any]
    vocabulary: dict[str, Any]
    counts: dict[str, int]
    rejected: dict[str, int]
    unknown_tokens: dict[str, int]
    tokens: dict[str, int]
    tranches: dict[str, dict[str, Any]]
    inputs: list[dict[str, Any]]
    splits: dict[str, dict[str, Any]]
    files: dict[str, dict[str, Any]]

    def save(self, folder: Path) -> None:
        """Writes `manifest.json` into `folder`."""
        content = {"format": _FORMAT, **dataclasses.asdict(self)}
        (folder / MANIFEST).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Reads `manifest.json` of `folder`.

        Raises:
            DataError: There is none, or it is not one of ours.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise DataError(
                f"{folder} holds no {MANIFEST}: no prepared data are there. Prepare them first: "
                f"nemo-cmim prepare INPUT... -o {folder}"
            )
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content.pop("format") != _FORMAT:
                raise KeyError("format")
            return cls(**content)
        except (UnicodeDecodeError, json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
            raise DataError(f"{path} is damaged, or of another version ({error!r}): prepare the folder again.") from error

    def check_files(self, folder: Path, names: list[str], *, contents: bool) -> None:
        """Compares files of `folder` with what was written: their sizes, and their SHA-256 where `contents` is set.

        Raises:
            DataError: A file is missing or differs.
        """
        for name in names:
            path, expected = folder / name, self.files[name]
            found = path.stat().st_size if path.is_file() else None
            if found != expected["bytes"]:
                state = "is missing" if found is None else f"has {found} bytes"
                raise DataError(f"{path} {state}, but {MANIFEST} says {expected['bytes']} bytes: prepare or copy the folder again.")
            if contents and sha256_of(path) != expected["sha256"]:
                raise DataError(f"{path} was changed: its SHA-256 is not that of {MANIFEST}. Prepare or copy the folder again.")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
