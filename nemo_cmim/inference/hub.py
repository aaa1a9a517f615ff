"""Model files on the Hugging Face Hub: `hf://owner/name[@revision][/file.nemo]#sha256`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import NamedTuple

from ..errors import CheckpointError, ConfigError
from ..files import sha256_of

__all__ = ["SCHEME", "hub_file"]

SCHEME = "hf://"
_SUFFIX = ".nemo"
_FORM = "hf://owner/name#SHA256 or hf://owner/name@revision/file.nemo#SHA256"
_REFERENCE = re.compile(
    r"hf://(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>refs/(pr|convert)/[^/#]+|[^/#]+))?(/(?P<file>[^#]+\.nemo))?(#(?P<sha256>.*))?"
)
_SHA256 = re.compile("[0-9a-f]{64}")


class _Reference(NamedTuple):
    text: str
    repository: str
    revision: str | None
    file: str | None
    sha256: str


def hub_file(reference: str) -> Path:
    """Downloads a model file, unless the cache of huggingface_hub has it, and compares it with the checksum.

    A file in the cache that has the checksum is used without any request.

    Args:
        reference: `hf://owner/name#sha256`, for the only .nemo file of a repository, or `hf://owner/name/file.nemo#sha256`; the name can be
            followed by `@` and a revision: a branch, a tag, a commit, or `refs/pr/N`.

    Raises:
        ConfigError: If huggingface_hub is not installed.
        CheckpointError: If the reference has another form or no checksum, the file cannot be downloaded, or it has another checksum.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise CheckpointError(f"{reference!r} does not name a model on the Hub. Its form is {_FORM}.")
    sha256 = (match["sha256"] or "").lower()
    if sha256 and not _SHA256.fullmatch(sha256):
        other = re.sub("[0-9a-f]", "", sha256)
        found = f"contains {other[0]!r}" if other else f"has {len(sha256)}"
        raise CheckpointError(
            f"{reference!r}: a SHA-256 has 64 digits, each 0 to 9 or a to f, but {match['sha256']!r} {found}. Correct it."
        )
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"Loading {reference} requires huggingface_hub, which is not installed: pip install 'nemo_cmim[hub]'."
        ) from error
    wanted = _Reference(reference, match["repository"], match["revision"], match["file"], sha256)
    for path in _cached(wanted):
        if sha256_of(path) == sha256:
            return path
    path = _downloaded(wanted)
    found = sha256_of(path)
    if not sha256:
        raise CheckpointError(
            f"{reference!r} has no checksum, without which the file could change unnoticed. Its file now is "
            f"{reference.rstrip('#')}#{found}: load this."
        )
    if found != sha256:
        raise CheckpointError(
            f"{reference}: the file has the SHA-256 {found}. It was replaced, or the reference is wrong. Name the revision that has the "
            "file, or use the new checksum."
        )
    return path


def _cached(wanted: _Reference) -> Iterator[Path]:
    """The model files of the repository in the cache, of all revisions."""
    from huggingface_hub import constants

    snapshots = Path(constants.HF_HUB_CACHE) / f"models--{wanted.repository.replace('/', '--')}" / "snapshots"
    if wanted.sha256:
        yield from (
            path
            for path in sorted(snapshots.glob(f"*/{escape(wanted.file) if wanted.file else f'**/*{_SUFFIX}'}"))
            if path.is_file()
        )


def _downloaded(wanted: _Reference) -> Path:
    from huggingface_hub import HfApi

    api, file = HfApi(), wanted.file
    with _reported(wanted):
        names = [] if file else api.list_repo_files(wanted.repository, revision=wanted.revision)
    if file is None:
        found = sorted(name for name in names if name.endswith(_SUFFIX))
        if len(found) != 1:
            listed = f"{len(found)} model files ({', '.join(found[:5])})" if found else f"no {_SUFFIX} file"
            hint = f"Name one: hf://{wanted.repository}/{found[0]}#SHA256" if found else "Name another repository"
            raise CheckpointError(f"The repository {wanted.repository} has {listed}. {hint}.")
        file = found[0]
    with _reported(wanted):
        return Path(api.hf_hub_download(wanted.repository, file, revision=wanted.revision))


@contextmanager
def _reported(wanted: _Reference) -> Iterator[None]:
    from huggingface_hub import errors

    try:
        yield
    except Exception as error:  # of huggingface_hub and of the HTTP library that its version uses
        if isinstance(error, errors.GatedRepoError):
            reason = f"access to {wanted.repository} must be requested on its page. Then log in: hf auth login"
        elif isinstance(error, errors.RepositoryNotFoundError):
            reason = f"there is no repository {wanted.repository}, or it is private. Check the name, or log in: hf auth login"
        elif isinstance(error, errors.RevisionNotFoundError):
            reason = f"the repository {wanted.repository} has no revision {wanted.revision}. Check the revision"
        elif isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
            reason = f"the repository {wanted.repository} has no file {wanted.file}. Check the name"
        else:
            first = next(iter(str(error).splitlines()), "") or type(error).__name__
            reason = (
                f"{first.rstrip('.')}. Check the connection, and HF_ENDPOINT if it is set; or download the file, and load its path"
            )
        raise CheckpointError(f"{wanted.text} cannot be downloaded: {reason}.") from error
