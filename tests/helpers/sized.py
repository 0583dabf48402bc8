"""A source of plain images of given sizes, each of the color of its index."""

from collections.abc import Sequence

import numpy as np

from frcnn_jax.data.records import Annotation


class SizedSource:
    """Image `i` has size `sizes[i]`, every pixel is `i + 1`, and one object fills it.

    The left half is black, so that a flip shows.
    """

    class_names = ("thing",)

    def __init__(self, sizes: Sequence[tuple[int, int]]):
        """Describes the images of these (height, width)."""
        self.annotations = [
            Annotation(
                image_id=f"image{index}",
                image_size=size,
                boxes=np.array([[0, 0, *size]], np.float32),
                labels=np.zeros(1, np.int32),
                difficult=np.zeros(1, bool),
            )
            for index, size in enumerate(sizes)
        ]

    def read_image(self, index: int) -> np.ndarray:
        height, width = self.annotations[index].image_size
        image = np.full((height, width, 3), index + 1, np.uint8)
        image[:, : width // 2] = 0
        return image
