"""The training loop: rows to batches, the trainer, checkpoints and what watches it."""
