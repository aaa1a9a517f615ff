"""Evaluation of features and models: property prediction in blocks that are kept, decoding, and objectives side by side.

Nothing is imported here: import the modules you need.
"""
