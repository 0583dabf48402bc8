"""Weights of other projects, or our own, as parameters of a detector."""

import dataclasses
import functools
import hashlib
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from frcnn_jax.config import ModelConfig
from frcnn_jax.errors import UserError
from frcnn_jax.preprocessing import PREPROCESSINGS, Preprocessing
from frcnn_jax.weights.files import WeightFile, read_file
from frcnn_jax.weights.layouts import (
    CHENYUNTC,
    CONVOLUTIONS,
    IMAGENET,
    Layout,
    find_layout,
)
from frcnn_jax.weights.metadata import read_model

OWN_FORMAT = "frcnn_jax"

# SHA-256 of conv1_1's kernel in the published Caffe VGG16, in `.npy` form with the
# input channels RGB; the others of Simonyan and Zisserman's model are not needed to
# tell which preprocessing it wants. From oranshayer/VGGNet: vgg16_weights/.
_CAFFE_CONV1_1 = "0b1cf41d353ae96b186f2cffb6c17b5c89578e1cbaca2570f01bd29b1ae4bff3"

# The recipe that the detectors of other projects are trained with, unless said.
_ANCHOR_SCALES, _ANCHOR_RATIOS = (8.0, 16.0, 32.0), (0.5, 1.0, 2.0)
DELTA_STD = (0.1, 0.1, 0.2, 0.2)


@dataclasses.dataclass(frozen=True)
class Weights:
    """Parameters by the names of our detector's, and what they presuppose."""

    source: str  # path or address
    layout: str  # whose names and arrangement it had
    sha256: str  # of the file
    arrays: Mapping[str, np.ndarray]  # "backbone.conv1_1.kernel": ...
    unknown: tuple[str, ...]  # what else the file has
    # Fields of `ModelConfig` that the parameters are right for only: colours, and those
    # of anchors and deltas if it is a whole detector.
    model: Mapping[str, Any]

    @property
    def preprocessing(self) -> Preprocessing:
        """What pixels must become; all fields are known."""
        fields = [field.name for field in dataclasses.fields(Preprocessing)]
        return Preprocessing(*(self.model[name] for name in fields))


def read_weights(
    source: str,
    *,
    preprocessing: str | None = None,
    anchor_scales: Sequence[float] = _ANCHOR_SCALES,
    anchor_ratios: Sequence[float] = _ANCHOR_RATIOS,
) -> Weights:
    """Reads weights of any known layout.

    Args:
      source: a path, or `hf://OWNER/NAME`.
      preprocessing: a name of `PREPROCESSINGS`; by default what the project uses. With
        layers of an `.npz` it must be given here or in the config, unless they are the
        published Caffe ones.
      anchor_scales: of a detector of another project, which does not store them.
      anchor_ratios: likewise.

    Raises:
      UserError: if the file cannot be read, or is not a VGG16 or a detector with one.
    """
    file = read_file(source)
    if file.metadata.get("format") == OWN_FORMAT:
        return _read_own(source, file)
    layout = find_layout(file.arrays)
    if layout is None:
        raise UserError(
            f"{source}: has {_some(file.arrays) or 'no arrays'}, expected names such "
            "as features.0.weight, conv1_1_W or extractor.0.weight (docs/weights.md)"
        )
    names = {
        ours: theirs
        for ours, theirs in layout.names().items()
        if theirs in file.arrays
        # A bias without its kernel is of no use.
        and layout.names()[ours.replace(".bias", ".kernel")] in file.arrays
    }
    _check_complete(source, layout, names)
    arrays = {
        ours: _convert(source, layout, ours, file.arrays[theirs], len(anchor_scales))
        for ours, theirs in names.items()
    }
    unknown = tuple(sorted(set(file.arrays) - set(names.values())))
    colors = _preprocessing(source, layout, file, arrays, preprocessing)
    model = {} if colors is None else dataclasses.asdict(colors)
    if layout.is_detector:
        model |= {
            "anchor_scales": tuple(anchor_scales),
            "anchor_ratios": tuple(anchor_ratios),
            "losses.delta_std": DELTA_STD,
        }
    return Weights(source, layout.title, file.sha256, arrays, unknown, model)


def trained_weights(
    source: str,
    arrays: Mapping[str, np.ndarray],
    preprocessing: Preprocessing,
    config: ModelConfig,
) -> Weights:
    """Describes the parameters of a detector of ours.

    Args:
      source: where they are from.
      arrays: all parameters by name.
      preprocessing: what they were trained with.
      config: of the detector.
    """
    model = dataclasses.asdict(preprocessing) | {
        "anchor_scales": config.anchor_scales,
        "anchor_ratios": config.anchor_ratios,
        "losses.delta_std": config.losses.delta_std,
    }
    return Weights(source, OWN_FORMAT, "", arrays, (), model)


