"""Dask clusters of tests."""

from __future__ import annotations

__all__ = ["FREE_PORT"]

FREE_PORT = {"dashboard_address": ":0"}
"""Options of a scheduler whose status server takes a free port: another process may use its usual one."""
