"""Faster R-CNN of the VOC recipe by PyTorch's layers and torchvision's ops.

It takes our parameters, so that both sides find the same objects. One image; boxes are
`(x_min, y_min, x_max, y_max)` here, as torchvision has them.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
import torchvision
from torch import Tensor
from torch.nn import functional

from frcnn_jax import ops
from frcnn_jax.config import ModelConfig
from frcnn_jax.models.vgg16 import BLOCKS, STRIDE
from frcnn_jax.ops.boxes import MAX_LOG_SCALE

_XYXY = [1, 0, 3, 2]  # of our order, and of deltas


class Found(NamedTuple):
    """Detections, best first."""

    boxes: Tensor  # [D, 4]
    scores: Tensor  # [D]
    labels: Tensor  # [D]


class PeerDetector:
    """A detector; call it with an image to detect."""

    def __init__(
        self, config: ModelConfig, params: Mapping[str, np.ndarray], device: str
    ) -> None:
        """Converts the parameters, which are named as in `models.parameters`."""
        self.config = config
        self.device = device
        self.weights = {
            name: self._tensor(
                # HWIO to OIHW, or (in, out) to (out, in).
                array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
            )
            for name, array in params.items()
        }
        colors = config.preprocessing
        self.mean, self.std = (
            self._tensor(np.array(each, np.float32)[:, None, None])
            for each in (colors.pixel_mean, colors.pixel_std)
        )
        self.delta_std = self._tensor(np.array(config.losses.delta_std)[_XYXY])

    def _tensor(self, array) -> Tensor:
        array = np.ascontiguousarray(array, np.float32)
        return torch.tensor(array, device=self.device)

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Found:
        """Detects objects in [3, H, W] uint8 RGB, resized but not padded."""
        image_size = pixels.shape[1], pixels.shape[2]
        features = self._features((pixels.float() - self.mean) / self.std)
        proposals = self._propose(features, image_size)
        pooled = torchvision.ops.roi_pool(
            features, [proposals], output_size=7, spatial_scale=1 / STRIDE
        )
        x = pooled.permute(0, 2, 3, 1).flatten(1)
        x = functional.relu(self._linear("head.fc6", x))
        x = functional.relu(self._linear("head.fc7", x))
        probabilities = self._linear("head.score", x).softmax(dim=1)
        deltas = self._linear("head.delta", x).reshape(len(x), -1, 4)[..., _XYXY]
        return self._select(probabilities, deltas, proposals, image_size)

    def _features(self, image: Tensor) -> Tensor:
        x = image[None]
        for index, block in enumerate(BLOCKS):
            if index > 0:
                x = functional.max_pool2d(x, 2)
            for name, _ in block:
                x = functional.relu(self._convolution(f"backbone.{name}", x, padding=1))
        return x

    def _propose(self, features: Tensor, image_size: tuple[int, int]) -> Tensor:
        options = self.config.proposals
        x = functional.relu(self._convolution("rpn.conv", features, padding=1))
        logits, deltas = (
            self._convolution(f"rpn.{name}", x).permute(0, 2, 3, 1).reshape(-1, size)
            for name, size in (("score", 2), ("delta", 4))
        )
        boxes = _decode(self._anchors(features), deltas[:, _XYXY])
        boxes = torchvision.ops.clip_boxes_to_image(boxes, image_size)
        large = torchvision.ops.remove_small_boxes(boxes, options.min_size)
        scores = logits.softmax(dim=1)[large, 1]
        count = min(options.pre_nms_test, len(scores))
        scores, order = scores.topk(count)
        boxes = boxes[large][order]
        kept = torchvision.ops.nms(boxes, scores, options.iou_threshold)
        return boxes[kept[: options.post_nms_test]]

    def _anchors(self, features: Tensor) -> Tensor:
        base = ops.base_anchors(self.config.anchor_scales, self.config.anchor_ratios)
        size = features.shape[2], features.shape[3]
        return self._tensor(np.asarray(ops.grid_anchors(size, base))[:, _XYXY])

    def _select(
        self,
        probabilities: Tensor,
        deltas: Tensor,
        proposals: Tensor,
        image_size: tuple[int, int],
    ) -> Found:
        options = self.config.detection
        scores = probabilities[:, 1:]
        rows, labels = torch.nonzero(scores > options.score_threshold, as_tuple=True)
        deltas = deltas[rows, labels + 1] * self.delta_std
        boxes = torchvision.ops.clip_boxes_to_image(
            _decode(proposals[rows], deltas), image_size
        )
        scores = scores[rows, labels]
        kept = torchvision.ops.batched_nms(
            boxes, scores, labels, options.iou_threshold
        )[: options.max_detections]
        return Found(boxes[kept], scores[kept], labels[kept])

    def _convolution(self, name: str, x: Tensor, padding: int = 0) -> Tensor:
        kernel, bias = self.weights[f"{name}.kernel"], self.weights[f"{name}.bias"]
        return functional.conv2d(x, kernel, bias, padding=padding)

    def _linear(self, name: str, x: Tensor) -> Tensor:
        kernel, bias = self.weights[f"{name}.kernel"], self.weights[f"{name}.bias"]
        return functional.linear(x, kernel, bias)


def _decode(anchors: Tensor, deltas: Tensor) -> Tensor:
    low, high = anchors[:, :2], anchors[:, 2:]
    sizes = high - low
    centers = low + 0.5 * sizes + deltas[:, :2] * sizes
    half = 0.5 * sizes * deltas[:, 2:].clamp(max=MAX_LOG_SCALE).exp()
    return torch.cat([centers - half, centers + half], dim=1)
