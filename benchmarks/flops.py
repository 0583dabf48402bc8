"""Floating-point operations of the detector's layers, and what devices can do.

A product and its sum count as two. Only convolutions and fully connected layers count:
everything else is below a percent. Cells beyond the true image are computed, so they
count.
"""

from frcnn_jax.config import ModelConfig
from frcnn_jax.models.faster_rcnn import POOLED_SIZE
from frcnn_jax.models.vgg16 import BLOCKS

# FLOP/s without sparsity, by the beginning of the device's name, from the makers' data
# sheets: NVIDIA H100 (SXM5), H200 (SXM) and A100 Tensor Core GPU.
_HOPPER = {"float32": 67e12, "tf32": 494e12, "bfloat16": 989e12}
_AMPERE = {"float32": 19.5e12, "tf32": 156e12, "bfloat16": 312e12}
PEAKS = {
    "NVIDIA H100 80GB HBM3": _HOPPER,
    "NVIDIA H200": _HOPPER,
    "NVIDIA A100": _AMPERE,
}


def peak(device_kind: str, precision: str) -> float | None:
    """Returns a device's FLOP/s; None of one that is not in the table."""
    for name, peaks in PEAKS.items():
        if device_kind.startswith(name):
            return peaks[precision]
    return None


def training_flops(
    config: ModelConfig, num_classes: int, canvas: tuple[int, int]
) -> float:
    """Counts those of a training step, for one image.

    The gradient of a layer's kernel takes the same number as the layer, and so does
    that of its input. Frozen blocks have neither, and the first layer above them needs
    the former only.
    """
    total, is_first = 0.0, True
    for index, block in enumerate(_backbone(config, canvas)):
        for layer in block:
            if index < config.frozen_blocks:
                total += layer
            else:
                total += (2 if is_first else 3) * layer
                is_first = False
    num_rois = config.proposal_targets.num_samples
    return total + 3 * (_rpn(config, canvas) + _head(config, num_classes, num_rois))


def detection_flops(
    config: ModelConfig, num_classes: int, canvas: tuple[int, int]
) -> float:
    """Counts those of detection, for one image."""
    backbone = sum(map(sum, _backbone(config, canvas)))
    head = _head(config, num_classes, config.proposals.post_nms_test)
    return backbone + _rpn(config, canvas) + head


def _backbone(config: ModelConfig, canvas: tuple[int, int]) -> list[list[float]]:
    """Counts those of each convolution of each block."""
    in_channels, counts = 3, []
    for index, block in enumerate(BLOCKS):
        counts.append([])
        for _, full_channels in block:
            channels = _scaled(full_channels, config)
            counts[-1].append(2 * _cells(canvas, index) * 9 * in_channels * channels)
            in_channels = channels
    return counts


def _rpn(config: ModelConfig, canvas: tuple[int, int]) -> float:
    num_anchors = len(config.anchor_scales) * len(config.anchor_ratios)
    per_cell = 9 * _features(config) + 6 * num_anchors
    return 2 * _cells(canvas, len(BLOCKS) - 1) * per_cell * config.rpn_channels


def _head(config: ModelConfig, num_classes: int, num_rois: int) -> float:
    pooled = POOLED_SIZE[0] * POOLED_SIZE[1] * _features(config)
    outputs = 5 * (num_classes + 1)
    channels = config.head_channels
    return 2 * num_rois * channels * (pooled + channels + outputs)


def _cells(canvas: tuple[int, int], num_halvings: int) -> int:
    return (canvas[0] >> num_halvings) * (canvas[1] >> num_halvings)


def _features(config: ModelConfig) -> int:
    return _scaled(BLOCKS[-1][-1][1], config)


def _scaled(channels: int, config: ModelConfig) -> int:
    return max(1, round(channels * config.width))
