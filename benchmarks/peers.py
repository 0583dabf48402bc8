"""The same operations by torch and torchvision, on the device that JAX uses.

Images and maps come as NHWC, boxes as `(y_min, x_min, y_max, x_max)`; what the peer
expects is prepared once, outside of what is timed. Each function returns one to time,
which takes how often to run; or None where torch and torchvision are not installed.
"""

import functools
from collections.abc import Callable

import jax
import numpy as np

try:
    import torch
    import torchvision
except ImportError:
    torch = None

from frcnn_jax.models.vgg16 import BLOCKS


def _if_installed(make: Callable) -> Callable:
    """Makes None instead of a function to time, where there is no torch."""

    @functools.wraps(make)
    def call(*args, **kwargs):
        return None if torch is None else make(*args, **kwargs)

    return call


@_if_installed
def nms(boxes, scores, iou_threshold: float) -> Callable:
    boxes, scores = _boxes(boxes), _tensor(scores)
    return _run(lambda: torchvision.ops.nms(boxes, scores, iou_threshold))


@_if_installed
def batched_nms(boxes, scores, classes, iou_threshold: float) -> Callable:
    boxes, scores, classes = _boxes(boxes), _tensor(scores), _tensor(classes)
    return _run(
        lambda: torchvision.ops.batched_nms(boxes, scores, classes, iou_threshold)
    )


@_if_installed
def roi(name: str, features, rois, cotangent=None, **options) -> Callable:
    """`roi_pool` or `roi_align` of torchvision; with the gradient given a cotangent.

    It pools bfloat16 in float32, as under autocast: CUDA has no such kernel.
    """
    rois = torch.cat([torch.zeros(len(rois), 1), _boxes(rois, "cpu")], dim=1)
    features = _tensor(features).permute(2, 0, 1)[None].contiguous()
    options |= {"boxes": rois.to(_device()), "output_size": 7, "spatial_scale": 1 / 16}

    def pool(features):
        pooled = getattr(torchvision.ops, name)(features.float(), **options)
        return pooled.to(features.dtype)

    if cotangent is None:
        return _run(lambda: pool(features))
    cotangent = _tensor(cotangent).permute(0, 3, 1, 2).contiguous()
    features.requires_grad_()

    def run():
        features.grad = None
        pool(features).backward(cotangent)

    return _run(run)


@_if_installed
def vgg16(images, cotangent, frozen_blocks: int) -> Callable:
    """Forward and backward pass of the 13 convolutions."""
    torch.backends.cudnn.benchmark = True
    cuda = _device() == "cuda"
    order = torch.channels_last if cuda else torch.contiguous_format
    images, cotangent = (
        _tensor(x).permute(0, 3, 1, 2).contiguous(memory_format=order)
        for x in (images, cotangent)
    )
    channels, blocks = 3, torch.nn.ModuleList()
    for block in BLOCKS:
        layers = []
        for _, out_channels in block:
            layers += [torch.nn.Conv2d(channels, out_channels, 3, padding=1)]
            layers += [torch.nn.ReLU()]
            channels = out_channels
        blocks.append(torch.nn.Sequential(*layers))
    blocks.to(images).to(memory_format=order)

    def run():
        blocks.zero_grad()
        x = images
        for index, block in enumerate(blocks):
            if index > 0:
                x = torch.nn.functional.max_pool2d(x, 2)
            x = block(x)
            if index + 1 == frozen_blocks:
                x = x.detach()
        x.backward(cotangent)

    return _run(run)


def _run(function: Callable) -> Callable:
    """Runs so many times, then waits for an accelerator as `block_until_ready` does."""

    def run(times: int):
        for _ in range(times):
            function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return run


def _device() -> str:
    return "cuda" if jax.default_backend() == "gpu" else "cpu"


def _tensor(array, device: str | None = None):
    bfloat16 = array.dtype == jax.numpy.bfloat16
    array = np.asarray(array, np.float32 if bfloat16 else None)
    tensor = torch.tensor(array, device=device or _device())
    return tensor.bfloat16() if bfloat16 else tensor


def _boxes(boxes, device: str | None = None):
    return _tensor(np.asarray(boxes)[:, [1, 0, 3, 2]], device)
