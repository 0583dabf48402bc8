"""The steps of Faster R-CNN that work on boxes, in NumPy, for one image.

Written from the notebook ("In [n]" is its cell) and from the project
chenyuntc/simple-faster-rcnn-pytorch ("C:" and a file in it); nothing of `frcnn_jax` is
used. Boxes are float32 (y_min, x_min, y_max, x_max) in pixels of the resized image.

What the originals draw at random is given here, as indices, and checked to be a draw
that they could have made.
"""

import math

import numpy as np

SCALES = (8, 16, 32)  # In [4]
RATIOS = (0.5, 1, 2)
STRIDE = 16


def make_anchors(feature_size, *, scale_major):
    """[H * W * 9, 4]; In [4] to In [9], or ratio-major as C:model/utils/bbox_tools.py.

    Args:
      feature_size: (height, width) of the feature map.
      scale_major: whether all ratios of the first scale come first, or else all scales
        of the first ratio.
    """
    shapes = [(scale, ratio) for scale in SCALES for ratio in RATIOS]
    if not scale_major:
        shapes = [(scale, ratio) for ratio in RATIOS for scale in SCALES]
    anchors = []
    for row in range(feature_size[0]):
        for column in range(feature_size[1]):
            y, x = (row + 0.5) * STRIDE, (column + 0.5) * STRIDE
            for scale, ratio in shapes:
                height = STRIDE * scale * math.sqrt(ratio)
                width = STRIDE * scale / math.sqrt(ratio)
                corner = [y - height / 2, x - width / 2, y + height / 2, x + width / 2]
                anchors.append(corner)
    return np.float32(anchors)


def overlap(boxes, other):
    """[N, K] intersection over union; `bbox_iou` of In [14]."""
    top_left = np.maximum(boxes[:, None, :2], other[None, :, :2])
    bottom_right = np.minimum(boxes[:, None, 2:], other[None, :, 2:])
    intersection = np.prod(np.clip(bottom_right - top_left, 0, None), axis=2)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    other_areas = np.prod(other[:, 2:] - other[:, :2], axis=1)
    return intersection / (areas[:, None] + other_areas[None] - intersection)


def encode(anchors, boxes):
    """Deltas (dy, dx, dh, dw); the formulas above In [19]."""
    anchor_sizes, sizes = anchors[:, 2:] - anchors[:, :2], boxes[:, 2:] - boxes[:, :2]
    shifts = (boxes[:, :2] + sizes / 2 - anchors[:, :2] - anchor_sizes / 2) / (
        anchor_sizes
    )
    return np.concatenate([shifts, np.log(sizes / anchor_sizes)], axis=1)


def decode(anchors, deltas):
    """`deformat_loc` of In [34]: the inverse of `encode`."""
    anchor_sizes = anchors[:, 2:] - anchors[:, :2]
    centers = anchors[:, :2] + anchor_sizes / 2 + deltas[:, :2] * anchor_sizes
    sizes = anchor_sizes * np.exp(deltas[:, 2:])
    return np.concatenate([centers - sizes / 2, centers + sizes / 2], axis=1)


def clip(boxes, image_size):
    """In [35]."""
    height, width = image_size
    return np.clip(boxes, 0, np.float32([height, width, height, width]))


def suppress(boxes, scores, threshold, max_outputs):
    """Greedy non-maximum suppression, the list under In [38]; indices, best first."""
    order = np.argsort(-scores, kind="stable")
    kept = []
    while len(order) > 0 and len(kept) < max_outputs:
        best, order = order[0], order[1:]
        kept.append(best)
        with np.errstate(invalid="ignore"):  # empty boxes overlap by NaN: nothing
            overlaps = overlap(boxes[best][None], boxes[order])[0]
            order = order[~(overlaps > threshold)]
    return np.array(kept, int)


def propose(boxes, scores, *, min_size, pre_nms, post_nms):
    """Which of the decoded and clipped boxes are proposals, best first.

    In [36] to In [39], C:model/utils/creator_tool.py. A side of exactly min_size stays,
    as in C; the notebook drops it.
    """
    sizes = boxes[:, 2:] - boxes[:, :2]
    large = np.flatnonzero((sizes >= min_size).all(axis=1))
    order = np.argsort(-scores[large], kind="stable")
    best = large[order[:pre_nms]]
    return best[suppress(boxes[best], scores[best], 0.7, post_nms)]


def label_anchors(anchors, gt_boxes, image_size):
    """Labels before sampling and the object of every anchor; In [10] to In [19]."""
    inside = (anchors[:, :2] >= 0).all(axis=1)
    inside &= (anchors[:, 2:] <= np.float32(image_size)).all(axis=1)
    inside = np.flatnonzero(inside)
    overlaps = overlap(anchors[inside], gt_boxes)

    inside_labels = np.full(len(inside), -1)
    inside_labels[overlaps.max(axis=1) < 0.3] = 0
    inside_labels[overlaps.max(axis=1) >= 0.7] = 1
    inside_labels[np.where(overlaps == overlaps.max(axis=0))[0]] = 1

    labels = np.full(len(anchors), -1)
    labels[inside] = inside_labels
    matched = np.zeros(len(anchors), int)
    matched[inside] = overlaps.argmax(axis=1)
    return labels, matched


def anchor_targets(anchors, gt_boxes, image_size, positives, negatives):
    """Labels and deltas of all anchors, given the sample of In [17] and In [18]."""
    candidates, matched = label_anchors(anchors, gt_boxes, image_size)
    check_draw(positives, np.flatnonzero(candidates == 1), 128)
    check_draw(negatives, np.flatnonzero(candidates == 0), 256 - len(positives))
    labels = np.full(len(anchors), -1)
    labels[positives] = 1
    labels[negatives] = 0
    return labels, encode(anchors, gt_boxes[matched])


def proposal_targets(proposals, gt_boxes, gt_labels, positives, negatives, *, touching):
    """RoIs, labels (0 is the background) and deltas, given the sample of In [45].

    In [42] to In [47], C:model/utils/creator_tool.py.

    Args:
      proposals: [P, 4], with the objects themselves at the end in C.
      gt_boxes: [M, 4] objects.
      gt_labels: [M] classes, from 0; the notebook's are from 1.
      positives: indices into the proposals.
      negatives: indices into the proposals.
      touching: whether background must touch an object, as in the notebook.
    """
    overlaps = overlap(proposals, gt_boxes)
    best, matched = overlaps.max(axis=1), overlaps.argmax(axis=1)
    low = best > 0 if touching else best >= 0
    check_draw(positives, np.flatnonzero(best >= 0.5), 32)
    check_draw(negatives, np.flatnonzero((best < 0.5) & low), 128 - len(positives))
    sample = np.concatenate([positives, negatives])
    labels = gt_labels[matched[sample]] + 1
    labels[len(positives) :] = 0
    rois = proposals[sample]
    return rois, labels, encode(rois, gt_boxes[matched[sample]])


def check_draw(drawn, candidates, count):
    """Makes sure that `np.random.choice` could have drawn this, without replacement."""
    assert len(drawn) == min(count, len(candidates))
    assert len(set(drawn)) == len(drawn)
    assert set(drawn) <= set(candidates)
