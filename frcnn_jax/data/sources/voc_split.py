"""The images of a split of one or several folders in PASCAL VOC format."""

import os
from pathlib import Path
from typing import NamedTuple

from frcnn_jax.data.records import abbreviate
from frcnn_jax.data.sources.listing import check_inside, read_text
from frcnn_jax.errors import UserError

_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")


class ImageFiles(NamedTuple):
    """What belongs to an image; whether the annotation exists is not checked yet."""

    image: Path
    annotation: Path


def find_files(root: Path, split: str) -> dict[str, ImageFiles]:
    """Finds the files of every image of a split, in its order.

    Args:
      root: the folder, or one that holds several such folders.
      split: parts joined by `+`: each the name of a file in `ImageSets/Main`, after a
        folder in `root` and a slash where `root` holds several.

    Returns:
      The files by image id, which begins with the folder where the split names one:
      `VOC2012/2008_000002`.

    Raises:
      UserError: if a folder, a part or an image is missing, a part is not UTF-8, or
        an image is listed twice or outside of the folder.
    """
    found = {}
    for part in split.split("+"):
        subfolder, slash, name = part.rpartition("/")
        folder = root / subfolder
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder; expected one in VOC format")
        path = folder / "ImageSets" / "Main" / f"{name}.txt"
        for stem in _read_list(path):
            image_id = f"{subfolder}{slash}{stem}"
            if image_id in found:
                raise UserError(
                    f"{path} lists image {image_id} more than once in split {split}"
                )
            annotation = folder / "Annotations" / f"{stem}.xml"
            found[image_id] = ImageFiles(_find_image(folder, stem), annotation)
    return found


def _read_list(path: Path) -> list[str]:
    if not os.path.isfile(path):
        splits = sorted(other.stem for other in path.parent.glob("*.txt"))
        raise UserError(f"no file {path}; splits there: {abbreviate(splits) or 'none'}")
    # The files of a single class have a second column, its presence.
    rows = [line.split() for line in read_text(path).splitlines()]
    stems = [check_inside(row[0], path) for row in rows if row]
    if not stems:
        raise UserError(f"{path} lists no images")
    return stems


def _find_image(folder: Path, stem: str) -> Path:
    for suffix in _SUFFIXES:
        path = folder / "JPEGImages" / f"{stem}{suffix}"
        if os.path.isfile(path):  # False, too, for what no file can be called
            return path
    raise UserError(f"no image {folder / 'JPEGImages' / stem} with .jpg, .jpeg or .png")
