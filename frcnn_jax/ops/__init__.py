"""The functions of Faster R-CNN, pure, for one image each; `jax.vmap` makes batches.

Boxes are float32 `(y_min, x_min, y_max, x_max)` in pixels of the resized image, the max
edge exclusive. Everything of variable length is padded and comes with a mask.
"""

from frcnn_jax.ops.anchors import base_anchors, grid_anchors
from frcnn_jax.ops.boxes import (
    box_area,
    box_iou,
    clip_boxes,
    decode_boxes,
    encode_boxes,
)
from frcnn_jax.ops.detections import Detections, select_detections
from frcnn_jax.ops.losses import roi_loss, rpn_loss, smooth_l1
from frcnn_jax.ops.proposals import Proposals, propose
from frcnn_jax.ops.roi import roi_align, roi_pool
from frcnn_jax.ops.sampling import sample_indices
from frcnn_jax.ops.suppression import Selection, batched_nms, nms
from frcnn_jax.ops.targets import (
    AnchorTargets,
    ProposalTargets,
    anchor_targets,
    proposal_targets,
)

__all__ = [
    "AnchorTargets",
    "Detections",
    "ProposalTargets",
    "Proposals",
    "Selection",
    "anchor_targets",
    "base_anchors",
    "batched_nms",
    "box_area",
    "box_iou",
    "clip_boxes",
    "decode_boxes",
    "encode_boxes",
    "grid_anchors",
    "nms",
    "proposal_targets",
    "propose",
    "roi_align",
    "roi_loss",
    "roi_pool",
    "rpn_loss",
    "sample_indices",
    "select_detections",
    "smooth_l1",
]
