"""Reads the description and the parameters in a folder of `frcnn export`.

These stay readable, StableHLO only for some months: see `frcnn_jax.export`.
"""

import dataclasses
import json
from pathlib import Path
from typing import Literal

from frcnn_jax.config import DetectorSpec
from frcnn_jax.config.loading import dataclass_from_dict
from frcnn_jax.errors import UserError, first_line
from frcnn_jax.weights.files import read_file
from frcnn_jax.weights.record import Weights

DESCRIPTION = "detector.json"
FORMAT = "frcnn_jax export"
FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportedFunction:
    """A function of one canvas."""

    canvas: tuple[int, int]  # (height, width), in pixels
    file: str
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Description:
    """The content of `detector.json`, for programs and for people."""

    format: str
    format_version: int
    language: Literal["StableHLO", "ONNX"]  # of the functions
    functions: tuple[ExportedFunction, ...]
    parameters: str  # the file of the parameters
    arguments: dict[str, str]  # of each function, in order
    results: dict[str, str]
    requires: dict[str, int]  # versions that a reader of the functions must know
    written_by: dict[str, str]  # versions of packages
    notes: str
    detector: DetectorSpec


def is_exported(path: Path) -> bool:
    """Returns whether a folder looks like one of `frcnn export`."""
    return (path / DESCRIPTION).is_file()


def read_exported(path: Path) -> Weights:
    """Reads the parameters of an exported detector, with what they need.

    Args:
      path: folder of `frcnn export`, however old.

    Raises:
      UserError: if it is not such a folder, or a file is damaged.
    """
    description = read_description(path)
    spec, file = description.detector, read_file(str(path / description.parameters))
    return Weights.of_detector(spec, file.arrays, source=str(path), sha256=file.sha256)


def read_description(path: Path) -> Description:
    """Reads what a folder of `frcnn export` holds.

    Raises:
      UserError: if it is not such a folder, is damaged or is of another version.
    """
    file = path / DESCRIPTION
    try:
        values = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file}: cannot be read ({first_line(error)}), expected a folder of frcnn "
            "export"
        ) from None
    kind = values.get("format") if isinstance(values, dict) else None
    if kind != FORMAT:
        raise UserError(f"{file}: format is {kind!r:.80}, expected {FORMAT!r}")
    version = values.get("format_version")
    if version != FORMAT_VERSION:
        raise UserError(
            f"{file}: format_version is {version!r:.80}, expected {FORMAT_VERSION}: "
            "another version of frcnn_jax wrote it"
        )
    return dataclass_from_dict(Description, values, where=str(file))
