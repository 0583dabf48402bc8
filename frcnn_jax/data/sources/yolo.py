"""Data sets in YOLO format: a text file of boxes for each image.

A line is `class x y width height`, the center and the size in fractions of the upright
image, or `class x1 y1 x2 y2 x3 y3 ..`, a polygon, which becomes the box around it. The
lines of `images/train/a.jpg` are in `labels/train/a.txt`, or else beside the image. An
image without such a file has no objects.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from frcnn_jax.data.records import abbreviate
from frcnn_jax.data.sources import files
from frcnn_jax.data.sources.files import show
from frcnn_jax.data.sources.listing import ALL, ListedImage, ListedObject, Listing
from frcnn_jax.errors import UserError

_DESCRIPTIONS = ("data.yaml", "data.yml", "dataset.yaml")
_NAME_FILES = ("classes.txt", "labels/classes.txt", "obj.names")
_SPLITS = ("train", "val", "valid", "test")  # keys of a description
_IMAGE_FOLDERS = ("images/{}", "{}/images", "{}")

# Rounding may exceed 0..1 slightly; pixels instead of fractions exceed it by far.
_TOLERANCE = 0.01


class _Loader(yaml.BaseLoader):
    """Makes strings of all values: a class may be called `no` or `1`."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        """Refuses duplicate keys, of which PyYAML would take the last."""
        keys = [str(key.value) for key, _ in node.value]
        if len(set(keys)) < len(keys):
            message = "found a key twice"
            raise yaml.constructor.ConstructorError(
                None, None, message, node.start_mark
            )
        return super().construct_mapping(node, deep)


class _Description(NamedTuple):
    """What `data.yaml` says or, without it, what the folders imply."""

    path: Path  # of the file that has the class names, for errors
    class_names: tuple[str, ...]
    splits: dict[str, list[str]]  # folders and lists of images, as they are written
    base: str = "."  # what they are relative to


def find_splits(root: Path) -> list[str]:
    """Returns the names of the splits that a folder has in this format."""
    has_names = any((root / n).is_file() for n in (*_DESCRIPTIONS, *_NAME_FILES))
    if not has_names or not any(_find_labels(root, p) for p in files.find_images(root)):
        return []
    path, _, splits, base = _read_description(root)
    existing = []
    for split, names in splits.items():
        with contextlib.suppress(UserError):  # of a place that is not there
            for name in names:
                _find_place(root, base, name, str(path))
            existing.append(split)
    return [*existing, ALL]


def list_images(root: Path, split: str) -> Listing:
    """Lists the images of a split, in the order of their names.

    Args:
      root: the data set's folder, with the class names in `data.yaml`, or in
        `classes.txt`, one in a line.
      split: one of `data.yaml`, or `train` for the folder `images/train` or
        `train/images`, or `all` for all images.

    Raises:
      UserError: if a file is missing or malformed; names it and the line.
    """
    description = _read_description(root)
    paths = list(_find_images(root, split, description))
    label_files = {path: _find_labels(root, path) for path in paths}
    if not any(label_files.values()):
        raise UserError(f"no label files for split {split!r} in {root}")
    class_names = description.class_names
    images = []
    for path in _choose_paths(paths, label_files):
        labels = label_files[path]
        lines = files.read_lines(labels) if labels else ()
        objects = [_parse_object(*line, class_names) for line in lines]
        image_id = str(path.relative_to(root))
        images.append(ListedImage(image_id, path, objects, str(labels)))
    return Listing(class_names, images, in_fractions=True)


def _read_description(root: Path) -> _Description:
    for name in _DESCRIPTIONS:
        if (root / name).is_file():
            return _parse_description(root / name)
    for name in _NAME_FILES:
        path = root / name
        if path.is_file():
            names = files.read_text(path).rstrip().splitlines()
            class_names = files.check_names(list(map(str.strip, names)), str(path))
            return _Description(path, class_names, _find_folders(root))
    raise UserError(
        f"no {' or '.join(_DESCRIPTIONS)} with class names in {root}, and no "
        f"{' or '.join(_NAME_FILES)}"
    )


def _parse_description(path: Path) -> _Description:
    try:
        content = yaml.load(files.read_text(path), _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(
            f"cannot read {path}: {' '.join(str(error).split())}"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: {show(content)}; expected names, train and val")
    if "kpt_shape" in content:
        raise UserError(f"{path}: kpt_shape; expected boxes or polygons, not keypoints")
    names = content.get("names")
    if isinstance(names, dict):
        numbers = [str(number) for number in range(len(names))]
        if set(names) != set(numbers):
            raise UserError(
                f"{path}: names of {show(list(names))}; expected 0, 1, 2, .."
            )
        names = [names[number] for number in numbers]
    if not isinstance(names, list):
        raise UserError(f"{path}: names is {show(names)}; expected class names")
    if content.get("nc", str(len(names))) != str(len(names)):
        raise UserError(f"{path}: nc is {show(content['nc'])}, names has {len(names)}")
    return _Description(
        path,
        files.check_names(names, f"{path}: names"),
        _parse_splits(content, path) or _find_folders(path.parent),
        content.get("path") or ".",
    )


def _parse_splits(content: dict[str, Any], path: Path) -> dict[str, list[str]]:
    splits = {}
    for key in _SPLITS:
        value = content.get(key) or []
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
            raise UserError(f"{path}: {key} is {show(value)}; expected a folder")
        if values:
            splits[key] = values
    return splits


def _find_folders(root: Path) -> dict[str, list[str]]:
    """Returns the folders that have images by the name of their split."""
    return {
        split: [str(path.relative_to(root))]
        for split, path in files.find_files(root, _IMAGE_FOLDERS).items()
        if split != "images" and any(map(files.is_image, path.glob("*")))
    }


def _find_images(root: Path, split: str, description: _Description) -> Iterator[Path]:
    path, splits = description.path, description.splits
    if split != ALL and split not in splits:
        listed = abbreviate([*splits, ALL])
        raise UserError(f"{path}: no split {split!r}; splits there: {listed}")
    for name in splits.get(split, ["."]):
        place = _find_place(root, description.base, name, f"{path}: {split}")
        if place.is_dir():
            yield from files.find_images(place)
        else:
            folders = (str(place.parent.relative_to(root)), ".")
            for where, line in files.read_lines(place):
                yield files.find_image(root, folders, line, where)


def _find_place(root: Path, base: str, name: str, where: str) -> Path:
    """Finds a folder of images, or a list of them."""
    # Roboflow writes ../train/images for what is in the folder itself, and the base is
    # often that of another machine.
    names = (name, name.removeprefix("../"))
    candidates = (root / folder / each for folder in (base, ".") for each in names)
    return files.find_inside(root, candidates, f"{where}: {show(name)}")


def _choose_paths(
    paths: Sequence[Path], label_files: Mapping[Path, Path | None]
) -> list[Path]:
    """Chooses one path of an image that links give several, one that has labels."""
    chosen: dict[str, Path] = {}  # by real path
    for path in paths:
        real_path = os.path.realpath(path)
        other = chosen.setdefault(real_path, path)
        if label_files[path] and not label_files[other]:
            chosen[real_path] = path
    kept = set(chosen.values())
    return [path for path in paths if path in kept]


def _find_labels(root: Path, image: Path) -> Path | None:
    """Returns the file of an image's labels, None if there is none."""
    parts = list(image.with_suffix(".txt").relative_to(root).parts)
    beside = root.joinpath(*parts)
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        parts[last] = "labels"
    for path in (root.joinpath(*parts), beside):
        if path.is_file():
            return path
    return None


