"""Data sets in PASCAL VOC format: an XML file of boxes for each image.

The XML files are in `Annotations` and the images in `JPEGImages`, or in `annotations`
and `images`, or both side by side.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from frcnn_jax.data.records import abbreviate
from frcnn_jax.data.sources import files, voc_xml
from frcnn_jax.data.sources.listing import ALL, ListedImage, Listing
from frcnn_jax.errors import UserError

_LISTS = ("ImageSets/Main/{}.txt", "{}.txt")
_ANNOTATION_FOLDERS = ("Annotations", "annotations", ".")
_IMAGE_FOLDERS = ("JPEGImages", "images", ".")
_SUFFIXES = (*files.SUFFIXES, *(suffix.upper() for suffix in files.SUFFIXES))
_FLAGS = ("-1", "0", "1")


def find_splits(root: Path) -> list[str]:
    """Returns the names of the splits that a folder has in this format."""
    annotations = _find_annotations(root)
    if not annotations:
        return []
    lists = []
    for split, path in files.find_files(root, _LISTS).items():
        with contextlib.suppress(UserError):  # of a text about something else
            if any(stem in annotations for _, stem in _read_list(path)):
                lists.append(split)
    folders = sorted({stem.partition("/")[0] for stem in annotations if "/" in stem})
    return list(dict.fromkeys([*lists, *folders, ALL]))


def list_images(root: Path, split: str) -> Listing:
    """Lists the images of a split.

    The classes are those of all XML files, sorted, so that every split numbers them
    alike.

    Args:
      root: the data set's folder.
      split: `train` for what `ImageSets/Main/train.txt` or `train.txt` lists, in its
        order, or for a folder `train` of XML files; or `all`.

    Raises:
      UserError: if a file is missing or malformed; names it and the field.
    """
    annotations = _find_annotations(root)
    listed = list(_list_stems(root, split, annotations))
    parsed = {stem: voc_xml.parse(path) for stem, path in annotations.items()}
    names = {item.name for content in parsed.values() for item in content.objects}
    images = []
    for where, stem in listed:
        if stem not in annotations:
            raise UserError(f"{where}: no XML file of image {files.show(stem)}")
        objects, size = parsed[stem]
        image = _find_image(root, stem, where)
        images.append(ListedImage(stem, image, objects, str(annotations[stem]), size))
    return Listing(tuple(sorted(names)), images, empty_side=voc_xml.EMPTY_SIDE)


def _find_annotations(root: Path) -> dict[str, Path]:
    """Returns the XML files by their place in their folder, without the suffix."""
    for folder in (root / name for name in _ANNOTATION_FOLDERS):
        found = (path for glob in ("*.xml", "*/*.xml") for path in folder.glob(glob))
        paths = [path for path in found if path.name[0] != "."]
        if paths:
            stems = [path.relative_to(folder).with_suffix("") for path in paths]
            return dict(sorted(zip(map(str, stems), paths, strict=True)))
    return {}


def _list_stems(
    root: Path, split: str, annotations: dict[str, Path]
) -> Iterator[tuple[str, str]]:
    """Yields the stem of every image, after what to call it in an error."""
    for template in _LISTS:
        path = root / template.format(split)
        if path.is_file():
            yield from _read_list(path)
            return
    stems = [s for s in annotations if split == ALL or s.startswith(f"{split}/")]
    if not stems:
        lists = " or ".join(template.format(split) for template in _LISTS)
        splits = abbreviate(find_splits(root)) or "none, as there is no XML file"
        raise UserError(f"no {lists} in {root}; splits there: {splits}")
    for stem in stems:
        yield str(annotations[stem]), stem


def _read_list(path: Path) -> Iterator[tuple[str, str]]:
    for where, line in files.read_lines(path):
        # The files of a single class have a second column, its presence.
        name, *flag = line.rsplit(maxsplit=1)
        name = os.path.normpath(name if "".join(flag) in _FLAGS else line)
        stem, suffix = os.path.splitext(name)
        yield where, stem if suffix.lower() in (*files.SUFFIXES, ".xml") else name


def _find_image(root: Path, stem: str, where: str) -> Path:
    candidates = (
        root / folder / f"{stem}{suffix}"
        for folder in _IMAGE_FOLDERS
        for suffix in _SUFFIXES
    )
    return files.find_inside(root, candidates, f"{where}: image {files.show(stem)}")
