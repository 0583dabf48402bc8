"""How other projects name and arrange the parameters of VGG16 and Faster R-CNN.

Ours are named as the detector's modules are, `backbone.conv1_1.kernel` and so on.
Kernels of convolutions are [height, width, in, out], those of linear layers [in, out];
fc6 reads features flattened as (height, width, channel), anchors are scale-major.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np

from frcnn_jax.models.vgg16 import BLOCKS, CONVOLUTIONS

# ImageNet's classes: not part of a detector, kept for exporting.
IMAGENET = "imagenet.fc8"


@dataclasses.dataclass(frozen=True)
class Layout:
    """A project's names and arrangement of the parameters."""

    title: str
    layers: Mapping[str, str]  # ours: theirs, without "kernel" or "weight"
    suffixes: tuple[str, str] = (".weight", ".bias")  # of kernel and bias
    is_detector: bool = False
    output_first: bool = True  # kernels [out, in, h, w], fc6 reads (channel, h, w)
    rank_by: Literal["probability", "logit"] = "probability"  # of its proposals
    preprocessing: str | None = "torchvision"  # None: the file does not say
    # If conv1_1 is the published Caffe kernel, by the order of colors it is for.
    caffe_preprocessings: Mapping[str, str] = dataclasses.field(
        default_factory=lambda: {"BGR": "caffe", "RGB": "caffe-rgb"}
    )

    def names(self) -> dict[str, str]:
        """All parameters, ours: theirs."""
        return {
            f"{ours}.{kind}": f"{theirs}{suffix}"
            for ours, theirs in self.layers.items()
            for kind, suffix in zip(("kernel", "bias"), self.suffixes, strict=True)
        }

    def to_ours(self, name: str, array: np.ndarray, num_scales: int) -> np.ndarray:
        """Rearranges an array of theirs.

        Args:
          name: of our parameter.
          array: theirs.
          num_scales: anchor scales of a detector.

        Raises:
          ValueError: if its shape does not allow that.
        """
        layer, kind = name.rsplit(".", 1)
        if kind == "kernel" and self.output_first:
            array = _output_last(layer, array)
        if self.is_detector and layer in _VALUES_PER_ANCHOR:
            array = _swap_anchors(array, layer, (-1, num_scales))
        return np.ascontiguousarray(array)

    def to_theirs(self, name: str, array: np.ndarray, num_scales: int) -> np.ndarray:
        """Rearranges an array of ours: the inverse of `to_ours`.

        Args:
          name: of our parameter.
          array: ours.
          num_scales: as for `to_ours`.
        """
        layer, kind = name.rsplit(".", 1)
        if self.is_detector and layer in _VALUES_PER_ANCHOR:
            array = _swap_anchors(array, layer, (num_scales, -1))
        if kind == "kernel" and self.output_first:
            array = _output_first(layer, array)
        return np.ascontiguousarray(array)


_POOLED = (7, 7)
_VALUES_PER_ANCHOR = {"rpn.score": 2, "rpn.delta": 4}


def _output_last(layer: str, kernel: np.ndarray) -> np.ndarray:
    """Puts the output axis last; timm's fc6 and fc7 are convolutions (7 x 7, 1 x 1)."""
    num_outputs = kernel.shape[0]
    if layer == "head.fc6":
        kernel = kernel.reshape(num_outputs, -1, *_POOLED).transpose(2, 3, 1, 0)
        return kernel.reshape(-1, num_outputs)
    if layer.startswith(("head.", "imagenet.")):
        return kernel.reshape(num_outputs, -1).T
    return kernel.transpose(2, 3, 1, 0)


def _output_first(layer: str, kernel: np.ndarray) -> np.ndarray:
    if layer == "head.fc6":
        num_outputs = kernel.shape[1]
        kernel = kernel.reshape(*_POOLED, -1, num_outputs).transpose(3, 2, 0, 1)
        return kernel.reshape(num_outputs, -1)
    if layer.startswith(("head.", "imagenet.")):
        return kernel.T
    return kernel.transpose(3, 2, 0, 1)


def _swap_anchors(array: np.ndarray, layer: str, order: tuple[int, int]) -> np.ndarray:
    """Swaps the two axes, of the lengths `order`, that the outputs begin with."""
    axes = array.reshape(*array.shape[:-1], *order, _VALUES_PER_ANCHOR[layer])
    return np.swapaxes(axes, -3, -2).reshape(array.shape)


