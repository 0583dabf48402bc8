"""Selects images and objects of a data set, and renames its classes."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from frcnn_jax.config import DataConfig
from frcnn_jax.data.images import EncodedImage, read_encoded
from frcnn_jax.data.records import Annotation, Source, abbreviate
from frcnn_jax.errors import UserError

_FIELDS = (
    "class_names",
    "rename_classes",
    "drop_other_classes",
    "min_object_size",
    "difficult_objects",
    "skip_empty_images",
    "limit",
)


def select(source: Source, config: DataConfig) -> Source:
    """Selects the images and objects that a config asks for.

    Args:
      source: a whole split.
      config: says what to take of it.

    Raises:
      UserError: if the classes asked for are not those of the data set.
    """
    if all(getattr(config, name) == getattr(DataConfig, name) for name in _FIELDS):
        return source
    return SelectedSource(source, config)


class SelectedSource:
    """The images and objects of another source that a config asks for."""

    def __init__(self, source: Source, config: DataConfig) -> None:
        """Selects them; reads no image.

        Args:
          source: the other source.
          config: says what to take of it.

        Raises:
          UserError: if the classes asked for are not those of the data set.
        """
        self.class_names, labels = _map_classes(source, config)
        annotations = [
            _select_objects(annotation, labels, config)
            for annotation in source.annotations
        ]
        self._source = source
        self.indices = [
            index
            for index, annotation in enumerate(annotations)
            if not (config.skip_empty_images and annotation.difficult.all())
        ][: config.limit]
        self.annotations = [annotations[index] for index in self.indices]

    def read_image(self, index: int) -> np.ndarray:
        """Returns image `index` as [H, W, 3] uint8 RGB.

        Raises:
          UserError: if it is broken; names it.
        """
        return self._source.read_image(self.indices[index])

    def read_encoded(self, index: int) -> EncodedImage | None:
        """Returns image `index` as its file holds it; None if it is drawn."""
        return read_encoded(self._source, self.indices[index])


def _map_classes(
    source: Source, config: DataConfig
) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns the class names, and the label of each class of the source, [L] int32.

    The label is -1 if the objects of a class are left out.
    """
    renames = dict(config.rename_classes)
    _check_known(list(renames), source.class_names, "rename_classes")
    renamed = [renames.get(name, name) for name in source.class_names]
    class_names = config.class_names or tuple(dict.fromkeys(renamed))
    labels = {name: label for label, name in enumerate(class_names)}
    if config.drop_other_classes:
        _check_known(class_names, renamed, "class_names")
    else:
        _check_labels(source.annotations, renamed, class_names)
    return class_names, np.array([labels.get(name, -1) for name in renamed], np.int32)


def _check_known(names: Sequence[str], known: Sequence[str], field: str) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(
            f"data.{field} has {abbreviate(unknown)}; the classes of the data set are "
            f"{abbreviate(known)}"
        )


def _check_labels(
    annotations: Sequence[Annotation], names: Sequence[str], class_names: Sequence[str]
) -> None:
    """Checks that the class of every object is one of those asked for."""
    others = [label for label, name in enumerate(names) if name not in class_names]
    for annotation in annotations if others else ():
        for label in annotation.labels[np.isin(annotation.labels, others)]:
            raise UserError(
                f"image {annotation.image_id} has an object of class {names[label]!r}, "
                f"expected one of data.class_names, {abbreviate(class_names)}; or set "
                "data.drop_other_classes"
            )


def _select_objects(
    annotation: Annotation, new_labels: np.ndarray, config: DataConfig
) -> Annotation:
    labels = new_labels[annotation.labels]
    shorter_sides = (annotation.boxes[:, 2:] - annotation.boxes[:, :2]).min(axis=1)
    difficult = shorter_sides < config.min_object_size
    if config.difficult_objects != "use":
        difficult = difficult | annotation.difficult
    is_kept = labels >= 0
    if config.difficult_objects == "drop":
        is_kept &= ~difficult
    return dataclasses.replace(
        annotation,
        boxes=annotation.boxes[is_kept],
        labels=labels[is_kept],
        difficult=difficult[is_kept],
    )
