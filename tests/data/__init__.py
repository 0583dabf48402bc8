"""Tests of frcnn_jax.data."""
