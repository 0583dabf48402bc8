"""Reads, checks and batches object detection data on the host (NumPy, never JAX)."""
