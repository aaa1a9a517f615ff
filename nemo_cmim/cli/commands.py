"""The type of the object to which each module of the command line adds its commands."""

from __future__ import annotations

import argparse
from typing import TypeAlias

__all__ = ["Commands"]

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
