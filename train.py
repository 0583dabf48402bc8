"""Trains a detector: `python train.py --config PATH [--field value ...]`."""

from frcnn_jax import cli

# Worker processes import this file again, hence the guard.
if __name__ == "__main__":
    cli.train()
