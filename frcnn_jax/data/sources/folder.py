"""A data set in files, of whatever format."""

import logging
from collections.abc import Mapping

import numpy as np

from frcnn_jax.data import images
from frcnn_jax.data.records import Annotation, abbreviate, drop_bad_boxes
from frcnn_jax.data.sources.listing import ListedImage, Listing
from frcnn_jax.errors import UserError

_logger = logging.getLogger(__name__)


class FolderSource:
    """The images of a listing."""

    def __init__(self, listing: Listing, *, skip_broken: bool = False) -> None:
        """Reads the size of every image and checks the boxes; pixels stay unread.

        Args:
          listing: the images and their objects.
          skip_broken: decode each image now and leave out, with a warning, those
            that are broken. Otherwise `read_image` raises for a broken image.

        Raises:
          UserError: if an image is broken, or its boxes are not in its pixels.
        """
        self.class_names = listing.class_names
        self._paths = [image.path for image in listing.images]
        if skip_broken:
            names = [image.image_id for image in listing.images]
            readable = images.find_readable(names, self.read_image)
            listing = listing._replace(images=[listing.images[i] for i in readable])
            self._paths = [image.path for image in listing.images]
        self.annotations = _annotate_all(listing)

    def read_image(self, index: int) -> np.ndarray:
        """Returns image `index` as [H, W, 3] uint8 RGB.

        Raises:
          UserError: if the file is broken; names its path.
        """
        path = self._paths[index]
        return images.read_rgb(path, str(path))


def _annotate_all(listing: Listing) -> list[Annotation]:
    if not listing.in_fractions:
        _check_pixels(listing.images)
    labels = {name: label for label, name in enumerate(listing.class_names)}
    annotations = [
        _annotate(image, labels, listing.in_fractions) for image in listing.images
    ]
    differing = [
        image.image_id
        for image, annotation in zip(listing.images, annotations, strict=True)
        if image.size and all(image.size) and image.size != annotation.image_size
    ]
    if differing:
        _logger.warning(
            "%d images have another size than their annotation says, so their boxes "
            "may be wrong: %s",
            len(differing),
            abbreviate(differing),
        )
    return drop_bad_boxes(annotations, empty_side=listing.empty_side)


def _annotate(
    image: ListedImage, labels: Mapping[str, int], in_fractions: bool
) -> Annotation:
    size = images.read_annotated_size(image.path, image.size, image.annotation)
    boxes = np.array([item.box for item in image.objects]).reshape(-1, 4)
    scale = np.array(size * 2) if in_fractions else 1.0
    return Annotation(
        image_id=image.image_id,
        image_size=size,
        boxes=(boxes * scale).astype(np.float32),
        labels=np.array([labels[item.name] for item in image.objects], np.int32),
        difficult=np.array([item.difficult for item in image.objects], bool),
    )


def _check_pixels(listed: list[ListedImage]) -> None:
    """Refuses fractions of the sides where pixels are expected."""
    annotated = [image for image in listed if image.objects]
    ends = [max(item.box) for image in annotated for item in image.objects]
    if ends and max(ends) <= 1.0:
        raise UserError(
            f"{annotated[0].annotation}: no box leaves the first pixel, nor does any "
            "other of the split; expected pixels, not fractions"
        )
