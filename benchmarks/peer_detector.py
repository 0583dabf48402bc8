"""Faster R-CNN of the VOC recipe by PyTorch's layers and torchvision's ops.

It takes our parameters, so that both sides find the same objects. Images are
[B, 3, H, W]; boxes are `(x_min, y_min, x_max, y_max)` here, as torchvision has them.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torchvision
from torch import Tensor
from torch.nn import functional

from frcnn_jax import ops
from frcnn_jax.config import ModelConfig
from frcnn_jax.models.faster_rcnn import POOLED_SIZE
from frcnn_jax.models.vgg16 import BLOCKS, STRIDE
from frcnn_jax.ops.boxes import MAX_LOG_SCALE

XYXY = [1, 0, 3, 2]  # of our order, and of deltas


class Found(NamedTuple):
    """Detections of an image, best first."""

    boxes: Tensor  # [D, 4]
    scores: Tensor  # [D]
    labels: Tensor  # [D]


class PeerDetector:
    """A detector; call it with images to detect."""

    def __init__(
        self,
        config: ModelConfig,
        params: Mapping[str, np.ndarray],
        precision: str = "tf32",
    ) -> None:
        """Converts the parameters, which are named as in `models.parameters`.

        Args:
          config: sizes and options.
          params: by name.
          precision: float32, tf32 or bfloat16; a CPU computes tf32 as float32.
        """
        self.config = config
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        allow_tf32 = precision != "float32"
        torch.backends.cuda.matmul.allow_tf32 = allow_tf32
        torch.backends.cudnn.allow_tf32 = allow_tf32
        torch.backends.cudnn.benchmark = True
        self.autocast = functools.partial(
            torch.autocast, self.device, torch.bfloat16, enabled=precision == "bfloat16"
        )
        self.weights = {
            name: self.to_tensor(_convert(name, array), channels_last=array.ndim == 4)
            for name, array in params.items()
        }
        preprocessing = config.preprocessing
        self.mean, self.std = (
            self.to_tensor(np.array(each, np.float32)[:, None, None])
            for each in (preprocessing.pixel_mean, preprocessing.pixel_std)
        )
        self.delta_std = self.to_tensor(np.array(config.losses.delta_std)[XYXY])

    def to_tensor(self, array: np.ndarray, channels_last: bool = False) -> Tensor:
        """Copies an array to the device as float32."""
        array = np.ascontiguousarray(array, np.float32)
        tensor = torch.tensor(array, device=self.device)
        # Where cuDNN computes, the faster order.
        if channels_last and self.device == "cuda":
            return tensor.contiguous(memory_format=torch.channels_last)
        return tensor

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> list[Found]:
        """Detects objects in [B, 3, H, W] uint8 RGB, resized but not padded."""
        image_size = images.shape[2], images.shape[3]
        options = self.config.proposals
        with self.autocast():
            features = self.backbone(self.normalize(images))
            anchors = self.anchors(features)
            proposals = [
                self.propose(
                    *outputs,
                    anchors,
                    image_size,
                    options.pre_nms_test,
                    options.post_nms_test,
                )
                for outputs in zip(*self.rpn(features), strict=True)
            ]
            logits, deltas = self.head(features, proposals)
        counts = [len(each) for each in proposals]
        each_image = zip(
            logits.softmax(dim=1).split(counts),
            deltas.split(counts),
            proposals,
            strict=True,
        )
        return [self.select(*outputs, image_size) for outputs in each_image]

    def normalize(self, images: Tensor) -> Tensor:
        """Turns bytes into what the backbone expects."""
        images = (images.float() - self.mean) / self.std
        # All layers keep the order of their input. With channels last a CPU takes twice
        # as long backward.
        is_cuda = self.device == "cuda"
        order = torch.channels_last if is_cuda else torch.contiguous_format
        return images.contiguous(memory_format=order)

    def backbone(self, x: Tensor) -> Tensor:
        """Returns the features of conv5_3, [B, C, H, W]."""
        for index, block in enumerate(BLOCKS):
            if index > 0:
                x = functional.max_pool2d(x, 2)
            for name, _ in block:
                x = functional.relu(self._convolution(f"backbone.{name}", x, padding=1))
        return x

    def rpn(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits [B, N, 2] and deltas [B, N, 4]."""
        x = functional.relu(self._convolution("rpn.conv", features, padding=1))
        logits, deltas = (
            self._convolution(f"rpn.{name}", x)
            .permute(0, 2, 3, 1)
            .reshape(len(x), -1, size)
            .float()
            for name, size in (("score", 2), ("delta", 4))
        )
        return logits, deltas[..., XYXY]

    def propose(
        self,
        logits: Tensor,
        deltas: Tensor,
        anchors: Tensor,
        image_size: tuple[int, int],
        pre_nms: int,
        post_nms: int,
    ) -> Tensor:
        """Returns an image's proposals, [P, 4]."""
        options = self.config.proposals
        boxes = decode(anchors, deltas)
        boxes = torchvision.ops.clip_boxes_to_image(boxes, image_size)
        large = torchvision.ops.remove_small_boxes(boxes, options.min_size)
        scores = logits.softmax(dim=1)[large, 1]
        scores, order = scores.topk(min(pre_nms, len(scores)))
        boxes = boxes[large][order]
        kept = torchvision.ops.nms(boxes, scores, options.iou_threshold)
        return boxes[kept[:post_nms]]

    def head(self, features: Tensor, rois: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Returns logits [R, L + 1] and deltas [R, L + 1, 4] of all images' RoIs."""
        # In float32, as torchvision has it under autocast.
        pooled = torchvision.ops.roi_pool(
            features.float(), list(rois), POOLED_SIZE, spatial_scale=1 / STRIDE
        )
        x = functional.relu(self._linear("head.fc6", pooled.flatten(1)))
        x = functional.relu(self._linear("head.fc7", x))
        logits, deltas = (
            self._linear(f"head.{name}", x).float() for name in ("score", "delta")
        )
        return logits, deltas.reshape(len(x), -1, 4)[..., XYXY]

    def anchors(self, features: Tensor) -> Tensor:
        """Returns the anchors of feature maps, [N, 4]."""
        height, width = features.shape[2:]
        return _anchors(self.config, (height, width), self.device)

    def select(
        self,
        probabilities: Tensor,
        deltas: Tensor,
        proposals: Tensor,
        image_size: tuple[int, int],
    ) -> Found:
        """Returns an image's detections."""
        options = self.config.detection
        scores = probabilities[:, 1:]
        rows, labels = torch.nonzero(scores > options.score_threshold, as_tuple=True)
        deltas = deltas[rows, labels + 1] * self.delta_std
        boxes = torchvision.ops.clip_boxes_to_image(
            decode(proposals[rows], deltas), image_size
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


def _convert(name: str, array: np.ndarray) -> np.ndarray:
    """Transposes a parameter: HWIO to OIHW, and (in, out) to (out, in)."""
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    if name == "head.fc6.kernel":  # it reads pooled maps as [C, P, Q] here
        array = array.reshape(*POOLED_SIZE, -1, array.shape[1])
        return array.transpose(3, 2, 0, 1).reshape(array.shape[3], -1)
    return array.T


@functools.cache
def _anchors(config: ModelConfig, map_size: tuple[int, int], device: str) -> Tensor:
    base = ops.base_anchors(config.anchor_scales, config.anchor_ratios)
    anchors = np.asarray(ops.grid_anchors(map_size, base))[:, XYXY]
    return torch.tensor(anchors, device=device)


def decode(anchors: Tensor, deltas: Tensor) -> Tensor:
    low, high = anchors[:, :2], anchors[:, 2:]
    sizes = high - low
    centers = low + 0.5 * sizes + deltas[:, :2] * sizes
    half = 0.5 * sizes * deltas[:, 2:].clamp(max=MAX_LOG_SCALE).exp()
    return torch.cat([centers - half, centers + half], dim=1)


def encode(anchors: Tensor, boxes: Tensor) -> Tensor:
    """The inverse of `decode`."""
    (centers, sizes), (box_centers, box_sizes) = (
        (0.5 * (x[:, :2] + x[:, 2:]), x[:, 2:] - x[:, :2]) for x in (anchors, boxes)
    )
    shift, scale = (box_centers - centers) / sizes, (box_sizes / sizes).log()
    return torch.cat([shift, scale], dim=1)
