"""What `frcnn import-weights` and `frcnn export-weights` do."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from frcnn_jax.config import ModelConfig
from frcnn_jax.errors import UserError
from frcnn_jax.files import check_new_file
from frcnn_jax.models.parameters import abstract_detector, parameter_shapes
from frcnn_jax.weights.checkpoints import read_source
from frcnn_jax.weights.exporting import FORMATS, export_weights, save_weights
from frcnn_jax.weights.importing import read_weights
from frcnn_jax.weights.record import (
    OWN_FORMAT,
    resolve_preprocessing,
    select_matching,
)
from frcnn_jax.weights.report import describe


def import_file(source: str, output: Path, **options: Any) -> None:
    """Converts a weight file of another project into one of ours, and reports.

    Args:
      source: what `read_weights` takes.
      output: the new `.safetensors` file.
      **options: of `read_weights`.

    Raises:
      UserError: if the source is not a full-width VGG16 or detector, does not say how
        pixels are preprocessed or what its classes are, an option is for detectors
        only, or the output exists or cannot be written.
    """
    _check_new(output, [".safetensors"])
    weights = read_weights(source, **options)
    if weights.layout == OWN_FORMAT:
        raise UserError(f"{source}: is a file of frcnn_jax already")
    if weights.spec is None and options.keys() - {"preprocessing"}:
        raise UserError(
            f"{source}: is no detector, so --class-names and --anchor-* do not apply"
        )
    config = weights.spec.model if weights.spec else ModelConfig()
    config = resolve_preprocessing(config, weights)
    num_classes = len(weights.arrays.get("head.score.bias", [0, 0])) - 1
    shapes = parameter_shapes(abstract_detector(config, num_classes)[1])
    print("\n".join(describe(weights, select_matching(weights, shapes), shapes)))
    save_weights(weights, output)
    print(f"wrote {output}, {output.stat().st_size / 2**20:.0f} MiB")


def export(source: str, output: Path, layout: str, step: int | str = "latest") -> None:
    """Writes the weights of a run's checkpoint, or of a file, for another project.

    Args:
      source: run directory or checkpoint, or what `read_weights` takes.
      output: the new file.
      layout: "frcnn_jax", or one of `FORMATS`.
      step: of a run's checkpoint, or "latest" or "best".

    Raises:
      UserError: if the source cannot be read or does not have all of that project's
        layers, or the output exists or cannot be written.
    """
    suffixes = [".safetensors"] if layout == OWN_FORMAT else [".safetensors", ".pth"]
    _check_new(output, suffixes)
    weights = read_source(source, step)
    if layout == OWN_FORMAT:
        save_weights(weights, output)
    else:
        export_weights(weights, output, FORMATS[layout])
    print(f"pixels: {weights.preprocessing or 'not known'}")
    print(f"wrote {output}, {output.stat().st_size / 2**20:.0f} MiB")


def _check_new(path: Path, suffixes: Sequence[str]) -> None:
    if path.suffix not in suffixes:
        raise UserError(f"{path}: expected a name that ends in {' or '.join(suffixes)}")
    if path.exists():
        raise UserError(f"{path}: exists already, expected a new file")
    check_new_file(path)
