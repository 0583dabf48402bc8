"""Folders in PASCAL VOC format: for each image an XML file of boxes."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from frcnn_jax.data import images
from frcnn_jax.data.records import Annotation, abbreviate, drop_bad_boxes
from frcnn_jax.data.sources import voc_xml
from frcnn_jax.errors import UserError

_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")

# A box whose file says x_max <= x_min is at most one pixel wide here.
_EMPTY_SIDE = 1.0

_logger = logging.getLogger(__name__)


class VOCSource:
    """A split of a folder with `Annotations`, `JPEGImages` and `ImageSets/Main`."""

    def __init__(
        self,
        root: str | Path,
        split: str,
        *,
        class_names: Sequence[str] | None = None,
        skip_broken: bool = False,
    ):
        """Reads and checks the annotations of a split; the images stay unread.

        Args:
          root: The folder.
          split: The name of a file in `ImageSets/Main`, without `.txt`.
          class_names: The classes, in the order of their labels. By default, all
            those in `Annotations`, sorted, so that every split numbers them alike.
          skip_broken: Decode each image now and leave out, with a warning, those
            that are broken. Otherwise `read_image` raises when it meets one.

        Raises:
          UserError: Something is missing or malformed; names the file and the field.
        """
        root = Path(root)
        if not root.is_dir():
            raise UserError(f"{root} is not a folder; expected one in VOC format")
        image_ids = _read_split(root, split)
        self._paths = {image_id: _find_image(root, image_id) for image_id in image_ids}
        if skip_broken:
            self._paths = _drop_broken(self._paths)
        folder = root / "Annotations"
        self.class_names = tuple(class_names or _find_classes(folder))
        self.annotations = drop_bad_boxes(
            [
                _annotate(folder / f"{image_id}.xml", path, self.class_names)
                for image_id, path in self._paths.items()
            ],
            empty_side=_EMPTY_SIDE,
        )

    def read_image(self, index: int) -> np.ndarray:
        """Returns image `index` as [H, W, 3] uint8 RGB.

        Raises:
          UserError: The file is broken; names its path.
        """
        path = self._paths[self.annotations[index].image_id]
        return images.read_rgb(path, str(path))


def _read_split(root: Path, split: str) -> list[str]:
    path = root / "ImageSets" / "Main" / f"{split}.txt"
    if not path.is_file():
        splits = sorted(other.stem for other in path.parent.glob("*.txt"))
        raise UserError(f"no file {path}; splits there: {abbreviate(splits) or 'none'}")
    # The files of a single class have a second column, its presence.
    image_ids = [
        line.split()[0] for line in path.read_text().splitlines() if line.strip()
    ]
    if not image_ids:
        raise UserError(f"{path} lists no images")
    seen = set()
    for image_id in image_ids:
        if image_id in seen:
            raise UserError(f"{path} lists image {image_id} more than once")
        seen.add(image_id)
    return image_ids


def _find_image(root: Path, image_id: str) -> Path:
    for suffix in _SUFFIXES:
        path = root / "JPEGImages" / f"{image_id}{suffix}"
        if path.is_file():
            return path
    raise UserError(
        f"no image {root / 'JPEGImages' / image_id} with .jpg, .jpeg or .png"
    )


def _drop_broken(paths: dict[str, Path]) -> dict[str, Path]:
    good = {}
    for image_id, path in paths.items():
        try:
            images.read_rgb(path, str(path))
        except UserError:
            continue
        good[image_id] = path
    broken = [path.name for image_id, path in paths.items() if image_id not in good]
    if broken:
        _logger.warning(
            "left out %d broken images: %s", len(broken), abbreviate(broken)
        )
    return good


def _find_classes(folder: Path) -> list[str]:
    objects = (item for path in folder.glob("*.xml") for item in voc_xml.parse(path))
    names = sorted({item.name for item in objects})
    if not names:
        raise UserError(f"no objects in {folder}/*.xml; expected VOC annotations")
    return names


def _annotate(path: Path, image: Path, class_names: Sequence[str]) -> Annotation:
    objects = voc_xml.parse(path)
    for item in objects:
        if item.name not in class_names:
            raise UserError(
                f"{path}: unknown class {item.name!r} in <name>; "
                f"expected one of {', '.join(class_names)}"
            )
    return Annotation(
        image_id=path.stem,
        image_size=images.read_size(image, str(image)),
        boxes=np.array([item.box for item in objects], np.float32).reshape(-1, 4),
        labels=np.array([class_names.index(item.name) for item in objects], np.int32),
        difficult=np.array([item.difficult for item in objects], bool),
    )