def _numbered(prefix: str) -> dict[str, str]:
    """The convolutions of torchvision's VGG16, between ReLUs and max pools."""
    layers, index = {}, 0
    for block in BLOCKS:
        for name, _ in block:
            layers[f"backbone.{name}"] = f"{prefix}{index}"
            index += 2
        index += 1
    return layers


def _named(pattern: str) -> dict[str, str]:
    """The convolutions by block and number in it, or by our name."""
    return {
        f"backbone.{name}": pattern.format(*name[4:].split("_"), name=name)
        for name in CONVOLUTIONS
    }


def _fully_connected(*names: str) -> dict[str, str]:
    return dict(zip(("head.fc6", "head.fc7", IMAGENET), names, strict=False))


def _chenyuntc(fc7: str) -> Layout:
    return Layout(
        "simple-faster-rcnn-pytorch detector",
        _numbered("extractor.")
        | _fully_connected("head.classifier.0", fc7)
        | {
            "rpn.conv": "rpn.conv1",
            "rpn.score": "rpn.score",
            "rpn.delta": "rpn.loc",
            "head.score": "head.score",
            "head.delta": "head.cls_loc",
        },
        is_detector=True,
        caffe_preprocessings={"BGR": "chenyuntc-caffe", "RGB": "chainercv"},
    )


def _chainercv(convolution: str) -> Layout:
    return Layout(
        "chainercv FasterRCNNVGG16",
        _named(convolution)
        | _fully_connected("head/fc6", "head/fc7")
        | {
            "rpn.conv": "rpn/conv1",
            "rpn.score": "rpn/score",
            "rpn.delta": "rpn/loc",
            "head.score": "head/score",
            "head.delta": "head/cls_loc",
        },
        suffixes=("/W", "/b"),
        is_detector=True,
        rank_by="logit",  # its region_proposal_network.py takes no softmax
        preprocessing="chainercv",
        caffe_preprocessings={"BGR": "py-faster-rcnn", "RGB": "chainercv"},
    )


def _keras(kernel: str, bias: str) -> Layout:
    return Layout(
        "Keras VGG16",
        _named("block{0}_conv{1}/block{0}_conv{1}")
        | _fully_connected("fc1/fc1", "fc2/fc2", "predictions/predictions"),
        suffixes=(kernel, bias),
        output_first=False,
        preprocessing="caffe",
    )


TORCHVISION = Layout(
    "torchvision VGG16",
    _numbered("features.") | _fully_connected(*(f"classifier.{i}" for i in (0, 3, 6))),
)
CHENYUNTC = _chenyuntc("head.classifier.2")

LAYOUTS = (
    TORCHVISION,
    Layout(  # jcjohnson/pytorch-vgg: its classifier begins with a reshaping module
        "Caffe VGG16 by pytorch-vgg",
        _numbered("features.")
        | _fully_connected(*(f"classifier.{i}" for i in (1, 4, 6))),
        preprocessing="caffe",
    ),
    Layout(
        "timm VGG16",
        _numbered("features.")
        | _fully_connected("pre_logits.fc1", "pre_logits.fc2", "head.fc"),
    ),
    CHENYUNTC,
    _chenyuntc("head.classifier.3"),  # trained with use_drop
    _chainercv("extractor/{name}"),
    _chainercv("extractor/{name}/conv"),  # since its Conv2DActiv
    Layout(
        "VGG16 layer by layer",
        {f"backbone.{name}": name for name in CONVOLUTIONS}
        | _fully_connected("fc6", "fc7", "fc8"),
        suffixes=("_W", "_b"),
        output_first=False,
        preprocessing=None,
    ),
    _keras("_W_1:0", "_b_1:0"),  # the published file
    _keras("/kernel:0", "/bias:0"),  # as Keras 2 saves
)


def find_layout(names: Iterable[str]) -> Layout | None:
    """Finds the layout that most of the names belong to; None if none has any."""
    names = set(names)

    def count(layout: Layout) -> int:
        return len(names.intersection(layout.names().values()))

    best = max(LAYOUTS, key=count)  # the first of several
    return best if count(best) > 0 else None
