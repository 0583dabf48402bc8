"""Procedural pictures of plain shapes: a data set that needs no download.

Image `i` is a pure function of `(seed, split, i)`. Its layout (which shape, where) and
its pixels come from two streams of random numbers, so that the annotations of a whole
split cost no drawing.
"""

import functools
import zlib
from typing import NamedTuple

import numpy as np

from frcnn_jax.data.records import Annotation
from frcnn_jax.data.sources import drawing
from frcnn_jax.data.sources.raw import RawSource

CLASS_NAMES = ("ellipse", "rectangle", "triangle", "cross", "ring", "star")

# Probability of 0, 1, .. 4 objects in an image.
_NUM_OBJECTS = (0.08, 0.22, 0.26, 0.24, 0.2)
_SIDE_RANGE = (0.25, 0.65)  # Of the shorter side of the image.
_DIFFICULT = 0.07
_DIFFICULT_OPACITY = (0.2, 0.35)
_MAX_COVERED = 0.2  # Of the smaller of two boxes.
_NUM_TRIES = 20
_LAYOUT, _PIXELS = 0, 1  # The two random streams of an image.


class _Object(NamedTuple):
    label: int
    box: tuple[int, int, int, int]  # (y_min, x_min, y_max, x_max), whole pixels.
    difficult: bool


class ShapesSource(RawSource):
    """Pictures of ellipses, rectangles, triangles, crosses, rings and stars.

    Objects differ in size (each side 25 to 65 percent of the image's shorter side),
    aspect ratio (0.5 to 2) and color, lie on noisy, striped, checked or graded
    backgrounds and may overlap partly. About 8 percent of the images have none.
    About 7 percent of the objects are `difficult`: they are nearly transparent.

    Example:
      >>> source = ShapesSource(num_images=8, image_size=(96, 128), seed=0, split="a")
      >>> source.read_image(3).shape
      (96, 128, 3)
    """

    class_names = CLASS_NAMES

    def __init__(
        self, *, num_images: int, image_size: tuple[int, int], seed: int, split: str
    ) -> None:
        """Describes the data set; draws nothing yet.

        Args:
          num_images: how many images there are.
          image_size: (height, width) of each, in pixels.
          seed: any non-negative integer; other seeds give other images.
          split: any name; the images of different splits differ.
        """
        self._num_images = num_images
        self._image_size = image_size
        self._seed = seed
        self._split = split

    @functools.cached_property
    def annotations(self) -> list[Annotation]:
        """The boxes of every image, tight around the painted pixels."""
        return [self.annotate(index) for index in range(self._num_images)]

    def __len__(self) -> int:
        """Returns the number of images."""
        return self._num_images

    def name(self, index: int) -> str:
        """Returns the id of image `index`."""
        return f"{self._split}-{index:06d}"

    def annotate(self, index: int) -> Annotation:
        """Returns the boxes of image `index`, tight around the painted pixels."""
        objects = self._layout(index)
        boxes = [item.box for item in objects]
        return Annotation(
            image_id=self.name(index),
            image_size=self._image_size,
            boxes=np.array(boxes, np.float32).reshape(-1, 4),
            labels=np.array([item.label for item in objects], np.int32),
            difficult=np.array([item.difficult for item in objects], bool),
        )

    def read_image(self, index: int) -> np.ndarray:
        """Draws image `index`: [H, W, 3] uint8 RGB."""
        if not 0 <= index < self._num_images:
            raise IndexError(f"image {index} of {self._num_images}")
        rng = self._rng(index, _PIXELS)
        image, colors = drawing.background(rng, self._image_size)
        for item in self._layout(index):
            color = drawing.contrasting_color(rng, colors)
            colors.append(color)
            y_min, x_min, y_max, x_max = item.box
            opacity = drawing.mask(
                rng, CLASS_NAMES[item.label], y_max - y_min, x_max - x_min
            )
            if item.difficult:
                opacity *= rng.uniform(*_DIFFICULT_OPACITY)
            patch = image[y_min:y_max, x_min:x_max]
            patch += opacity[..., None] * (color - patch)
        image += rng.uniform(0, 8) * rng.standard_normal(image.shape, np.float32)
        return np.clip(image, 0, 255).astype(np.uint8)

    def _rng(self, index: int, stream: int) -> np.random.Generator:
        split = zlib.crc32(self._split.encode())
        return np.random.default_rng([self._seed, split, index, stream])

    def _layout(self, index: int) -> list[_Object]:
        rng = self._rng(index, _LAYOUT)
        objects: list[_Object] = []
        for _ in range(rng.choice(len(_NUM_OBJECTS), p=_NUM_OBJECTS)):
            label = int(rng.integers(len(CLASS_NAMES)))
            difficult = bool(rng.random() < _DIFFICULT)
            for _ in range(_NUM_TRIES):
                box = _random_box(rng, self._image_size)
                if all(_covered(box, item.box) <= _MAX_COVERED for item in objects):
                    objects.append(_Object(label, box, difficult))
                    break
        return objects


def _random_box(
    rng: np.random.Generator, image_size: tuple[int, int]
) -> tuple[int, int, int, int]:
    low, high = _SIDE_RANGE
    height = low * (high / low) ** rng.random()
    width = min(max(height * 2 ** rng.uniform(-1, 1), low), high)
    height, width = (round(side * min(image_size)) for side in (height, width))
    y_min = int(rng.integers(image_size[0] - height + 1))
    x_min = int(rng.integers(image_size[1] - width + 1))
    return y_min, x_min, y_min + height, x_min + width


def _covered(box: tuple[int, ...], other: tuple[int, ...]) -> float:
    """Returns how much of the smaller box lies in the other, 0..1."""
    height = min(box[2], other[2]) - max(box[0], other[0])
    width = min(box[3], other[3]) - max(box[1], other[1])
    smaller = min((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
    return max(height, 0) * max(width, 0) / smaller
