"""Folders in PASCAL VOC format: for each image an XML file of boxes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from frcnn_jax.data import images
from frcnn_jax.data.records import Annotation, drop_bad_boxes
from frcnn_jax.data.sources import voc_split, voc_xml
from frcnn_jax.data.sources.voc_split import ImageFiles
from frcnn_jax.errors import UserError


class VOCSource:
    """A split of folders with `Annotations`, `JPEGImages` and `ImageSets/Main`."""

    def __init__(
        self,
        root: str | Path,
        split: str,
        *,
        class_names: Sequence[str] | None = None,
        skip_broken: bool = False,
    ) -> None:
        """Reads and checks the annotations of a split; the images stay unread.

        Args:
          root: the folder, or one that holds several such folders.
          split: the name of a file in `ImageSets/Main`, without `.txt`, after the
            folder if `root` holds several: `VOC2007/trainval`. Parts joined by `+` are
            read one after the other.
          class_names: the classes, in the order of their labels. By default, all
            those in the `Annotations` of these folders, sorted, so that every split
            numbers them alike.
          skip_broken: decode each image now and leave out, with a warning, those
            that are broken. Otherwise `read_image` raises for a broken image.

        Raises:
          UserError: if something is missing or malformed; names the file and the field.
        """
        self._files = voc_split.find_files(Path(root), split)
        folders = {files.annotation.parent for files in self._files.values()}
        if skip_broken:
            self._files = _drop_broken(self._files)
        self.class_names = tuple(class_names or _find_classes(sorted(folders)))
        self.annotations = drop_bad_boxes(
            [
                _annotate(image_id, files, self.class_names)
                for image_id, files in self._files.items()
            ],
            empty_side=voc_xml.EMPTY_SIDE,
        )

    def read_image(self, index: int) -> np.ndarray:
        """Returns image `index` as [H, W, 3] uint8 RGB.

        Raises:
          UserError: if the file is broken; names its path.
        """
        path = self._files[self.annotations[index].image_id].image
        return images.read_rgb(path, str(path))


def _drop_broken(all_files: dict[str, ImageFiles]) -> dict[str, ImageFiles]:
    image_ids = list(all_files)

    def read(index: int) -> np.ndarray:
        path = all_files[image_ids[index]].image
        return images.read_rgb(path, str(path))

    good = images.find_readable(image_ids, read)
    return {image_ids[index]: all_files[image_ids[index]] for index in good}


def _find_classes(folders: Sequence[Path]) -> list[str]:
    paths = (path for folder in folders for path in folder.glob("*.xml"))
    names = sorted(
        {item.name for path in paths for item in voc_xml.parse(path).objects}
    )
    if not names:
        listed = " or ".join(f"{folder}/*.xml" for folder in folders)
        raise UserError(f"no objects in {listed}; expected VOC annotations")
    return names


def _annotate(
    image_id: str, files: ImageFiles, class_names: Sequence[str]
) -> Annotation:
    objects, image_size = voc_xml.parse(files.annotation)
    for item in objects:
        if item.name not in class_names:
            raise UserError(
                f"{files.annotation}: unknown class {item.name!r} in <name>; "
                f"expected one of {', '.join(class_names)}"
            )
    return Annotation(
        image_id=image_id,
        image_size=images.read_annotated_size(
            files.image, image_size, str(files.annotation)
        ),
        boxes=np.array([item.box for item in objects], np.float32).reshape(-1, 4),
        labels=np.array([class_names.index(item.name) for item in objects], np.int32),
        difficult=np.array([item.difficult for item in objects], bool),
    )
