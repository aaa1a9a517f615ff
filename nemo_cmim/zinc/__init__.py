"""ZINC: its tranches, lists of URLs, and downloads."""
