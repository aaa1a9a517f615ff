"""From files of SMILES to a token store, on Dask.

Nothing is imported here, so that worker processes start without torch.
"""
