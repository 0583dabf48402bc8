"""Faster R-CNN in PyTorch: what is learnt, the losses, and detection; one image.

Written from the notebook ("In [n]" is its cell) and from the project
chenyuntc/simple-faster-rcnn-pytorch ("C:" and a file in it); nothing of `frcnn_jax` is
used.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tests.parity import reference_boxes
from tests.parity.reference_layers import (
    extract,
    head,
    identity,
    pool_rounded,
    pool_truncated,
    relu,
    rpn,
)


class Recipe(NamedTuple):
    """How the notebook differs from C in training."""

    activation: Callable[..., Tensor]
    pool: Callable[..., Tensor]
    rpn_sigma: float
    roi_sigma: float
    delta_std: tuple[float, float, float, float]
    localization_weight: float
    over_positives: bool  # what divides the localization losses, or else all samples
    by_probability: bool  # what ranks the proposals, or else the logit
    append_gt: bool
    touching: bool  # whether background must touch an object
    num_frozen: int  # layers of VGG16 without gradient


NOTEBOOK = Recipe(
    activation=identity,
    pool=pool_truncated,
    rpn_sigma=1.0,
    roi_sigma=1.0,
    delta_std=(1.0, 1.0, 1.0, 1.0),
    localization_weight=10.0,
    over_positives=True,
    by_probability=False,
    append_gt=False,
    touching=True,
    num_frozen=0,
)
VOC07 = Recipe(
    activation=relu,
    pool=pool_rounded,
    rpn_sigma=3.0,
    roi_sigma=1.0,
    delta_std=(0.1, 0.1, 0.2, 0.2),
    localization_weight=1.0,
    over_positives=False,
    by_probability=True,
    append_gt=True,
    touching=False,
    num_frozen=10,  # C:model/faster_rcnn_vgg16.py
)


def is_trained(name, recipe):
    """Whether the recipe trains a parameter."""
    module, layer, *_ = name.split(".")
    return module != "extractor" or int(layer) >= recipe.num_frozen


def losses(recipe, outputs, anchor_targets, proposal_targets):
    """The four losses; In [26] to In [31] and In [54] to In [61], C:trainer.py.

    Args:
      recipe: one of the two above.
      outputs: logits, deltas, roi_logits and roi_deltas.
      anchor_targets: labels and deltas of all anchors.
      proposal_targets: RoIs, labels and deltas of the sample.
    """
    labels, deltas = map(torch.from_numpy, anchor_targets)
    roi_labels, roi_deltas = map(torch.from_numpy, proposal_targets[1:])
    roi_deltas = roi_deltas / torch.tensor(recipe.delta_std)
    own_class = outputs.roi_deltas[torch.arange(len(roi_labels)), roi_labels]
    return [
        functional.cross_entropy(outputs.logits, labels, ignore_index=-1),
        localization_loss(outputs.deltas, deltas, labels, recipe.rpn_sigma, recipe),
        functional.cross_entropy(outputs.roi_logits, roi_labels),
        localization_loss(own_class, roi_deltas, roi_labels, recipe.roi_sigma, recipe),
    ]


def localization_loss(deltas, targets, labels, sigma, recipe):
    """Smooth L1 of the positives, with the switch of Fast R-CNN, not of In [30]."""
    positive = labels > 0
    size = (deltas[positive] - targets[positive]).abs()
    parabola, line = 0.5 * (sigma * size) ** 2, size - 0.5 / sigma**2
    total = torch.where(size < 1 / sigma**2, parabola, line).sum()
    count = positive.sum() if recipe.over_positives else (labels >= 0).sum()
    return recipe.localization_weight / count * total


class Detections(NamedTuple):
    """Of all classes, class after class, each best first."""

    boxes: np.ndarray  # [D, 4] float32, clipped to the image
    labels: np.ndarray  # [D] from 0
    scores: np.ndarray  # [D] float32


@torch.no_grad()
def detect(state, image, scale, score_threshold=0.05):
    """C:model/faster_rcnn.py, `predict`, in pixels of the image given.

    Args:
      state: parameters, of ratio-major anchors.
      image: [1, 3, H, W] normalized.
      scale: resized / original size.
      score_threshold: detections score more than this.
    """
    size = image.shape[2:]
    features = extract(state, image)
    logits, deltas = rpn(state, features, relu)
    anchors = reference_boxes.make_anchors(features.shape[2:], scale_major=False)
    boxes = reference_boxes.clip(reference_boxes.decode(anchors, deltas.numpy()), size)
    scores = functional.softmax(logits, dim=1)[:, 1].numpy()
    rois = boxes[
        reference_boxes.propose(
            boxes, scores, min_size=16 * scale, pre_nms=6000, post_nms=300
        )
    ]

    logits, deltas = head(state, pool_rounded(features, rois), relu)
    deltas = (deltas * torch.tensor(VOC07.delta_std)).numpy()
    probabilities = functional.softmax(logits, dim=1).numpy()
    found = []
    for label in range(probabilities.shape[1] - 1):
        scores = probabilities[:, label + 1]
        chosen = scores > score_threshold
        boxes = reference_boxes.decode(rois[chosen], deltas[chosen, label + 1])
        boxes, scores = reference_boxes.clip(boxes, size), scores[chosen]
        kept = reference_boxes.suppress(boxes, scores, 0.3, len(boxes))
        found.append((boxes[kept], np.full(len(kept), label), scores[kept]))
    return Detections(*map(np.concatenate, zip(*found, strict=True)))
