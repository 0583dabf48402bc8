"""Chooses sizes that fit a data set: of images, of canvases, of anchors.

Sizes are (height, width) in pixels.
"""

import itertools
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from frcnn_jax.config import Resizing
from frcnn_jax.data.transforms import resized_size

Size = tuple[int, int]

_CELL = 16  # pixels of an image to a cell of its features
_SHORTER_SIDE = 600  # as in the recipe
_LONGEST = 5 / 3  # of the shorter side
_MAX_ENLARGEMENT = 2.0

# Every canvas costs a compilation: the last one must save this share of the pixels.
_MAX_CANVASES = 3
_WORTH_A_CANVAS = 0.1

# Every scale costs three anchors a place: a further one must fit this share of boxes.
_NUM_SCALES = (3, 4, 5)
_WORTH_A_SCALE = 0.05
_SCALES = 2.0 ** (np.arange(-2, 13) / 2)  # 0.5 to 64 cells
_MAX_BOXES = 10_000


def fit_resizing(sizes: Sequence[Size]) -> Resizing:
    """Chooses how images are resized, and canvases that all of them fit into.

    The shorter side becomes 600 pixels, unless most images would have to be enlarged
    more than twice. The longer side is that of the most elongated image, at most 5/3 of
    the shorter side.

    Args:
      sizes: of every original image, at least one.

    Example:
      >>> resizing = fit_resizing([(480, 640), (480, 640), (300, 400)])
      >>> resizing.shorter_side, resizing.longer_side, resizing.canvases
      (600, 800, ((608, 800),))
    """
    typical = float(np.median([min(size) for size in sizes]))
    shorter = min(_SHORTER_SIDE, _round_up(_MAX_ENLARGEMENT * typical))
    longest = max(max(size) / min(size) for size in sizes)
    longer = round(shorter * min(longest, _LONGEST))
    resized = [
        resized_size(size, shorter_side=shorter, longer_side=longer) for size in sizes
    ]
    is_landscape = sum(width >= height for height, width in sizes) * 2 >= len(sizes)
    largest = (shorter, longer) if is_landscape else (longer, shorter)
    return Resizing(
        shorter_side=shorter,
        longer_side=longer,
        canvases=fit_canvases(resized, largest),
    )


def fit_canvases(sizes: Sequence[Size], largest: Size) -> tuple[Size, ...]:
    """Chooses few canvases with little padding that cover all images.

    Args:
      sizes: of every image after resizing.
      largest: the size that a canvas must have room for, even if no image has it.

    Returns:
      At most three, multiples of 16 pixels.

    Example:
      >>> fit_canvases([(600, 800)] * 9 + [(800, 600)], largest=(600, 800))
      ((608, 800), (800, 608))
    """
    counts = Counter((_round_up(height), _round_up(width)) for height, width in sizes)
    counts[_round_up(largest[0]), _round_up(largest[1])] += 0
    # Neighbors in the order of their shapes share a canvas.
    ordered = sorted(counts, key=lambda size: (size[0] / size[1], size))
    chosen, pixels = _split_best(ordered, counts, 1)
    for num_canvases in range(2, min(_MAX_CANVASES, len(ordered)) + 1):
        more, fewer_pixels = _split_best(ordered, counts, num_canvases)
        if fewer_pixels < (1 - _WORTH_A_CANVAS) * pixels:
            chosen, pixels = more, fewer_pixels
    return chosen


def _split_best(
    ordered: Sequence[Size], counts: Counter[Size], num_canvases: int
) -> tuple[tuple[Size, ...], int]:
    """Returns the best canvases of this number, and all images' pixels on them."""
    num_sizes = len(ordered)
    canvases, pixels = {}, {}
    for first, last in itertools.combinations(range(num_sizes + 1), 2):
        group = ordered[first:last]
        height, width = (max(sides) for sides in zip(*group, strict=True))
        canvases[first, last] = height, width
        pixels[first, last] = height * width * sum(counts[size] for size in group)
    partitions = [
        list(itertools.pairwise([0, *cuts, num_sizes]))
        for cuts in itertools.combinations(range(1, num_sizes), num_canvases - 1)
    ]
    best = min(partitions, key=lambda groups: sum(pixels[group] for group in groups))
    return (
        tuple(sorted({canvases[group] for group in best})),
        sum(pixels[group] for group in best),
    )


def fit_anchor_scales(
    box_sizes: np.ndarray, ratios: Sequence[float]
) -> tuple[tuple[float, ...], float]:
    """Chooses the three to five scales whose anchors resemble the boxes most.

    Box and anchor are compared as if they had the same center.

    Args:
      box_sizes: [N, 2] heights and widths in pixels of the resized images, N > 0.
      ratios: heights of the anchors divided by their widths.

    Returns:
      The scales in cells of 16 pixels, rising, and the share of boxes whose IoU with
      an anchor is at least 0.5.
    """
    rng = np.random.default_rng(0)
    if len(box_sizes) > _MAX_BOXES:
        box_sizes = rng.choice(box_sizes, _MAX_BOXES, replace=False)
    roots = np.sqrt(np.array(ratios))
    shapes = np.stack([roots, 1 / roots], axis=1)  # [R, 2], area 1
    anchors = _CELL * _SCALES[:, None, None] * shapes  # [S, R, 2]
    best = _centered_iou(box_sizes[:, None, None], anchors).max(axis=2)  # [N, S]
    scales, share = _choose_scales(best, _NUM_SCALES[0])
    for num_scales in _NUM_SCALES[1:]:
        more, larger_share = _choose_scales(best, num_scales)
        if larger_share - share > _WORTH_A_SCALE:
            scales, share = more, larger_share
    return tuple(float(f"{scale:.2g}") for scale in scales), share


def fit_anchor_ratios(box_sizes: np.ndarray) -> tuple[float, ...]:
    """Chooses the three ratios that split the boxes' shapes evenly.

    Args:
      box_sizes: [N, 2] heights and widths in pixels, N > 0.

    Returns:
      Heights divided by widths, rising: the middle of the flattest third of the boxes,
      of the next, and of the tallest.

    Example:
      >>> fit_anchor_ratios(np.array([[10, 20], [10, 10], [30, 10]] * 2))
      (0.5, 1.0, 3.0)
    """
    ratios = np.quantile(box_sizes[:, 0] / box_sizes[:, 1], (1 / 6, 1 / 2, 5 / 6))
    return tuple(dict.fromkeys(float(f"{ratio:.2g}") for ratio in ratios))


def _choose_scales(best: np.ndarray, num_scales: int) -> tuple[np.ndarray, float]:
    """Returns the best scales, and the share of boxes whose IoU is at least 0.5.

    Args:
      best: [N, S], the best IoU of every box with the anchors of a scale.
      num_scales: how many to choose.
    """
    chosen = max(
        itertools.combinations(range(len(_SCALES)), num_scales),
        key=lambda scales: best[:, scales].max(axis=1).mean(),
    )
    return _SCALES[list(chosen)], float((best[:, chosen].max(axis=1) >= 0.5).mean())


def _centered_iou(sizes: np.ndarray, others: np.ndarray) -> np.ndarray:
    intersection = np.minimum(sizes, others).prod(axis=-1)
    return intersection / (sizes.prod(axis=-1) + others.prod(axis=-1) - intersection)


def _round_up(pixels: float) -> int:
    return math.ceil(pixels / _CELL) * _CELL
