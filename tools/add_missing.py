"""Installs what nemo_cmim needs and an environment lacks, for containers whose packages must stay as they are.

    python tools/add_missing.py [--extra NAME] [--replace PACKAGE ...]

Run it in the checkout. Packages that are installed are neither changed nor removed, whatever their version; missing ones are installed
without pip's resolver, in the version of constraints.txt if it has one. Prints each requirement that an installed package does not satisfy.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


def pins(constraints: str) -> dict[str, str]:
    """Versions by canonical name, from lines such as `numpy==2.4.6`."""
    lines = [re.split(r"[\s;#]", line, maxsplit=1)[0].partition("==") for line in constraints.splitlines()]
    return {canonicalize_name(name): version for name, _, version in lines if version}


def requirements(name: str, extras: set[str]) -> Iterator[Requirement]:
    """What an installed package with these extras requires here."""
    for text in importlib.metadata.requires(name) or []:
        requirement = Requirement(text)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras | {""}):
            yield requirement


def survey(extras: set[str], before: set[str], replaceable: set[str]) -> tuple[dict[str, Requirement], list[str]]:
    """Missing packages, and requirements that are not satisfied.

    Args:
        extras: Extras of nemo_cmim.
        before: Packages that were installed at first, whose own requirements are those of the container.
        replaceable: Packages that count as missing if their version does not satisfy a requirement.
    """
    missing: dict[str, Requirement] = {}
    unsatisfied = []
    seen = {("nemo-cmim", frozenset(extras))}
    pending = list(seen)
    while pending:
        parent, wanted = pending.pop()
        for requirement in requirements(parent, set(wanted)):
            name = canonicalize_name(requirement.name)
            try:
                version = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                missing[name] = requirement
                continue
            if not requirement.specifier.contains(version, prereleases=True):
                if name in replaceable:
                    missing[name] = requirement
                    continue
                unsatisfied.append(f"{parent} asks for {requirement.name}{requirement.specifier}; installed is {version}")
            child = (name, frozenset(requirement.extras))
            if child not in seen and (name not in before or requirement.extras):
                seen.add(child)
                pending.append(child)
    return missing, unsatisfied


def installed() -> set[str]:
    """Canonical names of all installed packages."""
    return {canonicalize_name(found.name) for found in importlib.metadata.distributions()}


def install(*arguments: str) -> None:
    """Installs without dependencies. NVIDIA's containers set PIP_CONSTRAINT to their own versions, which is not needed without them."""
    command = [sys.executable, "-m", "pip", "install", "--no-cache-dir", "--no-deps", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, env={key: value for key, value in os.environ.items() if key != "PIP_CONSTRAINT"})


def main() -> None:
    """Installs nemo_cmim, then what is missing, until nothing is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extra", action="append", metavar="NAME", help="extra of nemo_cmim; repeatable (default: train)")
    parser.add_argument("--replace", nargs="*", default=[], metavar="PACKAGE", help="may be replaced if its version does not fit")
    args = parser.parse_args()
    extras = set(args.extra or ["train"])
    replaceable: set[str] = {canonicalize_name(name) for name in args.replace}
    before = installed() - {"nemo-cmim"}
    versions = pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    install(str(ROOT))
    while (found := survey(extras, before, replaceable))[0]:
        install(
            *(f"{name}=={versions[name]}" if name in versions else f"{name}{each.specifier}" for name, each in found[0].items())
        )
        importlib.invalidate_caches()
    print(f"Added: {', '.join(sorted(installed() - before))}.")
    for text in found[1]:
        print(f"Left as it is: {text}.")


if __name__ == "__main__":
    main()
