"""Writes what every export has besides its functions: `detector.json`."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jaxlib

from frcnn_jax import __version__
from frcnn_jax.config import DetectorSpec
from frcnn_jax.weights.exported import (
    DESCRIPTION,
    FORMAT,
    FORMAT_VERSION,
    Description,
    ExportedFunction,
)

Canvas = tuple[int, int]  # (height, width), in pixels

# B images, up to D objects in each.
ARGUMENTS = {
    "images": "uint8 [B, height, width, 3], RGB as decoded (the function normalizes), "
    "resized, in the upper left corner of the canvas, zero outside",
    "image_sizes": "float32 [B, 2], (height, width) of the resized images, in pixels",
    "scales": "float32 [B, 2], resized / original size, (y, x)",
}
RESULTS = {
    "boxes": "float32 [B, D, 4], (y_min, x_min, y_max, x_max) in pixels of the "
    "original images, the max edge exclusive",
    "labels": "int32 [B, D], positions in class_names",
    "mask": "bool [B, D], false for padding; detections come first, best first",
    "scores": "float32 [B, D], probabilities",
}


def write_description(
    folder: Path, spec: DetectorSpec, files: dict[Canvas, str], **fields: Any
) -> None:
    """Writes `detector.json`, after all other files.

    Args:
      folder: of the export.
      spec: of the detector.
      files: of the functions, by canvas.
      **fields: of `Description`, those that depend on the language.
    """
    functions = [
        ExportedFunction(
            canvas=canvas,
            file=name,
            sha256=hashlib.sha256((folder / name).read_bytes()).hexdigest(),
        )
        for canvas, name in files.items()
    ]
    versions = {
        "frcnn_jax": __version__,
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
    }
    description = Description(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        functions=tuple(functions),
        results=RESULTS,
        written_by=versions,
        detector=spec,
        **fields,
    )
    text = json.dumps(dataclasses.asdict(description), indent=2)
    (folder / DESCRIPTION).write_text(text + "\n")
