"""Names of the folders of runs."""

from __future__ import annotations

import re
from collections.abc import Iterable

from nemo_cmim.mappings import check

__all__ = ["folders_of"]


def folders_of(names: Iterable[str]) -> dict[str, str]:
    """The name of the folder of each run, by the name of the run.

    Raises:
        ConfigError: If two runs would have the same folder.
    """
    folders = {name: re.sub(r"[^a-z0-9.]+", "-", name.lower()) for name in names}
    check(len(set(folders.values())) == len(folders), f"Two names have the same folder; rename one: {folders}.")
    return folders
