"""Molecules from files to batches: `readers` and `prepare` write a token store, `store`, `order` and `dataset` read it in training.

Nothing is imported here, so that the processes of `prepare` start without torch.
"""
