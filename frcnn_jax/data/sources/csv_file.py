"""Data sets in CSV: a row for each object, with the path of its image.

Either the first line names the columns, or there are six without names: `path, x1, y1,
x2, y2, class`, as in keras-retinanet. Coordinates are pixels from 0, the maxima
exclusive. A row with a path alone is an image without objects.
"""

import csv
import io
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from frcnn_jax.data.records import abbreviate
from frcnn_jax.data.sources import files
from frcnn_jax.data.sources.files import show
from frcnn_jax.data.sources.listing import ListedImage, ListedObject, Listing
from frcnn_jax.errors import UserError

_FILES = ("{}_labels.csv", "{}.csv", "{}/_annotations.csv", "annotations/{}.csv")
_IMAGE_FOLDERS = ("{}", "images/{}", "images", ".")
_CLASS_FILES = ("classes.csv", "_classes.csv")

# What a column may be called; the first of these that a file has is taken.
_SYNONYMS = {
    "path": ("filename", "file_name", "path", "image_path", "image", "image_id"),
    "class": ("class", "class_name", "label", "name", "category"),
    "ymin": ("ymin", "y_min", "y1", "top"),
    "xmin": ("xmin", "x_min", "x1", "left"),
    "ymax": ("ymax", "y_max", "y2", "bottom"),
    "xmax": ("xmax", "x_max", "x2", "right"),
    "height": ("height", "image_height"),
    "width": ("width", "image_width"),
}
_EDGES = ("ymin", "xmin", "ymax", "xmax")
_SIDES = ("height", "width")  # optional
_UNNAMED = ("path", "xmin", "ymin", "xmax", "ymax", "class")


class _Row(NamedTuple):
    where: str  # file and line
    path: str  # of the image, as it is written
    size: tuple[int, int] | None  # (height, width) of the image
    item: ListedObject | None


def find_splits(root: Path) -> list[str]:
    """Returns the names of the splits that a folder has in this format."""
    found = files.find_files(root, _FILES)
    return [split for split, path in found.items() if _has_rows(path)]


def list_images(root: Path, split: str) -> Listing:
    """Lists the images of a split, in the order of the file.

    The classes are those of `classes.csv`, rows of `name, id`; without it those found
    in the files of all splits, sorted.

    Args:
      root: the data set's folder.
      split: `train` for `train.csv`.

    Raises:
      UserError: if a file is missing or malformed; names it and the line.
    """
    path = files.find_file(root, _FILES, split)
    class_names = _find_classes(root, path)
    folders = [folder.format(split) for folder in _IMAGE_FOLDERS]
    images: dict[str, ListedImage] = {}
    for row in _read_rows(path):
        if row.path not in images:
            file = files.find_image(root, folders, row.path, row.where)
            image_id = str(file.relative_to(root))
            images[row.path] = ListedImage(image_id, file, [], row.where, row.size)
        image = images[row.path]
        if row.size != image.size:
            raise UserError(
                f"{row.where}: height and width are {row.size}, expected {image.size} "
                f"as in the first line about {show(row.path)}"
            )
        if row.item:
            if row.item.name not in class_names:
                raise UserError(
                    f"{row.where}: unknown class {show(row.item.name)}; expected one "
                    f"of {abbreviate(class_names)}"
                )
            image.objects.append(row.item)
    return Listing(class_names, list(images.values()))


def _has_rows(path: Path) -> bool:
    try:
        return next(_read_rows(path), None) is not None
    except UserError:  # about something else
        return False


def _find_classes(root: Path, path: Path) -> tuple[str, ...]:
    for folder in (path.parent, root):
        for name in _CLASS_FILES:
            if os.path.isfile(folder / name):
                return _read_classes(folder / name)
    others = files.find_files(root, _FILES).values()
    paths = dict.fromkeys([path, *filter(_has_rows, others)])
    names = {row.item.name for each in paths for row in _read_rows(each) if row.item}
    return tuple(sorted(names))


def _read_classes(path: Path) -> tuple[str, ...]:
    names: dict[int, str] = {}
    for where, cells in _read_cells(path):
        if not names and cells[-1].lower() == "id":
            continue
        if len(cells) != 2:
            raise UserError(f"{where}: {show(cells)}; expected a class name and its id")
        class_id = files.parse_count(cells[1], f"{where}: id")
        if class_id in names:
            raise UserError(f"{where}: duplicate id {class_id}")
        names[class_id] = cells[0]
    return files.check_names([names[each] for each in sorted(names)], str(path))


def _read_rows(path: Path) -> Iterator[_Row]:
    lines = _read_cells(path)
    where, cells = next(lines, (f"{path} line 1", []))
    columns = _find_columns([cell.lower() for cell in cells], where)
    num_columns = len(cells)
    if columns is None:
        columns = {name: _UNNAMED.index(name) for name in _UNNAMED}
        lines = itertools.chain([(where, cells)], lines)
    for where, cells in lines:
        if len(cells) != num_columns:
            raise UserError(f"{where}: {len(cells)} columns; expected {num_columns}")
        yield _parse_row({name: cells[at] for name, at in columns.items()}, where)


def _read_cells(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yields what to call each line in an error, and its cells; skips empty lines."""
    lines = csv.reader(io.StringIO(files.read_text(path)), strict=True)
    try:
        for cells in lines:
            if any(cells):
                yield f"{path} line {lines.line_num}", [cell.strip() for cell in cells]
    except csv.Error as error:
        raise UserError(f"{path} line {lines.line_num}: {error}") from error


def _find_columns(names: Sequence[str], where: str) -> dict[str, int] | None:
    """Returns which column is where, None if the line does not name them.

    Args:
      names: the cells of the first line, in lower case.
      where: file and line, for the error.

    Raises:
      UserError: if a column is missing, or two have the same name.
    """
    found = {
        column: [names.index(name) for name in synonyms if name in names]
        for column, synonyms in _SYNONYMS.items()
    }
    missing = [column for column in _SYNONYMS if not found[column]]
    if len(names) == len(_UNNAMED) and not any(map(found.get, _EDGES)):
        return None
    if set(missing) - set(_SIDES) or len(set(names)) < len(names):
        raise UserError(
            f"{where}: columns {show(', '.join(names))}; expected "
            f"{', '.join(_SYNONYMS)}, or six without names: {', '.join(_UNNAMED)}"
        )
    return {column: at[0] for column, at in found.items() if at}


def _parse_row(cells: dict[str, str], where: str) -> _Row:
    if not cells["path"]:
        raise UserError(f"{where}: no path of an image")
    size = None
    if any(cells.get(side) for side in _SIDES):
        height, width = (
            files.parse_count(cells.get(side), f"{where}: {side}") for side in _SIDES
        )
        size = height, width
    if not any(cells[name] for name in ("class", *_EDGES)):
        return _Row(where, cells["path"], size, None)
    if not cells["class"]:
        raise UserError(f"{where}: no class")
    y_min, x_min, y_max, x_max = (
        files.parse_number(cells[edge], f"{where}: {edge}") for edge in _EDGES
    )
    item = ListedObject(cells["class"], (y_min, x_min, y_max, x_max))
    return _Row(where, cells["path"], size, item)