def _parse_object(where: str, line: str, class_names: Sequence[str]) -> ListedObject:
    text, *texts = line.split()
    label = files.parse_count(text, f"{where}: class")
    if label >= len(class_names):
        raise UserError(
            f"{where}: class is {label}; expected 0 to {len(class_names) - 1}"
        )
    values = [files.parse_number(text, f"{where}: a coordinate") for text in texts]
    is_polygon = len(values) >= 6 and len(values) % 2 == 0
    if len(values) != 4 and not is_polygon:
        raise UserError(
            f"{where}: {len(values)} numbers after the class; expected x, y, width and "
            "height, or at least three corners of a polygon"
        )
    for value in values:
        if not -_TOLERANCE <= value <= 1 + _TOLERANCE:
            raise UserError(
                f"{where}: a coordinate is {value}; expected fractions of the image's "
                "sides, 0 to 1"
            )
    if is_polygon:
        return ListedObject(class_names[label], _box_around(values[1::2], values[::2]))
    x, y, width, height = values
    box = (y - height / 2, x - width / 2, y + height / 2, x + width / 2)
    return ListedObject(class_names[label], box)


def _box_around(
    y: Sequence[float], x: Sequence[float]
) -> tuple[float, float, float, float]:
    return min(y), min(x), max(y), max(x)
