"""Property models: features of molecules, heads, splits, and what was learnt, in a file. Names are imported on first use."""
