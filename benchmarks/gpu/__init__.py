"""Measurements on one GPU, each a section of `RESULTS.md`."""
