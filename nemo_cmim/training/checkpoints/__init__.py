"""Checkpoints of a training run, and model files (`.nemo`): format, writing, reading, schedule and export."""
