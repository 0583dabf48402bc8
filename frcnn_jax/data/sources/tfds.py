"""Data sets of TensorFlow Datasets, read without TensorFlow.

Any data set with the features `image` and `objects` (`bbox`, `label` and perhaps
`is_difficult` or `is_crowd`) works, e.g. VOC, COCO and Open Images, once it is
prepared in a format with random access: `download_and_prepare(file_format=
"array_record")`. That step, unlike reading, may need TensorFlow.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from frcnn_jax.data import images
from frcnn_jax.data.records import Annotation
from frcnn_jax.data.sources import voc_xml
from frcnn_jax.data.sources.raw import RawSource
from frcnn_jax.errors import UserError, first_line

# Crowds of COCO are, like difficult objects of VOC, neither trained on nor counted.
_DIFFICULT_FIELDS = ("is_difficult", "is_crowd")

# TFDS divides the numbers of VOC's files by the image's size, but does not change their
# origin: they count pixels from 1.
_VOC_BUILDER = "voc"


class TFDSSource(RawSource):
    """A split of a prepared data set of TensorFlow Datasets."""

    def __init__(
        self, name: str, split: str, *, data_dir: str | Path | None = None
    ) -> None:
        """Opens a split of a data set; reads no image.

        Boxes are relative to the upright picture. The builder `voc` gives the image ids
        and boxes that a folder in VOC format gives; other builders' are taken as they
        are.

        Args:
          name: as for `tfds.builder`, e.g. `"voc/2007"`.
          split: as for TFDS, e.g. `"train"` or `"train[:10%]"`.
          data_dir: where the prepared data are; by default where TFDS puts them.

        Raises:
          UserError: if name or split is unknown, the data are not prepared, or they
            have other features.
        """
        self._name = f"{name} ({split})"
        builder = _open_builder(name, data_dir)
        self._is_voc = builder.name == _VOC_BUILDER
        self.class_names = _find_classes(builder.info.features, name)
        self._records = _open_split(builder, name, split)
        if self._is_voc:
            self.empty_side = voc_xml.EMPTY_SIDE

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._records)

    def name(self, index: int) -> str:
        """Returns what to call image `index` in messages."""
        return f"{index} of {self._name}"

    def read_image(self, index: int) -> np.ndarray:
        """Returns image `index` as [H, W, 3] uint8 RGB.

        Raises:
          UserError: if the image is broken; names the data set and the image.
        """
        return np.asarray(self.read_encoded(index).decode())

    def read_encoded(self, index: int) -> images.EncodedImage:
        """Returns image `index` as it is stored."""
        content = self._records[index]["image"]
        return images.EncodedImage(content, self._describe(index))

    def _describe(self, index: int) -> str:
        return f"{index} of TFDS data set {self._name}"

    def annotate(self, index: int) -> Annotation:
        """Reads size and boxes of image `index`; they may be empty or outside.

        Raises:
          UserError: if the image is broken, or an object has no label.
        """
        record = self._records[index]
        size = images.read_size(io.BytesIO(record["image"]), self._describe(index))
        image_id = record.get("image/filename", b"").decode() or str(index)
        objects = record["objects"]
        boxes = np.array(objects["bbox"], np.float32).reshape(-1, 4)
        difficult = np.zeros(len(boxes), bool)
        for field in _DIFFICULT_FIELDS:
            difficult |= np.array(objects.get(field, difficult), bool)
        return Annotation(
            image_id=Path(image_id).stem if self._is_voc else image_id,
            image_size=size,
            boxes=_voc_boxes(boxes, size) if self._is_voc else _boxes(boxes, size),
            labels=self._check_labels(objects["label"], index),
            difficult=difficult,
        )

    def _check_labels(self, labels: Sequence[int], index: int) -> np.ndarray:
        checked = np.array(labels, np.int32)
        if (checked < 0).any():  # how TFDS stores that there is none
            raise UserError(f"an object in {self._describe(index)} has no label")
        return checked


def _boxes(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Turns relative boxes into pixels."""
    return boxes * np.array(size * 2, np.float32)


def _voc_boxes(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Turns relative boxes into pixels counted from 0, the last one exclusive."""
    # The numbers of the files: their quotients are rounded in the fifth decimal.
    pixels = np.round(boxes.astype(np.float64) * np.array(size * 2), 3)
    return (pixels - (1.0, 1.0, 0.0, 0.0)).astype(np.float32)


def _open_builder(name: str, data_dir: str | Path | None) -> Any:
    import tensorflow_datasets as tfds  # Slow to import.

    try:
        return tfds.builder(name, data_dir=data_dir)
    except Exception as error:  # TFDS raises many types, with pages of text.
        raise UserError(f"no TFDS data set {name!r}: {first_line(error)}") from error


def _open_split(builder: Any, name: str, split: str) -> Any:
    import tensorflow_datasets as tfds

    if not builder.is_prepared():
        raise UserError(
            f"TFDS data set {name!r} is not prepared in {builder.data_dir}; "
            "prepare it with file_format='array_record'"
        )
    try:
        # The boxes come without decoding the images, and errors can name the image.
        undecoded = {"image": tfds.decode.SkipDecoding()}
        return builder.as_data_source(split=split, decoders=undecoded)
    except Exception as error:
        raise UserError(
            f"cannot read split {split!r} of TFDS data set {name!r} in "
            f"{builder.data_dir}: {first_line(error)}"
        ) from error


def _find_classes(features: Any, name: str) -> tuple[str, ...]:
    try:
        features["image"]
        box_format = features["objects"]["bbox"].bbox_format
        class_names = tuple(features["objects"]["label"].names)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"TFDS data set {name!r} has the features {', '.join(sorted(features))}; "
            "expected 'image' and 'objects' with 'bbox' and a class 'label'"
        ) from error
    if getattr(box_format, "name", None) != "REL_YXYX":
        raise UserError(
            f"TFDS data set {name!r} has boxes of the format {box_format}; "
            "expected REL_YXYX"
        )
    return class_names
