"""Data sets in COCO format: a JSON file of instances for each split, and images.

A box of COCO is `[x, y, width, height]` in pixels, from 0. A crowd counts as difficult.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from frcnn_jax.data.sources import files
from frcnn_jax.data.sources.files import show
from frcnn_jax.data.sources.listing import ListedImage, ListedObject, Listing
from frcnn_jax.errors import UserError

_FILES = (
    "annotations/instances_{}.json",
    "{}/_annotations.coco.json",  # Roboflow
    "annotations/{}.json",
    "{}.json",
)
_IMAGE_FOLDERS = ("{}", "images/{}", "images", ".")
_LISTS = ("images", "annotations", "categories")


def find_splits(root: Path) -> list[str]:
    """Returns the names of the splits that a folder has in this format."""
    found = files.find_files(root, _FILES)
    return [split for split, path in found.items() if _has_boxes(path)]


def list_images(root: Path, split: str) -> Listing:
    """Lists the images of a split, in the order of the file.

    Labels are in the order of the category ids. A category without objects has one,
    too.

    Args:
      root: the data set's folder.
      split: `train2017` for `annotations/instances_train2017.json`.

    Raises:
      UserError: if a file is missing or malformed; names it and the field.
    """
    path = files.find_file(root, _FILES, split)
    content = _read(path)
    class_names = _read_categories(content, path)
    images = _read_images(content, path, root, split)
    for where, item in _items(content, "annotations", path):
        image_id = _read_id(item, "image_id", where)
        if image_id not in images:
            raise UserError(f"{where}.image_id is {show(image_id)}; no image has it")
        images[image_id].objects.append(_read_object(item, class_names, where))
    return Listing(tuple(class_names.values()), list(images.values()))


def _has_boxes(path: Path) -> bool:
    content = path.read_bytes() if path.is_file() else b""
    return all(f'"{name}"'.encode() in content for name in (*_LISTS, "bbox"))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(files.read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    for name in _LISTS:
        if not isinstance(content, dict) or not isinstance(content.get(name), list):
            raise UserError(f"{path}: no list {name!r}; expected instances of COCO")
    return content


def _items(
    content: dict[str, Any], name: str, path: Path
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields what to call each item of a list in an error, and the item."""
    for index, item in enumerate(content[name]):
        where = f"{path}: {name}[{index}]"
        if not isinstance(item, dict):
            raise UserError(f"{where} is {show(item)}; expected an object")
        yield where, item


def _read_categories(content: dict[str, Any], path: Path) -> dict[int | str, str]:
    """Returns the class names by category id, in the order of the ids."""
    names = {}
    for where, item in _items(content, "categories", path):
        category_id = _read_id(item, "id", where)
        if category_id in names:
            raise UserError(f"{where}: duplicate id {show(category_id)}")
        names[category_id] = item.get("name")
    # Numbers before strings, which cannot be compared with them.
    order = sorted(names, key=lambda each: (isinstance(each, str), each))
    in_order = files.check_names([names[each] for each in order], f"{path}: categories")
    return dict(zip(order, in_order, strict=True))


def _read_images(
    content: dict[str, Any], path: Path, root: Path, split: str
) -> dict[int | str, ListedImage]:
    """Returns the images by id, without their objects."""
    folders = [folder.format(split) for folder in _IMAGE_FOLDERS]
    images: dict[int | str, ListedImage] = {}
    for where, item in _items(content, "images", path):
        image_id, name = _read_id(item, "id", where), item.get("file_name")
        if image_id in images:
            raise UserError(f"{where}: duplicate id {show(image_id)}")
        if not isinstance(name, str):
            raise UserError(f"{where}.file_name is {show(name)}; expected a name")
        file = files.find_image(root, folders, name, f"{where}.file_name")
        images[image_id] = ListedImage(
            str(file.relative_to(root)), file, [], where, _read_size(item, where)
        )
    return images


def _read_object(
    item: dict[str, Any], class_names: dict[int | str, str], where: str
) -> ListedObject:
    category_id = _read_id(item, "category_id", where)
    if category_id not in class_names:
        raise UserError(
            f"{where}.category_id is {show(category_id)}; no category has it"
        )
    box, is_crowd = item.get("bbox"), item.get("iscrowd", 0)
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise UserError(f"{where}.bbox is {show(box)}; expected [x, y, width, height]")
    if is_crowd not in (0, 1):
        raise UserError(f"{where}.iscrowd is {show(is_crowd)}; expected 0 or 1")
    x, y, width, height = box
    return ListedObject(
        class_names[category_id], (y, x, y + height, x + width), bool(is_crowd)
    )


def _read_id(item: dict[str, Any], field: str, where: str) -> int | str:
    value = item.get(field)
    if not isinstance(value, int | str) or isinstance(value, bool):
        raise UserError(f"{where}.{field} is {show(value)}; expected a whole number")
    return value


def _read_size(item: dict[str, Any], where: str) -> tuple[int, int] | None:
    height, width = item.get("height"), item.get("width")
    if height is None and width is None:
        return None
    if not isinstance(height, int) or not isinstance(width, int):
        shown = show([height, width])
        raise UserError(f"{where} has height and width {shown}; expected pixels")
    return height, width


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < files.MAX_NUMBER  # not a bool
