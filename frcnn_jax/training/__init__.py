"""Training: the run, its step, optimizer, checkpoints and log."""
