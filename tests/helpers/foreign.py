"""Small VGG16s and detectors as other projects name and arrange them.

An eighth of VGG16's channels, 32 in fc6 and fc7. All values are small integers, so that
sums of products are exact, whatever their order.
"""

from collections.abc import Mapping

import numpy as np

Arrays = dict[str, np.ndarray]

# Names, output channels, and places in torchvision's `features`.
CONVOLUTIONS = {
    "conv1_1": (8, 0),
    "conv1_2": (8, 2),
    "conv2_1": (16, 5),
    "conv2_2": (16, 7),
    "conv3_1": (32, 10),
    "conv3_2": (32, 12),
    "conv3_3": (32, 14),
    "conv4_1": (64, 17),
    "conv4_2": (64, 19),
    "conv4_3": (64, 21),
    "conv5_1": (64, 24),
    "conv5_2": (64, 26),
    "conv5_3": (64, 28),
}
NUM_SCALES, NUM_RATIOS = 2, 3
NUM_CLASSES = 4


def make(detector: bool = False) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Kernels [out, in, h, w] or [out, in] and biases [out], by layer."""
    shapes, channels = {}, 3
    for name, (out_channels, _) in CONVOLUTIONS.items():
        shapes[name] = (out_channels, channels, 3, 3)
        channels = out_channels
    shapes |= {"fc6": (32, channels * 7 * 7), "fc7": (32, 32)}
    if detector:
        num_anchors = NUM_SCALES * NUM_RATIOS
        shapes["rpn_conv"] = (32, channels, 3, 3)
        shapes["rpn_score"] = (num_anchors * 2, 32, 1, 1)
        shapes["rpn_loc"] = (num_anchors * 4, 32, 1, 1)
        shapes["score"] = (NUM_CLASSES + 1, 32)
        shapes["cls_loc"] = ((NUM_CLASSES + 1) * 4, 32)
    else:
        shapes["fc8"] = (10, 32)
    rng = np.random.default_rng(0)
    return {
        name: tuple(
            rng.integers(-4, 5, size).astype(np.float32) for size in (shape, shape[:1])
        )
        for name, shape in shapes.items()
    }


def named(
    layers: Mapping, names: Mapping[str, str], kernel=".weight", bias=".bias"
) -> Arrays:
    """Puts layers under the names of a project, in the order of `layers`."""
    arrays = {}
    for layer, (weight, offset) in layers.items():
        arrays[names[layer] + kernel] = weight
        arrays[names[layer] + bias] = offset
    return arrays


def numbered(prefix: str) -> dict[str, str]:
    return {name: f"{prefix}{index}" for name, (_, index) in CONVOLUTIONS.items()}


def torchvision(fc6="classifier.0", fc7="classifier.3", fc8="classifier.6") -> Arrays:
    names = numbered("features.") | {"fc6": fc6, "fc7": fc7, "fc8": fc8}
    return named(make(), names)


def pytorch_vgg() -> Arrays:
    return torchvision("classifier.1", "classifier.4")


def timm() -> Arrays:
    """fc6 and fc7 are convolutions."""
    arrays = torchvision("pre_logits.fc1", "pre_logits.fc2", "head.fc")
    for name, size in (("pre_logits.fc1", 7), ("pre_logits.fc2", 1)):
        kernel = arrays[f"{name}.weight"]
        shape = (kernel.shape[0], -1, size, size)
        arrays[f"{name}.weight"] = kernel.reshape(shape)
    return arrays


def npz() -> Arrays:
    """As TensorFlow arranges: kernels [h, w, in, out], fc6 reads (h, w, channel)."""
    layers = {}
    for name, (kernel, bias) in make().items():
        if name == "fc6":
            kernel = np.moveaxis(kernel.reshape(32, 64, 7, 7), 1, 3).reshape(32, -1).T
        elif kernel.ndim == 2:
            kernel = kernel.T
        else:
            kernel = np.einsum("oihw->hwio", kernel)
        layers[name] = kernel, bias
    return named(layers, {name: name for name in layers}, "_W", "_b")


def keras(kernel="_W_1:0", bias="_b_1:0") -> Arrays:
    """As `npz`, in groups named like the layers."""
    names = {n: f"block{n[4]}_conv{n[6]}" for n in CONVOLUTIONS}
    names |= {"fc6": "fc1", "fc7": "fc2", "fc8": "predictions"}
    arrays = {}
    for name, array in npz().items():
        layer, kind = name.rsplit("_", 1)
        suffix = kernel if kind == "W" else bias
        arrays[f"{names[layer]}/{names[layer]}{suffix}"] = array
    return arrays


def chenyuntc(fc7: str = "head.classifier.2") -> Arrays:
    names = numbered("extractor.") | {"fc6": "head.classifier.0", "fc7": fc7}
    names |= {"rpn_conv": "rpn.conv1", "rpn_score": "rpn.score", "rpn_loc": "rpn.loc"}
    names |= {"score": "head.score", "cls_loc": "head.cls_loc"}
    return named(make(detector=True), names)


def chainercv(end: str = "/conv") -> Arrays:
    names = {name: f"extractor/{name}{end}" for name in CONVOLUTIONS}
    names |= {"rpn_conv": "rpn/conv1", "rpn_score": "rpn/score", "rpn_loc": "rpn/loc"}
    heads = ("fc6", "fc7", "score", "cls_loc")
    names |= {name: f"head/{name}" for name in heads}
    return named(make(detector=True), names, "/W", "/b")
