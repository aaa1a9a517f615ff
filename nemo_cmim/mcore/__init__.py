"""The network built from Megatron-Core blocks, for training with tensor and data parallelism."""
