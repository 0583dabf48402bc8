"""Batches for training, in one call."""

from frcnn_jax.data.loader import TrainLoader


def train_batches(source, config, *, start_step=0, **options):
    """Yields the batches of a `TrainLoader` from a step on."""
    return TrainLoader(source, config, **options).batches(start_step)
