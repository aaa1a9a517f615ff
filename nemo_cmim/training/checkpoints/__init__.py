"""Checkpoints of a training run and the `.nemo` file: format, writing, reading, when to save, and export."""
