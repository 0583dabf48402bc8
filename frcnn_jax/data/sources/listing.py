"""Files that list others: what they name stays inside of the data set's folder."""

from pathlib import Path, PurePosixPath

from frcnn_jax.errors import UserError


def read_text(path: Path) -> str:
    """Reads a text file in UTF-8, with or without a byte order mark.

    Raises:
      UserError: if the file cannot be read or is not UTF-8.
    """
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}, expected UTF-8: {error}") from error


def check_inside(name: str, listed_by: Path) -> str:
    """Checks that a name from a file does not lead out of the folder it is used in.

    Args:
      name: of a file, relative to a folder of the data set.
      listed_by: the file that names it, for the error.

    Returns:
      The name in its shortest form, so that equal files have equal names.

    Raises:
      UserError: if the name is absolute or has `..` in it.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise UserError(
            f"{listed_by} names {name!r}, expected a file inside of the data set"
        )
    return str(path)
