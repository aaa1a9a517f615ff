"""Turns files of SMILES into a token store, on Dask.

This file imports nothing, so that worker processes start without torch.
"""
