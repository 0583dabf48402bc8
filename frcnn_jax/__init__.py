"""Faster R-CNN (VGG16) as pure, jit-compiled JAX functions with static shapes."""

__version__ = "0.1.0"
