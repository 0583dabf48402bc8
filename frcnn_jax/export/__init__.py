"""Exports a detector for programs without frcnn_jax, and reads such an export."""

from frcnn_jax.export.loading import ExportedDetector, load_exported
from frcnn_jax.export.onnx import export_onnx
from frcnn_jax.export.stablehlo import export_stablehlo

__all__ = ["ExportedDetector", "export_onnx", "export_stablehlo", "load_exported"]
