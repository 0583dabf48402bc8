"""Weights of other projects, or our own, under the names of our detector."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from frcnn_jax.config import (
    PREPROCESSINGS,
    DetectorSpec,
    LossConfig,
    ModelConfig,
    Preprocessing,
    ProposalConfig,
)
from frcnn_jax.data.records import VOC_CLASS_NAMES
from frcnn_jax.errors import UserError
from frcnn_jax.models.vgg16 import CONVOLUTIONS
from frcnn_jax.weights.files import WeightFile, read_file
from frcnn_jax.weights.layouts import (
    CHENYUNTC,
    IMAGENET,
    Layout,
    find_layout,
)
from frcnn_jax.weights.metadata import read_preprocessing, read_spec
from frcnn_jax.weights.published import channel_order
from frcnn_jax.weights.record import OWN_FORMAT, Weights

# What detectors of other projects are trained with, unless the user says otherwise.
_ANCHOR_SCALES, _ANCHOR_RATIOS = (8.0, 16.0, 32.0), (0.5, 1.0, 2.0)
DELTA_STD = (0.1, 0.1, 0.2, 0.2)


def read_weights(
    source: str,
    *,
    preprocessing: str | None = None,
    anchor_scales: Sequence[float] = _ANCHOR_SCALES,
    anchor_ratios: Sequence[float] = _ANCHOR_RATIOS,
    class_names: Sequence[str] | None = None,
) -> Weights:
    """Reads weights of any known layout.

    Args:
      source: a path, an address or a name; see `sources.find_file`.
      preprocessing: a name of `PREPROCESSINGS`; by default what the project uses. With
        layers of an `.npz` it must be given here or in the config, unless they are the
        published Caffe ones.
      anchor_scales: of a detector of another project, which does not store them.
      anchor_ratios: of such a detector.
      class_names: of such a detector, L names; by default VOC's if it has 20 classes,
        like the published ones, or else none.

    Raises:
      UserError: if the file cannot be read, is not a VGG16 or a detector with one, or
        has another number of classes than names are given.
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
    names = _names_in(file.arrays, layout)
    _check_complete(source, layout, names)
    arrays = {
        ours: _convert(source, layout, ours, file.arrays[theirs], len(anchor_scales))
        for ours, theirs in names.items()
    }
    found = _preprocessing(source, layout, file, arrays, preprocessing)
    spec = None
    if layout.is_detector:
        num_classes = len(arrays["head.score.bias"]) - 1
        spec = DetectorSpec(
            model=_model_config(layout, found, anchor_scales, anchor_ratios),
            class_names=_class_names(source, num_classes, class_names),
        )
    return Weights(
        source=source,
        layout=layout.title,
        sha256=file.sha256,
        arrays=arrays,
        unknown=tuple(sorted(set(file.arrays) - set(names.values()))),
        preprocessing=found,
        spec=spec,
    )


def _names_in(arrays: Mapping[str, np.ndarray], layout: Layout) -> dict[str, str]:
    """Returns our name and the layout's of each array that is used."""
    all_names = layout.names()
    return {
        ours: theirs
        for ours, theirs in all_names.items()
        if theirs in arrays
        # A bias is useless without its kernel.
        and all_names[ours.replace(".bias", ".kernel")] in arrays
    }


def _model_config(
    layout: Layout,
    preprocessing: Preprocessing | None,
    anchor_scales: Sequence[float],
    anchor_ratios: Sequence[float],
) -> ModelConfig:
    return ModelConfig(
        anchor_scales=tuple(anchor_scales),
        anchor_ratios=tuple(anchor_ratios),
        proposals=ProposalConfig(rank_by=layout.rank_by),
        losses=LossConfig(delta_std=DELTA_STD),
        **({} if preprocessing is None else vars(preprocessing)),
    )


def _class_names(
    source: str, num_classes: int, given: Sequence[str] | None
) -> tuple[str, ...]:
    if given is None:
        return VOC_CLASS_NAMES if num_classes == len(VOC_CLASS_NAMES) else ()
    if len(given) != num_classes:
        raise UserError(
            f"{source}: has {num_classes} classes, but {len(given)} class names are "
            "given"
        )
    return tuple(given)


def _convert(
    source: str, layout: Layout, name: str, array: np.ndarray, num_scales: int
) -> np.ndarray:
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


def _check_complete(source: str, layout: Layout, present: Mapping[str, object]) -> None:
    """Checks that a detector is whole, or a VGG16 from its first convolution on."""
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
            # Kernel and bias of fc6 and fc7 come together.
            if name in expected or name.replace(".bias", ".kernel") in present
        ]
    missing = [names[name] for name in missing if not name.startswith(IMAGENET)]
    if missing:
        gap = "" if layout.is_detector else ", from conv1_1 on without a gap"
        raise UserError(
            f"{source}: {_some(missing)} missing, expected a {layout.title}{gap}"
        )


def _preprocessing(
    source: str,
    layout: Layout,
    file: WeightFile,
    arrays: Mapping[str, np.ndarray],
    name: str | None,
) -> Preprocessing | None:
    order = channel_order(arrays["backbone.conv1_1.kernel"])
    config = file.metadata.get("config", file.metadata)  # .pth, our .safetensors
    if order is None and isinstance(config, dict) and config.get("caffe_pretrain"):
        order = "BGR"
    known = order and layout.caffe_preprocessings[order]
    if known and name and PREPROCESSINGS[name].channel_order != order:
        raise UserError(
            f"{source}: its conv1_1 is Caffe's for {order}, but preprocessing {name} "
            f"is not {order}; leave it out"
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
        spec = read_spec(file.metadata) if layout.is_detector else None
        own = spec.model.preprocessing if spec else read_preprocessing(file.metadata)
        for name, array in file.arrays.items():
            _check_dimensions(name, array)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    except ValueError as error:
        raise UserError(f"{source}: damaged ({error})") from None
    return Weights(
        source=source,
        layout=OWN_FORMAT,
        sha256=file.sha256,
        arrays=file.arrays,
        preprocessing=own,
        spec=spec,
    )


def _some(names: Iterable[str]) -> str:
    """The first three of some names, for a message."""
    names = sorted(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
