"""A split as it is annotated, and the valid part of it."""

import abc
import dataclasses
import logging
from collections.abc import Sequence

import numpy as np

from frcnn_jax.data.images import EncodedImage, find_readable
from frcnn_jax.data.records import Annotation, abbreviate, drop_bad_boxes

_logger = logging.getLogger(__name__)


class RawSource(abc.ABC):
    """Images with their annotations, none of which is checked yet. Picklable."""

    class_names: tuple[str, ...]
    empty_side = 0.0  # pixels; a box with a side that is not longer is empty

    @abc.abstractmethod
    def __len__(self) -> int:
        """Returns the number of images."""

    @abc.abstractmethod
    def name(self, index: int) -> str:
        """Returns what to call image `index` in messages."""

    def place(self, index: int) -> str:
        """Returns where image `index` is annotated: a file, and the place in it."""
        return self.name(index)

    def stated_size(self, index: int) -> tuple[int, int] | None:
        """Returns (height, width) of image `index` if its annotation states it."""
        return None

    @abc.abstractmethod
    def annotate(self, index: int) -> Annotation:
        """Reads the size of image `index`; its boxes may be empty or outside.

        Raises:
          UserError: if the image is broken, or its boxes are not in its pixels.
        """

    @abc.abstractmethod
    def read_image(self, index: int) -> np.ndarray:
        """Returns image `index` as [H, W, 3] uint8 RGB.

        Raises:
          UserError: if it is broken; names it.
        """

    def read_encoded(self, index: int) -> EncodedImage | None:
        """Returns image `index` as its file holds it; None if it is drawn.

        Raises:
          UserError: if it cannot be read; names it.
        """
        return None

    def states_other_size(self, index: int, annotation: Annotation) -> bool:
        """Returns whether an annotation was probably made for another image size.

        Args:
          index: of the image.
          annotation: what `annotate` returns for it.
        """
        stated = self.stated_size(index)
        return bool(stated and all(stated) and stated != annotation.image_size)


@dataclasses.dataclass(frozen=True, eq=False)
class CheckedSource:
    """Some images of a raw source, with good boxes only."""

    raw: RawSource
    indices: Sequence[int]  # of these images in the raw source
    annotations: Sequence[Annotation]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each label."""
        return self.raw.class_names

    def read_image(self, index: int) -> np.ndarray:
        """Returns image `index` as [H, W, 3] uint8 RGB.

        Raises:
          UserError: if it is broken; names it.
        """
        return self.raw.read_image(self.indices[index])

    def read_encoded(self, index: int) -> EncodedImage | None:
        """Returns image `index` as its file holds it; None if it is drawn.

        Raises:
          UserError: if it cannot be read; names it.
        """
        return self.raw.read_encoded(self.indices[index])


def check_source(raw: RawSource, *, skip_broken: bool = False) -> CheckedSource:
    """Reads the size of every image, and warns of bad boxes; pixels stay unread.

    Args:
      raw: the images and their annotations.
      skip_broken: decode each image now and leave out, with a warning, those that are
        broken. Otherwise `read_image` raises for a broken image.

    Raises:
      UserError: if an image is broken, or its boxes are not in its pixels.
    """
    indices = list(range(len(raw)))
    if skip_broken:
        indices = find_readable([raw.name(index) for index in indices], raw.read_image)
    annotations = [raw.annotate(index) for index in indices]
    differing = [
        annotation.image_id
        for index, annotation in zip(indices, annotations, strict=True)
        if raw.states_other_size(index, annotation)
    ]
    if differing:
        _logger.warning(
            "%d images have another size than their annotation says, so their boxes "
            "may be wrong: %s",
            len(differing),
            abbreviate(differing),
        )
    annotations = drop_bad_boxes(annotations, empty_side=raw.empty_side)
    return CheckedSource(raw, indices, annotations)
