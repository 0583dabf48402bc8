"""Exports a detector as StableHLO, which jax alone can run.

A function for each canvas takes the parameters and a batch of any size, and returns
padded detections; normalization and NMS are inside. The parameters are arguments,
not constants: with those of full-width VGG16 inside, the file of each canvas would have
550 MB and take eight times as long to compile.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array, export

from frcnn_jax.config import DetectorSpec
from frcnn_jax.detector import Detector, detect_in_original_pixels
from frcnn_jax.export.folder import ARGUMENTS, Canvas, write_description
from frcnn_jax.files import new_folder
from frcnn_jax.models.parameters import abstract_detector, flatten

PARAMETERS = "parameters.npz"
PLATFORMS = ("cpu", "cuda", "tpu")
_NOTES = (
    f"Runs on {', '.join(PLATFORMS)}. For deployment, not for an archive: jax.export "
    "reads a file with a jaxlib that is up to 6 months younger or 3 weeks older than "
    "the one that wrote it. Keep the run directory or a .safetensors to export again."
)


def export_stablehlo(detector: Detector, path: str | Path) -> None:
    """Writes a folder with which a program detects objects by jax alone.

    Args:
      detector: trained.
      path: of the new folder.

    Raises:
      UserError: if the folder exists and is not empty, or cannot be written.
    """
    with new_folder(Path(path)) as folder:
        files = {}
        for canvas in detector.spec.resizing.canvases:
            function = export_function(detector.spec, canvas)
            files[canvas] = f"{canvas[0]}x{canvas[1]}.stablehlo"
            (folder / files[canvas]).write_bytes(function.serialize())
        arrays: dict[str, Any] = flatten(detector.params)
        np.savez(folder / PARAMETERS, **arrays)
        write_description(
            folder,
            detector.spec,
            files,
            language="StableHLO",
            parameters=PARAMETERS,
            arguments={"parameters": f"arrays of {PARAMETERS}, by name"} | ARGUMENTS,
            requires={"calling_convention": function.calling_convention_version},
            notes=_NOTES,
        )


def export_function(spec: DetectorSpec, canvas: Canvas) -> export.Exported:
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
