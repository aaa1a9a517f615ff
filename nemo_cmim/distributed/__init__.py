"""Embeds libraries of any size with Dask, into a folder of Parquet files."""

from .embedding import embed, embed_files
from .library import LibraryManifest

__all__ = ["LibraryManifest", "embed", "embed_files"]