def fit(
    weights: Weights, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """Takes what a detector has a place for.

    The layers of class scores and deltas are left out if the classes are not as many;
    all else must have the detector's shapes.

    Args:
      weights: from `read_weights`.
      shapes: of the detector's parameters, by name.

    Raises:
      UserError: if a shape is another: the file is of another architecture.
    """
    taken = {}
    for name, array in weights.arrays.items():
        if name not in shapes:
            continue
        if array.shape != shapes[name]:
            per_class = name.startswith(("head.score.", "head.delta."))
            if per_class and array.shape[:-1] == shapes[name][:-1]:
                continue
            raise UserError(
                f"{weights.source}: {name} has the shape {array.shape}, expected "
                f"{shapes[name]}: another architecture"
            )
        taken[name] = array
    return taken


def settle(config: ModelConfig, weights: Weights) -> ModelConfig:
    """Fills in the colours' fields, and checks that weights and config agree.

    Raises:
      UserError: if a field of the config is not what the weights presuppose, or neither
        says how pixels are preprocessed.
    """
    given = {}
    for field, value in weights.model.items():
        ours = functools.reduce(getattr, field.split("."), config)
        if ours is None:
            given[field] = value
        elif ours != value:
            raise UserError(
                f"model.{field} is {ours}, but {weights.source} is right for {value} "
                "only; leave it out or set it to that"
            )
    config = dataclasses.replace(config, **given)
    if None in (config.channel_order, config.pixel_mean, config.pixel_std):
        raise UserError(
            f"{weights.source} does not say how pixels are preprocessed: give "
            "model.channel_order, model.pixel_mean and model.pixel_std"
        )
    return config


def _convert(source, layout: Layout, name: str, array: np.ndarray, num_scales: int):
    try:
        ours = layout.to_ours(name, array, num_scales)
        _check_dimensions(name, ours)
        return ours
    except (ValueError, IndexError):
        raise UserError(
            f"{source}: {layout.names()[name]} has the shape {array.shape}, which it "
            f"has in no {layout.title}"
        ) from None


def _check_dimensions(name: str, array: np.ndarray) -> None:
    is_convolution = name.startswith(("backbone.", "rpn."))
    expected = 1 if name.endswith(".bias") else 4 if is_convolution else 2
    if array.ndim != expected or array.size == 0:
        raise ValueError(f"{name} has the shape {array.shape}")


def _check_complete(source: str, layout: Layout, present: Mapping) -> None:
    """A detector must be whole; of VGG16 the first convolutions will do."""
    names = layout.names()
    missing = [name for name in names if name not in present]
    if not layout.is_detector:
        convolutions = [
            f"backbone.{layer}.{kind}"
            for layer in CONVOLUTIONS
            for kind in ("kernel", "bias")
        ]
        last = max((i for i, n in enumerate(convolutions) if n in present), default=0)
        expected = convolutions[: last // 2 * 2 + 2]
        missing = [
            name
            for name in missing
            # Of fc6 and fc7 there is both or neither.
            if name in expected or name.replace(".bias", ".kernel") in present
        ]
    missing = [names[name] for name in missing if not name.startswith(IMAGENET)]
    if missing:
        raise UserError(
            f"{source}: {_some(missing)} missing, expected a {layout.title}"
            + (
                ""
                if layout.is_detector
                else ", its layers from conv1_1 on without a gap"
            )
        )


def _preprocessing(
    source: str,
    layout: Layout,
    file: WeightFile,
    arrays: Mapping[str, np.ndarray],
    name: str | None,
) -> Preprocessing | None:
    kernel = arrays["backbone.conv1_1.kernel"]
    config = file.metadata.get("config", file.metadata)  # .pth, our .safetensors
    known = None
    if _npy_sha256(kernel[:, :, ::-1]) == _CAFFE_CONV1_1:
        known = layout.caffe_preprocessings[0]
    elif _npy_sha256(kernel) == _CAFFE_CONV1_1:
        known = layout.caffe_preprocessings[1]
    elif isinstance(config, dict) and config.get("caffe_pretrain"):
        known = layout.caffe_preprocessings[0]
    if known and name:
        order = PREPROCESSINGS[known].channel_order
        if PREPROCESSINGS[name].channel_order != order:
            raise UserError(
                f"{source}: its conv1_1 is Caffe's for {order}, but preprocessing "
                f"{name} is not {order}; leave it out"
            )
    name = name or known or layout.preprocessing
    return None if name is None else PREPROCESSINGS[name]


def _read_own(source: str, file: WeightFile) -> Weights:
    layout = Layout(
        "file of frcnn_jax",
        {name: name for name in CHENYUNTC.layers},
        suffixes=(".kernel", ".bias"),
        is_detector="rpn.conv.kernel" in file.arrays,
    )
    _check_complete(source, layout, file.arrays)
    try:
        model = read_model(file.metadata, layout.is_detector)
        for name, array in file.arrays.items():
            _check_dimensions(name, array)
    except ValueError as error:
        raise UserError(f"{source}: damaged ({error})") from None
    return Weights(source, OWN_FORMAT, file.sha256, file.arrays, (), model)


def _npy_sha256(array: np.ndarray) -> str:
    """The digest of what NumPy before 1.14 saved, with its padding of the header."""
    shape = f"{array.shape}"
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (16 - (11 + len(header)) % 16) + "\n"
    start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
    return hashlib.sha256(start + np.ascontiguousarray(array).tobytes()).hexdigest()


def _some(names) -> str:
    """The first three of some names, for a message."""
    names = sorted(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
