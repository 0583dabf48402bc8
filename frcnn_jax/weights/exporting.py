"""Writes weights: our own files, and state dicts of other projects."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.numpy

from frcnn_jax.config import PREPROCESSINGS
from frcnn_jax.errors import UserError, first_line
from frcnn_jax.files import new_file
from frcnn_jax.weights.files import import_extra
from frcnn_jax.weights.importing import DELTA_STD
from frcnn_jax.weights.layouts import CHENYUNTC, IMAGENET, TORCHVISION, Layout
from frcnn_jax.weights.record import OWN_FORMAT, Weights

FORMATS = {"torchvision": TORCHVISION, "chenyuntc": CHENYUNTC}


def save_weights(weights: Weights, path: Path) -> None:
    """Writes a `.safetensors`: arrays, preprocessing and, of a detector, its spec.

    Args:
      weights: of VGG16 or a whole detector.
      path: of the new file.

    Raises:
      UserError: if the file cannot be written, or a detector has no class names.
    """
    preprocessing = weights.preprocessing
    metadata = {
        "format": OWN_FORMAT,
        "source": f"{weights.source}, {weights.layout}, {weights.sha256}",
        "model": json.dumps(
            {} if preprocessing is None else dataclasses.asdict(preprocessing)
        ),
    }
    if weights.spec is not None:
        if not weights.spec.class_names:
            raise UserError(
                f"{weights.source}: does not name its classes, give --class-names"
            )
        metadata["detector"] = json.dumps(weights.spec.to_dict())
    _write(
        path,
        lambda part: safetensors.numpy.save_file(
            dict(weights.arrays), part, metadata=metadata
        ),
    )


def export_weights(weights: Weights, path: Path, layout: Layout) -> None:
    """Writes a state dict for another project.

    Args:
      weights: of VGG16 or a whole detector.
      path: of the new file, `.safetensors`, or else PyTorch's `.pth`.
      layout: of the project, one of `FORMATS`.

    Raises:
      UserError: if a layer is missing, that project has no such preprocessing, the file
        cannot be written, or PyTorch is needed but not installed.
    """
    state = state_dict(weights, layout)
    config = _config(weights) if layout.is_detector else None
    if path.suffix == ".safetensors":
        metadata = {k: "yes" for k, v in (config or {}).items() if v}
        _write(path, lambda part: safetensors.numpy.save_file(state, part, metadata))
        return
    torch = import_extra("torch", "torch")
    content = {
        # A copy, as those of JAX cannot be written to, of which torch warns.
        name: torch.from_numpy(np.array(array))
        for name, array in state.items()
    }
    if layout.is_detector:
        content = {"model": content, "config": config}
    _write(path, lambda part: torch.save(content, part))


def state_dict(weights: Weights, layout: Layout) -> dict[str, np.ndarray]:
    """Names and arranges the arrays as another project does.

    Args:
      weights: of VGG16 or a whole detector.
      layout: of the project.

    Raises:
      UserError: if a layer other than ImageNet's classes is missing, or has a shape
        that cannot be rearranged.
    """
    num_scales = len(weights.spec.model.anchor_scales) if weights.spec else 0
    names = layout.names()
    missing = [n for n in names if n not in weights.arrays and IMAGENET not in n]
    if missing:
        raise UserError(
            f"{weights.source}: {missing[0]} is missing, which a {layout.title} has"
        )
    try:
        return {
            theirs: layout.to_theirs(ours, weights.arrays[ours], num_scales)
            for ours, theirs in names.items()
            if ours in weights.arrays
        }
    except ValueError as error:
        raise UserError(f"{weights.source}: cannot be rearranged ({error})") from None


def _config(weights: Weights) -> dict[str, bool]:
    """Returns the config with which simple-faster-rcnn-pytorch preprocesses alike."""
    delta_std = weights.model_fields["losses.delta_std"]
    if delta_std != DELTA_STD:
        raise UserError(
            f"{weights.source}: its deltas are divided by {delta_std}, in "
            f"simple-faster-rcnn-pytorch by {DELTA_STD}"
        )
    for name, caffe in (("torchvision", False), ("chenyuntc-caffe", True)):
        if weights.preprocessing == PREPROCESSINGS[name]:
            return {"caffe_pretrain": caffe}
    raise UserError(
        f"{weights.source}: the detector takes {weights.preprocessing}; "
        "simple-faster-rcnn-pytorch has no such preprocessing"
    )


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Writes under another name first, so that no half-written file is left."""
    with new_file(path) as part:
        part.touch()
        usual_mode = part.stat().st_mode
        try:
            write(part)
        except Exception as error:  # the library's own for a full disk
            raise UserError(f"cannot write {path}: {first_line(error)}") from None
        part.chmod(usual_mode)  # safetensors' are readable by their owner only
