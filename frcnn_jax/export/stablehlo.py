"""Exports a detector as StableHLO, which jax alone can run.

A function for each canvas takes the parameters and a batch of any size, and returns
padded detections; normalization and NMS are inside. The parameters are no constants of
the functions: with those of full-width VGG16, the file of each canvas would have 550 MB
and take eight times as long to compile.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array, export

from frcnn_jax import __version__
from frcnn_jax.config import DetectorSpec
from frcnn_jax.detector import Detector, detect_in_original_pixels
from frcnn_jax.files import new_folder
from frcnn_jax.models.parameters import abstract_detector, flatten
from frcnn_jax.weights.exported import (
    DESCRIPTION,
    FORMAT,
    FORMAT_VERSION,
    PARAMETERS,
    Description,
    ExportedFunction,
)

PLATFORMS = ("cpu", "cuda", "tpu")

_ARGUMENTS = {
    "parameters": f"arrays of {PARAMETERS}, by name",
    "images": "uint8 [B, height, width, 3], RGB as decoded (the function normalizes), "
    "resized, in the upper left corner of the canvas, zero outside",
    "image_sizes": "float32 [B, 2], (height, width) of the resized images, in pixels",
    "scales": "float32 [B, 2], resized / original size, (y, x)",
}
_RESULTS = {
    "boxes": "float32 [B, D, 4], (y_min, x_min, y_max, x_max) in pixels of the "
    "original images, the max edge exclusive",
    "labels": "int32 [B, D], positions in class_names",
    "mask": "bool [B, D], false for padding; detections come first, best first",
    "scores": "float32 [B, D], probabilities",
}
_COMPATIBILITY = (
    "For deployment, not for an archive: jax.export reads a file with a jaxlib that is "
    "up to 6 months younger or 3 weeks older than the one that wrote it. Keep the run "
    "directory or a .safetensors, and export again."
)


def export_detector(detector: Detector, path: Path) -> None:
    """Writes a folder with which a program detects objects without frcnn_jax.

    Args:
      detector: trained.
      path: of the new folder.

    Raises:
      UserError: if the folder exists and is not empty, or cannot be written.
    """
    spec = detector.spec
    with new_folder(path) as folder:
        functions = [
            _write_function(export_function(spec, canvas), canvas, folder)
            for canvas in spec.resizing.canvases
        ]
        arrays: dict[str, Any] = flatten(detector.params)
        np.savez(folder / PARAMETERS, **arrays)
        description = Description(
            format=FORMAT,
            format_version=FORMAT_VERSION,
            functions=tuple(functions),
            arguments=_ARGUMENTS,
            results=_RESULTS,
            platforms=PLATFORMS,
            versions={
                "frcnn_jax": __version__,
                "jax": jax.__version__,
                "jaxlib": jaxlib.__version__,
            },
            compatibility=_COMPATIBILITY,
            detector=spec,
        )
        text = json.dumps(dataclasses.asdict(description), indent=2)
        (folder / DESCRIPTION).write_text(text + "\n")


def export_function(spec: DetectorSpec, canvas: tuple[int, int]) -> export.Exported:
    """Exports the detection on one canvas, for all platforms.

    Args:
      spec: of the detector.
      canvas: (height, width), in pixels.
    """
    graphdef, shapes = abstract_detector(spec.model, len(spec.class_names))

    def detect(
        parameters: dict[str, Array], images: Array, image_sizes: Array, scales: Array
    ) -> dict[str, Array]:
        model = nnx.merge(graphdef, unflatten_dict(parameters, sep="."))
        outputs = model(images, image_sizes, scales)
        # A dict, since jax alone would not know the named tuple.
        return detect_in_original_pixels(model, outputs)._asdict()

    (batch_size,) = export.symbolic_shape("batch_size")
    return export.export(jax.jit(detect), platforms=PLATFORMS)(
        flatten_dict(shapes, sep="."),
        jax.ShapeDtypeStruct((batch_size, *canvas, 3), jnp.uint8),
        jax.ShapeDtypeStruct((batch_size, 2), jnp.float32),
        jax.ShapeDtypeStruct((batch_size, 2), jnp.float32),
    )


def _write_function(
    function: export.Exported, canvas: tuple[int, int], folder: Path
) -> ExportedFunction:
    """Writes a function into the folder, and returns its description."""
    content = function.serialize()
    name = f"{canvas[0]}x{canvas[1]}.stablehlo"
    (folder / name).write_bytes(content)
    return ExportedFunction(
        canvas=canvas,
        file=name,
        sha256=hashlib.sha256(content).hexdigest(),
        calling_convention_version=function.calling_convention_version,
    )
