"""Reads and writes users' files: molecules and values, row by row."""
