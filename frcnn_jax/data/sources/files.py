"""Finds and reads the files of a data set, with errors that name file and line.

A name in a file must not lead out of the data set's folder.
"""

import math
import os
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from frcnn_jax.data.records import abbreviate
from frcnn_jax.errors import UserError, first_line

SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".jp2", ".j2k"),
)

# No picture is larger; float32 still holds it.
MAX_NUMBER = 1e9


def find_image(root: Path, folders: Iterable[str], name: str, where: str) -> Path:
    """Finds an image that an annotation names.

    Args:
      root: the data set's folder.
      folders: in `root`, what the name may be relative to; the first that has it wins.
      name: as the annotation has it.
      where: file and line or key of the annotation, for the error.

    Raises:
      UserError: if there is no such image in `root`.
    """
    paths = [root / folder / name for folder in folders]
    return find_inside(root, paths, f"{where}: image {show(name)}")


def find_inside(root: Path, paths: Iterable[Path], what: str) -> Path:
    """Finds the first file or folder that there is.

    Args:
      root: the data set's folder. Symbolic links may lead out of it, names may not.
      paths: the candidates.
      what: what is looked for and where it is named, for the error.

    Raises:
      UserError: if there is none in `root`.
    """
    folders: dict[str, None] = {}
    for path in paths:
        path = Path(os.path.normpath(path))
        if _is_inside(path, root):
            if os.path.exists(path):  # False, too, for what no file can be called
                return path
            folders[os.path.relpath(path.parent, root)] = None
    if not folders:
        raise UserError(f"{what} leads out of {root}")
    raise UserError(f"{what} is in none of {', '.join(folders)} of {root}")


def _is_inside(path: Path, root: Path) -> bool:
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root))


def find_file(root: Path, templates: Sequence[str], split: str) -> Path:
    """Finds the annotation file of a split.

    Args:
      root: the data set's folder.
      templates: paths in it, with `{}` for the split, the most usual first.
      split: its name.

    Raises:
      UserError: if there is no such file; says which splits there are.
    """
    for template in templates:
        path = root / template.format(split)
        if os.path.isfile(path):
            return path
    expected = " or ".join(template.format(split) for template in templates)
    splits = abbreviate(list(find_files(root, templates))) or "none"
    raise UserError(f"no {expected} in {root}; splits there: {splits}")


def find_files(root: Path, templates: Iterable[str]) -> dict[str, Path]:
    """Finds the files, or folders, of all splits.

    Args:
      root: the data set's folder.
      templates: as for `find_file`; a file belongs to the first that fits.

    Returns:
      The files by the name of the split, sorted within each template.
    """
    found: dict[str, Path] = {}
    seen: set[Path] = set()
    for template in templates:
        before, after = template.split("{}")
        for path in sorted(root.glob(template.format("*"))):
            name = str(path.relative_to(root)).removeprefix(before).removesuffix(after)
            if path not in seen and name not in found:
                found[name] = path
                seen.add(path)
    return found


def find_images(folder: Path) -> list[Path]:
    """Finds the images in a folder and in those below it, sorted.

    Symbolic links are followed, except to a folder that they are in. So an image can
    have several paths.
    """
    found = []
    # By path, the real paths of a folder and of those it is in.
    above = {str(folder): {os.path.realpath(folder)}}
    for path, subfolders, names in os.walk(folder, followlinks=True):
        found += [each for name in names if is_image(each := Path(path, name))]
        inside = above.pop(path)
        for name in list(subfolders):
            below = os.path.join(path, name)
            real_path = os.path.realpath(below)
            if real_path in inside:
                subfolders.remove(name)
            else:
                above[below] = inside | {real_path}
    return sorted(found)


def is_image(path: Path) -> bool:
    """Returns whether a file is named like an image, and is not hidden.

    macOS leaves hidden files behind that are named like images.
    """
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def read_text(path: Path) -> str:
    """Reads a text file in UTF-8, with or without a byte order mark.

    Raises:
      UserError: if the file cannot be read or is not UTF-8.
    """
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {first_line(error)}") from error


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yields what to call each line of a file in an error, and the line.

    Empty lines are skipped.

    Raises:
      UserError: if the file cannot be read.
    """
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            yield f"{path} line {number}", line.strip()


def check_names(names: Sequence[Any], where: str) -> tuple[str, ...]:
    """Checks a list of class names.

    Args:
      names: one for each label.
      where: where they are listed, for the error.

    Raises:
      UserError: if the list is empty, or an entry is not a name or a duplicate.
    """
    if not names:
        raise UserError(f"{where}: no class names")
    for index, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"{where}: class {index} is {show(name)}; expected a name")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(f"{where}: duplicate class name: {abbreviate(repeated)}")
    return tuple(names)


def check_unicode(name: str, what: str) -> None:
    """Checks that a name can be written to a file.

    Args:
      name: of a file or class. That of a file can be of any bytes.
      what: what is called so, for the error.

    Raises:
      UserError: if it has bytes that are not UTF-8, or half a character.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"{what} is {name!r}; expected a name in UTF-8") from None


def parse_number(text: str | None, where: str) -> float:
    """Reads a finite number.

    Args:
      text: what should be one; None if it is absent.
      where: file, line and field, for the error.

    Raises:
      UserError: if it is not a number, or is larger than any picture.
    """
    try:
        # Python reads 1_0 as 10.
        value = math.nan if text is None or "_" in text else float(text)
    except ValueError:
        value = math.nan
    if not abs(value) < MAX_NUMBER:  # NaN, too
        raise UserError(f"{where} is {show(text)}; expected a number")
    return value


def parse_count(text: str | None, where: str) -> int:
    """Reads a whole number from 0.

    Args:
      text: what should be one.
      where: file, line and field, for the error.

    Raises:
      UserError: if it is not a whole number.
    """
    value = parse_number(text, where)
    if value < 0 or not value.is_integer():
        raise UserError(f"{where} is {show(text)}; expected a whole number")
    return int(value)


def show(value: Any) -> str:
    """Describes a value of any type and size briefly, in one line."""
    return reprlib.repr(value)
