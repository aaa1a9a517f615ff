"""Records measurements in `RESULTS.md`: one section per benchmark, replaced when the benchmark runs again.

Benchmarks run from the root of the checkout, as `python -m benchmarks.NAME`.
"""

from __future__ import annotations

import platform
import re
import subprocess
from datetime import date
from pathlib import Path

from nemo_cmim.cores import available_cores

__all__ = ["hardware", "record"]

RESULTS = Path(__file__).with_name("RESULTS.md")
_TITLE = (
    "# Measurements\n\nEach section is written by its command. Ratios are of one run; absolute numbers depend on the computer.\n"
)


def record(section_title: str, command: str, lines: list[str], seed: int | None = None, results: Path = RESULTS) -> None:
    """Writes a section into `RESULTS.md`, replacing an older one with the same title.

    Args:
        section_title: Heading, without `##`.
        command: Command that repeats the measurement.
        lines: Body, in Markdown.
        seed: Seed of random inputs or weights.
        results: File to write.
    """
    facts = [f"`{command}`", date.today().isoformat(), f"commit {_commit()}", hardware()]
    if seed is not None:
        facts.append(f"seed {seed}")
    section = "\n".join([f"## {section_title}", "", " · ".join(facts), "", *lines]).rstrip() + "\n"
    text = results.read_text(encoding="utf-8") if results.exists() else _TITLE
    head, *sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    titles = [old.split("\n", 1)[0] for old in sections]
    if f"## {section_title}" in titles:
        sections[titles.index(f"## {section_title}")] = section
    else:
        sections.append(section)
    results.write_text("\n".join(part.rstrip() + "\n" for part in [head, *sections]), encoding="utf-8")


def _commit() -> str:
    """Short hash, followed by "with changes" if code or settings differ from the commit; "none" outside a repository."""
    try:
        commit = _git("rev-parse", "--short", "HEAD")
        return commit + (" with changes" if _git("status", "--porcelain", "--", ":(top)*.py", ":(top)*.yaml") else "")
    except (OSError, subprocess.CalledProcessError):
        return "none"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=RESULTS.parent, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def hardware() -> str:
    """Processor name and number of cores that this process may use."""
    cpu_info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", cpu_info.read_text()) if cpu_info.exists() else None
    cores = available_cores()
    return f"{found[1] if found else platform.processor()}, {cores} core{'s' if cores > 1 else ''}"
