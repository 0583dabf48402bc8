"""Reads an exported detector, and says in one line why it cannot be read.

Only load folders that you trust: a function may call whatever jaxlib has registered.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import jax
from flax.traverse_util import flatten_dict
from jax import Array, export

from frcnn_jax.config import DetectorSpec
from frcnn_jax.detector import Detector
from frcnn_jax.errors import UserError, first_line
from frcnn_jax.weights.exported import (
    Description,
    ExportedFunction,
    read_description,
    read_exported,
)


class ExportedDetector(NamedTuple):
    """An exported detector, ready to be called.

    `jax.jit(functions[canvas].call)(parameters, images, image_sizes, scales)` returns
    a dict of the fields of `ops.Detections`, arrays of [B, D, ...], boxes in pixels of
    the original images.
    """

    spec: DetectorSpec
    parameters: dict[str, Array]  # by name
    functions: dict[tuple[int, int], export.Exported]  # by canvas (height, width)


def load_exported(path: str | Path) -> ExportedDetector:
    """Loads a folder of `frcnn export`.

    Raises:
      UserError: if it is not such a folder, a file is missing or damaged, or this jax
        cannot read its functions.
    """
    path = Path(path)
    description = read_description(path)
    if description.language != "StableHLO":
        raise UserError(f"{path}: holds {description.language}, expected StableHLO")
    detector = Detector.from_weights(read_exported(path))
    functions = {
        function.canvas: _read_function(path, function, description)
        for function in description.functions
    }
    parameters = flatten_dict(detector.params, sep=".")
    return ExportedDetector(detector.spec, parameters, functions)


def _read_function(
    folder: Path, function: ExportedFunction, description: Description
) -> export.Exported:
    file = folder / function.file
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: {first_line(error)}") from None
    if hashlib.sha256(content).hexdigest() != function.sha256:
        raise UserError(f"{file}: damaged, its SHA-256 is not that of detector.json")
    try:
        _check_calling_convention(description.requires["calling_convention"])
        exported = export.deserialize(bytearray(content))
        exported.mlir_module()  # reads the program itself
    # jax has errors of many types for what it cannot read.
    except Exception as error:
        raise UserError(
            f"{file}: written by jax {description.written_by.get('jax', '?')}, cannot "
            f"be read by jax {jax.__version__} ({first_line(error)}); export the "
            "detector again"
        ) from None
    return exported


def _check_calling_convention(version: int) -> None:
    oldest = export.minimum_supported_calling_convention_version
    newest = export.maximum_supported_calling_convention_version
    if not oldest <= version <= newest:
        raise ValueError(f"calling convention {version}, expected {oldest} to {newest}")
