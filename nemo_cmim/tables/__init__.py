"""The files that users bring: molecules and values, read row by row."""
