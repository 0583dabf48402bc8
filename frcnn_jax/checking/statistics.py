"""Counts and measures the images and objects of a split.

Difficult objects and crowds are counted apart. Lengths are in pixels of the original
images; the side of an object is the square root of its area, its aspect height / width.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from frcnn_jax.checking.scan import ScannedSplit
from frcnn_jax.config import DataConfig
from frcnn_jax.data.augmentation import largest_size
from frcnn_jax.data.records import Annotation
from frcnn_jax.data.transforms import choose_canvas, resized_size_of

_QUANTILES = {"min": 0, "p5": 0.05, "median": 0.5, "p95": 0.95, "max": 1}


class Objects(NamedTuple):
    """The N objects of all images."""

    labels: np.ndarray  # [N] 0..L-1
    images: np.ndarray  # [N] index of the image
    sides: np.ndarray  # [N] pixels
    aspects: np.ndarray  # [N]
    counts: np.ndarray  # [number of images] objects


def measure(annotations: Sequence[Annotation]) -> Objects:
    """Measures the objects that are trained on, or to be found."""
    boxes = [each.boxes[~each.difficult] for each in annotations]
    labels = [each.labels[~each.difficult] for each in annotations]
    counts = np.array([len(each) for each in boxes], int)
    every = np.concatenate([np.zeros((0, 4)), *boxes])
    heights, widths = (every[:, 2:] - every[:, :2]).T
    return Objects(
        labels=np.concatenate([np.zeros(0, int), *labels]),
        images=np.repeat(np.arange(len(counts)), counts),
        sides=np.sqrt(heights * widths),
        aspects=heights / widths,
        counts=counts,
    )


def describe(split: ScannedSplit, data: DataConfig) -> dict[str, Any]:
    """Describes the images and objects that a config takes of a split.

    Args:
      split: after all of it has been read.
      data: how images are resized and augmented, the canvases, and room for how many
        objects.

    Returns:
      Numbers, as a JSON file has them.
    """
    annotations, bad_boxes = split.source.annotations, split.bad_boxes
    objects = measure(annotations)
    heights, widths = (
        np.array([each.image_size for each in annotations]).reshape(-1, 2).T
    )
    return {
        "uses": split.uses,
        "num_images": len(annotations),
        "num_broken": len(split.broken),
        "num_empty": sum(not len(each.boxes) for each in annotations),
        "num_objects": len(objects.labels),
        "num_difficult": sum(int(each.difficult.sum()) for each in split.annotations),
        "num_dropped": sum(bad.is_dropped for bad in bad_boxes),
        "num_clipped": sum(not bad.is_dropped for bad in bad_boxes),
        "num_clipped_by_a_pixel": _count_clipped_by_a_pixel(split.annotations),
        "num_beyond_max_objects": int(
            np.maximum(objects.counts - data.max_objects, 0).sum()
        ),
        "objects_per_image": _spread(objects.counts),
        "image_height": _spread(heights),
        "image_width": _spread(widths),
        "image_aspect": _spread(heights / widths),
        "per_class": {
            name: _describe_class(objects, label)
            for label, name in enumerate(split.source.class_names)
        },
        "canvases": _describe_canvases(annotations, split.as_used(data)),
    }


def _describe_class(objects: Objects, label: int) -> dict[str, Any]:
    chosen = objects.labels == label
    return {
        "num_objects": int(chosen.sum()),
        "num_images": len(np.unique(objects.images[chosen])),
        "side": _spread(objects.sides[chosen]),
        "aspect": _spread(objects.aspects[chosen]),
    }


def _count_clipped_by_a_pixel(annotations: Sequence[Annotation]) -> int:
    """Counts boxes that reach outside by about one pixel, which are not called bad."""
    excesses = [
        np.maximum(-each.boxes, each.boxes - each.image_size * 2).max(axis=1)
        for each in annotations
    ]
    return sum(int(((each >= 0.5) & (each <= 1.0)).sum()) for each in excesses)


def _describe_canvases(
    annotations: Sequence[Annotation], data: DataConfig
) -> dict[str, Any]:
    """Counts the images of each canvas, and computes its share of padding."""
    rows = {canvas: [0, 0] for canvas in data.canvases}  # images, their pixels
    for annotation in annotations:
        index = choose_canvas(largest_size(annotation.image_size, data), data.canvases)
        if index is not None:
            row = rows[data.canvases[index]]
            row[0] += 1
            row[1] += math.prod(resized_size_of(annotation.image_size, data))
    return {
        f"{canvas[0]}x{canvas[1]}": {
            "num_images": num_images,
            "padding": 1 - pixels / (num_images * math.prod(canvas))
            if num_images
            else None,
        }
        for canvas, (num_images, pixels) in rows.items()
    }


def _spread(values: np.ndarray) -> dict[str, float | None]:
    return {
        name: float(np.quantile(values, each)) if len(values) else None
        for name, each in _QUANTILES.items()
    }
