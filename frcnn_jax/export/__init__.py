"""Exports a detector for programs without frcnn_jax, and reads such an export."""

from frcnn_jax.export.loading import ExportedDetector, load_exported
from frcnn_jax.export.stablehlo import export_detector

__all__ = ["ExportedDetector", "export_detector", "load_exported"]
