"""The ops once more: in NumPy, one box at a time, slow and obvious.

Tests compare `frcnn_jax.ops` with these. Nothing here is shared with the JAX code.
Boxes are `(y_min, x_min, y_max, x_max)`; a mask says which entries are real. Where a
result hangs on rounding (thresholds, cells), the arithmetic is float32, as on the
device.
"""

import math

import numpy as np

MAX_LOG_SCALE = math.log(1000.0 / 16.0)


def random_boxes(rng, count, limit=64, min_side=1):
    """[count, 4] boxes with whole coordinates, whose IoU is exact up to one rounding.

    So the comparisons of IoUs in here and in XLA, which may fuse a product and a sum,
    come out the same.
    """
    corner = rng.integers(0, limit - min_side, (count, 2))
    sides = rng.integers(min_side, limit // 2, (count, 2))
    boxes = np.concatenate([corner, np.minimum(corner + sides, limit)], axis=1)
    return boxes.astype(np.float32)


def box_area(box):
    y_min, x_min, y_max, x_max = np.float32(box)
    return (y_max - y_min) * (x_max - x_min)


def iou_of_pair(a, b):
    a, b = np.float32(a), np.float32(b)
    height = max(min(a[2], b[2]) - max(a[0], b[0]), np.float32(0))
    width = max(min(a[3], b[3]) - max(a[1], b[1]), np.float32(0))
    intersection = height * width
    union = box_area(a) + box_area(b) - intersection
    return intersection / union if union > 0 else np.float32(0)


def box_iou(boxes, other):
    """[N, K] float32."""
    iou = [[iou_of_pair(a, b) for b in other] for a in boxes]
    return np.array(iou, np.float32).reshape(len(boxes), len(other))


def encode_boxes(anchors, boxes):
    """Deltas from anchors, none of them empty, to boxes."""
    deltas = []
    for anchor, box in zip(np.float64(anchors), np.float64(boxes), strict=True):
        anchor_height, anchor_width = anchor[2] - anchor[0], anchor[3] - anchor[1]
        height, width = box[2] - box[0], box[3] - box[1]
        dy = ((box[0] + box[2]) / 2 - (anchor[0] + anchor[2]) / 2) / anchor_height
        dx = ((box[1] + box[3]) / 2 - (anchor[1] + anchor[3]) / 2) / anchor_width
        dh, dw = math.log(height / anchor_height), math.log(width / anchor_width)
        deltas.append([dy, dx, dh, dw])
    return np.array(deltas).reshape(-1, 4)


def decode_boxes(anchors, deltas):
    boxes = []
    for anchor, delta in zip(np.float64(anchors), np.float64(deltas), strict=True):
        dy, dx, dh, dw = delta
        anchor_height, anchor_width = anchor[2] - anchor[0], anchor[3] - anchor[1]
        y = (anchor[0] + anchor[2]) / 2 + dy * anchor_height
        x = (anchor[1] + anchor[3]) / 2 + dx * anchor_width
        height = anchor_height * math.exp(min(dh, MAX_LOG_SCALE))
        width = anchor_width * math.exp(min(dw, MAX_LOG_SCALE))
        boxes.append([y - height / 2, x - width / 2, y + height / 2, x + width / 2])
    return np.array(boxes).reshape(-1, 4)


def clip_boxes(boxes, image_size):
    height, width = image_size
    return np.clip(boxes, 0.0, [height, width, height, width])


def batched_nms(boxes, scores, classes, mask, *, iou_threshold, max_outputs):
    """The list of selected indices, best first."""
    threshold = np.float32(iou_threshold)
    candidates = [i for i in range(len(boxes)) if mask[i] and not np.isnan(scores[i])]
    candidates.sort(key=lambda i: (-scores[i], i))
    selected = []
    for i in candidates:
        if len(selected) == max_outputs:
            break
        rivals = [j for j in selected if classes[j] == classes[i]]
        if all(iou_of_pair(boxes[i], boxes[j]) <= threshold for j in rivals):
            selected.append(i)
    return selected


def nms(boxes, scores, mask, **options):
    return batched_nms(boxes, scores, np.zeros(len(boxes)), mask, **options)


def propose(
    objectness,
    deltas,
    anchors,
    image_size,
    *,
    pre_nms,
    post_nms,
    iou_threshold,
    min_size,
):
    """Boxes and scores of the proposals, without padding."""
    boxes = clip_boxes(decode_boxes(anchors, deltas), image_size)
    large = [
        i
        for i, (y_min, x_min, y_max, x_max) in enumerate(boxes)
        if y_max - y_min >= min_size and x_max - x_min >= min_size
        if objectness[i] > -np.inf
    ]
    best = sorted(large, key=lambda i: (-objectness[i], i))[:pre_nms]
    boxes, scores = boxes[best], objectness[best]
    selected = nms(
        boxes,
        scores,
        np.ones(len(best), bool),
        iou_threshold=iou_threshold,
        max_outputs=post_nms,
    )
    return boxes[selected], scores[selected]


def select_detections(
    probabilities,
    deltas,
    rois,
    roi_mask,
    image_size,
    *,
    score_threshold,
    iou_threshold,
    max_detections,
):
    """Boxes, scores and labels of the detections, without padding."""
    boxes, scores, labels = [], [], []
    for roi in np.flatnonzero(roi_mask):
        for label in range(1, probabilities.shape[1]):
            if probabilities[roi, label] > np.float32(score_threshold):
                box = decode_boxes(rois[roi : roi + 1], deltas[roi, label][None])
                boxes.append(clip_boxes(box, image_size)[0])
                scores.append(probabilities[roi, label])
                labels.append(label - 1)
    boxes, scores = np.reshape(boxes, (-1, 4)), np.array(scores)
    labels = np.array(labels, int)
    selected = batched_nms(
        boxes,
        scores,
        labels,
        np.ones(len(boxes), bool),
        iou_threshold=iou_threshold,
        max_outputs=max_detections,
    )
    return boxes[selected], scores[selected], labels[selected]


def round_half_away(x):
    # In Python's float64: in float32 the sum of 0.49999997 and 0.5 is 1.
    return math.copysign(math.floor(abs(float(x)) + 0.5), x)


def rounded_bins(low, high, num_bins, size):
    """(first cell, end) of each bin, as the CUDA RoIPool divides a RoI.

    low and high are the edges in pixels / stride. The bins divide the whole RoI, both
    of its edges included, and are then cut to the cells 0..size.
    """
    begin, end = round_half_away(low), round_half_away(high)
    bin_length = np.float32(max(end - begin + 1, 1)) / np.float32(num_bins)
    bins = []
    for p in range(num_bins):
        first = math.floor(np.float32(p) * bin_length) + begin
        last = math.ceil(np.float32(p + 1) * bin_length) + begin
        bins.append((int(np.clip(first, 0, size)), int(np.clip(last, 0, size))))
    return bins


def truncated_bins(low, high, num_bins, size):
    """(first cell, end) of each bin, as the notebook's adaptive pool divides a slice.

    The slice is [floor(low) : floor(high) + 1], cut to the cells 0..size.
    """
    begin = int(np.clip(math.floor(low), 0, size))
    end = int(np.clip(math.floor(high) + 1, 0, size))
    length = max(end - begin, 0)
    return [
        (begin + p * length // num_bins, begin + math.ceil((p + 1) * length / num_bins))
        for p in range(num_bins)
    ]


def roi_pool(features, rois, *, output_size, stride, rounding):
    height, width, channels = features.shape
    bins = {"round": rounded_bins, "floor": truncated_bins}[rounding]
    pooled = np.zeros((len(rois), *output_size, channels), features.dtype)
    for r, (y_min, x_min, y_max, x_max) in enumerate(np.float32(rois) / stride):
        for p, (top, bottom) in enumerate(bins(y_min, y_max, output_size[0], height)):
            for q, (left, right) in enumerate(
                bins(x_min, x_max, output_size[1], width)
            ):
                cells = features[top:bottom, left:right].reshape(-1, channels)
                if len(cells) > 0:
                    pooled[r, p, q] = cells.max(axis=0)
    return pooled


def bilinear(features, y, x):
    """The map at (y, x): 0 further than a cell outside, else moved onto the map."""
    height, width, _ = features.shape
    if not (-1.0 <= y <= height and -1.0 <= x <= width):
        return np.zeros(features.shape[-1])
    y, x = np.clip(y, 0.0, height - 1.0), np.clip(x, 0.0, width - 1.0)
    top, left = math.floor(y), math.floor(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, across = y - top, x - left
    return (
        features[top, left] * (1 - down) * (1 - across)
        + features[top, right] * (1 - down) * across
        + features[bottom, left] * down * (1 - across)
        + features[bottom, right] * down * across
    )


def roi_align(features, rois, *, output_size, stride, sampling_ratio, aligned):
    """RoIAlign as torchvision does it, on both of its settings of `aligned`."""
    offset = 0.5 if aligned else 0.0
    pooled = np.zeros((len(rois), *output_size, features.shape[-1]))
    for r, roi in enumerate(rois):
        y_min, x_min, y_max, x_max = np.float64(roi) / stride - offset
        height, width = y_max - y_min, x_max - x_min
        if not aligned:
            height, width = max(height, 1.0), max(width, 1.0)
        bin_height, bin_width = height / output_size[0], width / output_size[1]
        for p in range(output_size[0]):
            for q in range(output_size[1]):
                samples = [
                    bilinear(
                        features,
                        y_min + (p + (i + 0.5) / sampling_ratio) * bin_height,
                        x_min + (q + (j + 0.5) / sampling_ratio) * bin_width,
                    )
                    for i in range(sampling_ratio)
                    for j in range(sampling_ratio)
                ]
                pooled[r, p, q] = np.mean(samples, axis=0)
    return pooled


def anchor_labels(
    anchors, gt_boxes, gt_mask, image_size, *, positive_iou=0.7, negative_iou=0.3
):
    """Labels of all anchors before sampling, and the object each overlaps most."""
    height, width = image_size
    gt_index = np.flatnonzero(gt_mask)
    iou = box_iou(anchors, gt_boxes)
    inside = [
        i
        for i, (y_min, x_min, y_max, x_max) in enumerate(anchors)
        if y_min >= 0 and x_min >= 0 and y_max <= height and x_max <= width
    ]
    labels = np.full(len(anchors), -1)
    matched = np.zeros(len(anchors), int)
    for i in inside:
        best_iou = 0.0
        for j in gt_index:
            if iou[i, j] > best_iou:
                best_iou, matched[i] = iou[i, j], j
        if best_iou >= np.float32(positive_iou):
            labels[i] = 1
        elif best_iou < np.float32(negative_iou):
            labels[i] = 0
    for j in gt_index:
        best_iou = max((iou[i, j] for i in inside), default=0.0)
        for i in inside:
            if best_iou > 0 and iou[i, j] == best_iou:
                labels[i] = 1
    return labels, matched


def proposal_labels(
    proposals,
    proposal_mask,
    gt_boxes,
    gt_labels,
    gt_mask,
    *,
    positive_iou=0.5,
    negative_iou_high=0.5,
    negative_iou_low=0.0,
):
    """Labels of all proposals before sampling (-1 takes no part) and their objects."""
    iou = box_iou(proposals, gt_boxes)
    labels = np.full(len(proposals), -1)
    matched = np.zeros(len(proposals), int)
    for i in np.flatnonzero(proposal_mask):
        best_iou = 0.0
        for j in np.flatnonzero(gt_mask):
            if iou[i, j] > best_iou:
                best_iou, matched[i] = iou[i, j], j
        if best_iou >= np.float32(positive_iou):
            labels[i] = gt_labels[matched[i]] + 1
        elif np.float32(negative_iou_low) <= best_iou < np.float32(negative_iou_high):
            labels[i] = 0
    return labels, matched


def smooth_l1(x, beta):
    x = abs(float(x))
    return 0.5 * x**2 / beta if x < beta else x - 0.5 * beta


def cross_entropy(logits, label):
    """Minus the logarithm of the softmax of one entry."""
    logits = np.float64(logits)
    largest = logits.max()
    return math.log(np.exp(logits - largest).sum()) + largest - logits[label]


def rpn_loss(
    logits, deltas, labels, target_deltas, *, beta, normalizer, localization_weight
):
    sampled = [i for i, label in enumerate(labels) if label >= 0]
    positive = [i for i, label in enumerate(labels) if label == 1]
    classification = sum(cross_entropy(logits[i], labels[i]) for i in sampled)
    localization = sum(
        smooth_l1(predicted - target, beta)
        for i in positive
        for predicted, target in zip(deltas[i], target_deltas[i], strict=True)
    )
    counted = {"positives": positive, "samples": sampled}[normalizer]
    return (
        classification / max(len(sampled), 1),
        localization_weight * localization / max(len(counted), 1),
    )


def roi_loss(
    logits,
    deltas,
    labels,
    target_deltas,
    mask,
    *,
    beta,
    normalizer,
    localization_weight,
    delta_std,
):
    sampled = np.flatnonzero(mask)
    positive = [i for i in sampled if labels[i] > 0]
    classification = sum(cross_entropy(logits[i], labels[i]) for i in sampled)
    localization = 0.0
    for i in positive:
        predicted = deltas[i, labels[i]]
        for k in range(4):
            target = target_deltas[i, k] / delta_std[k]
            localization += smooth_l1(predicted[k] - target, beta)
    counted = {"positives": positive, "samples": sampled}[normalizer]
    return (
        classification / max(len(sampled), 1),
        localization_weight * localization / max(len(counted), 1),
    )
