"""Prepared molecules as token ids: shards, their manifest, and reading them from a disk or a URL."""
