"""The layers of Faster R-CNN with VGG16 in PyTorch: NCHW, float32, one image.

Written from the notebook ("In [n]" is its cell) and from the project
chenyuntc/simple-faster-rcnn-pytorch ("C:" and a file in it); nothing of `frcnn_jax` is
used. Parameters are a dict with C's names: `extractor.0.weight` is conv1_1's kernel.

ReLU and max pools choose what passes. At near ties, one in a million, float32 rounding
chooses, and the gradient of the first layers moves by 1e-3, as it also does from
PyTorch in float32 to PyTorch in float64. So choices can be given, as samples are: a
`guide` holds the activations that the other implementation chose by. They must agree
with those found here, so that a choice can only differ at a near tie.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # In [3]
POOLS = (4, 9, 16, 23)

# Largest difference from the guide, in standard deviations.
GUIDE_TOLERANCE = 1e-4
NO_GUIDE: dict[str, Tensor] = {}


def normalize(image):
    """[1, 3, H, W] from RGB bytes; C:data/dataset.py, `pytorch_normalze`."""
    x = torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 255
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    return (x - mean) / std


def extract(state, image, guide=NO_GUIDE, num_layers=30):
    """The first layers of VGG16; In [3]."""
    x, choosing = image, None
    for layer in range(num_layers):
        if layer in CONVOLUTIONS:
            name = f"extractor.{layer}"
            kernel, bias = state[f"{name}.weight"], state[f"{name}.bias"]
            x = functional.conv2d(x, kernel, bias, padding=1)
        elif layer in POOLS:
            x = max_pool(x, choosing)
        else:
            x = relu(x, guide.get(name))
            choosing = guide.get(name, x)
    return x


def max_pool(x, choosing):
    """Halves [1, C, H, W] by the cells with the largest values of `choosing`.

    Where these are the same to the last bit, as once in a million windows, PyTorch's
    gradient goes to the first cell; there is no better one, so that here they share it.
    """
    size = [
        side // 2 * 2 for side in x.shape[2:]
    ]  # an odd last row or column is dropped
    x, choosing = (
        y[:, :, : size[0], : size[1]].unfold(2, 2, 2).unfold(3, 2, 2)
        for y in (x, choosing)
    )
    is_largest = choosing == choosing.amax(dim=(4, 5), keepdim=True)
    return (x * is_largest).sum(dim=(4, 5)) / is_largest.sum(dim=(4, 5))


def rpn(state, features, activation, guide=NO_GUIDE):
    """Logits [N, 2] and deltas [N, 4] of all anchors; In [24] and In [25]."""
    kernel, bias = state["rpn.conv1.weight"], state["rpn.conv1.bias"]
    x = functional.conv2d(features, kernel, bias, padding=1)
    x = activation(x, guide.get("rpn.conv1"))
    outputs = []
    for name, size in (("score", 2), ("loc", 4)):
        kernel, bias = state[f"rpn.{name}.weight"], state[f"rpn.{name}.bias"]
        output = functional.conv2d(x, kernel, bias)
        outputs.append(output.permute(0, 2, 3, 1).reshape(-1, size))
    return outputs


def head(state, pooled, activation, guide=NO_GUIDE):
    """Logits [R, L + 1] and deltas [R, L + 1, 4]; In [51] to In [53]."""
    x = pooled.flatten(1)
    for name in ("head.classifier.0", "head.classifier.2"):
        x = activation(linear(state, name, x), guide.get(name))
    deltas = linear(state, "head.cls_loc", x)
    return linear(state, "head.score", x), deltas.reshape(len(x), -1, 4)


def linear(state, name, x):
    return functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def relu(x, guide=None):
    """The rectifier; where a guide is given, it passes what is positive there."""
    if guide is None:
        return functional.relu(x)
    check_guide(functional.relu(x), guide)
    return x * (guide > 0)


def identity(x, guide=None):
    """No activation, as in In [24] and In [52]."""
    return x


def check_guide(x, guide):
    """Makes sure that choices by the guide are our own, but for near ties."""
    assert (x - guide).abs().max() < GUIDE_TOLERANCE * x.std()


def gather_cells(x, pooled):
    """Takes the cells of [1, C, H, W] that a pool, with its indices, has chosen."""
    _, cells = pooled
    return x.flatten(2).gather(2, cells.flatten(2)).reshape(cells.shape)


def pool_truncated(features, rois, guide=None):
    """[R, C, 7, 7]; In [48] to In [50]."""
    guide = features if guide is None else guide
    pooled = []
    for top, left, bottom, right in torch.from_numpy(rois / 16).long().tolist():
        window = (..., slice(top, bottom + 1), slice(left, right + 1))
        chosen = functional.adaptive_max_pool2d(guide[window], 7, return_indices=True)
        pooled.append(gather_cells(features[window], chosen))
    return torch.cat(pooled)


def pool_rounded(features, rois, guide=None):
    """[R, C, 7, 7]; Caffe's layer, C:model/roi_module.py."""
    height, width = features.shape[2:]
    values = (features if guide is None else guide)[0].detach().numpy()
    cells = np.zeros((len(rois), 7, 7, len(values)), int)
    empty = np.zeros((len(rois), 7, 7, 1), bool)
    for r, roi in enumerate(rois):
        for p, (top, bottom) in enumerate(rounded_bins(roi[0], roi[2], height)):
            for q, (left, right) in enumerate(rounded_bins(roi[1], roi[3], width)):
                if bottom <= top or right <= left:
                    empty[r, p, q] = True
                    continue
                window = values[:, top:bottom, left:right].reshape(len(values), -1)
                row, column = np.divmod(window.argmax(axis=1), right - left)
                cells[r, p, q] = (top + row) * width + left + column
    cells = torch.from_numpy(cells).permute(3, 0, 1, 2).flatten(1)
    pooled = features[0].flatten(1).gather(1, cells).reshape(-1, len(rois), 7, 7)
    empty = torch.from_numpy(empty).permute(3, 0, 1, 2)
    return pooled.masked_fill(empty, 0.0).transpose(0, 1)


def rounded_bins(low, high, num_cells):
    """First cell and end of 7 bins over a RoI of which both edges are in."""
    begin, end = (math.floor(edge / 16 + 0.5) for edge in (float(low), float(high)))
    length = np.float32(max(end - begin + 1, 1)) / np.float32(7)
    for i in range(7):
        first = math.floor(np.float32(i) * length) + begin
        last = math.ceil(np.float32(i + 1) * length) + begin
        yield min(max(first, 0), num_cells), min(max(last, 0), num_cells)
