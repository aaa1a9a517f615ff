"""A sample of real SMILES, see README.md in this folder."""
