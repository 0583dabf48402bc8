"""A data set in files, of any format."""

from pathlib import Path

import numpy as np

from frcnn_jax.data import images
from frcnn_jax.data.records import Annotation
from frcnn_jax.data.sources.listing import ListedImage, Listing
from frcnn_jax.data.sources.raw import RawSource
from frcnn_jax.errors import UserError


class FolderSource(RawSource):
    """The images of a listing."""

    def __init__(self, listing: Listing) -> None:
        """Takes the images as they are listed; reads none.

        Raises:
          UserError: if all boxes are fractions where pixels are expected.
        """
        if not listing.in_fractions:
            _check_pixels(listing.images)
        self.class_names = listing.class_names
        self.empty_side = listing.empty_side
        self._in_fractions = listing.in_fractions
        self._images = listing.images
        self._labels = {name: label for label, name in enumerate(listing.class_names)}

    @property
    def paths(self) -> list[Path]:
        """The file of every image."""
        return [image.path for image in self._images]

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._images)

    def name(self, index: int) -> str:
        """Returns the id of image `index`."""
        return self._images[index].image_id

    def place(self, index: int) -> str:
        """Returns the file that annotates image `index`, and the place in it."""
        return self._images[index].annotation

    def stated_size(self, index: int) -> tuple[int, int] | None:
        """Returns (height, width) of image `index` if its annotation states it."""
        return self._images[index].size

    def annotate(self, index: int) -> Annotation:
        """Reads the size of image `index`; its boxes may be empty or outside.

        Raises:
          UserError: if the file is broken, or its boxes are not in its pixels.
        """
        image = self._images[index]
        size = images.read_annotated_size(image.path, image.size, image.annotation)
        boxes = np.array([item.box for item in image.objects]).reshape(-1, 4)
        scale = np.array(size * 2) if self._in_fractions else 1.0
        labels = [self._labels[item.name] for item in image.objects]
        return Annotation(
            image_id=image.image_id,
            image_size=size,
            boxes=(boxes * scale).astype(np.float32),
            labels=np.array(labels, np.int32),
            difficult=np.array([item.difficult for item in image.objects], bool),
        )

    def read_image(self, index: int) -> np.ndarray:
        """Returns image `index` as [H, W, 3] uint8 RGB.

        Raises:
          UserError: if the file is broken; names its path.
        """
        return np.asarray(self.read_encoded(index).decode())

    def read_encoded(self, index: int) -> images.EncodedImage:
        """Returns the file of image `index`.

        Raises:
          UserError: if it cannot be read; names its path.
        """
        return images.read_file(self._images[index].path)


def _check_pixels(listed: list[ListedImage]) -> None:
    """Refuses fractions of the sides where pixels are expected."""
    annotated = [image for image in listed if image.objects]
    ends = [max(item.box) for image in annotated for item in image.objects]
    if ends and max(ends) <= 1.0:
        raise UserError(
            f"{annotated[0].annotation}: no box leaves the first pixel, nor does any "
            "other of the split; expected pixels, not fractions"
        )
