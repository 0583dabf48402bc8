"""Training: the optimiser, the jitted step, checkpoints and the loop around them."""
