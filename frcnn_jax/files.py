"""Writes files: a kill leaves them whole, and an error names them."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from frcnn_jax.errors import UserError


@contextlib.contextmanager
def os_errors_as_user_errors(path: Path) -> Iterator[None]:
    """Turns an error of the system into a `UserError` that names the file.

    On a full disk the system's own error names none.

    Args:
      path: what is written, if the system's error names nothing.

    Raises:
      UserError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write {error.filename or path}: {reason}") from error


def replace_text(path: Path, text: str) -> None:
    """Replaces a file's text atomically: readers see all of the old or the new text.

    Args:
      path: of the file.
      text: its new content.

    Raises:
      UserError: if the file cannot be written.
    """
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """Replaces a file's content atomically: readers see all of the old or the new one.

    Args:
      path: of the file.
      content: its new content.

    Raises:
      UserError: if the file cannot be written.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    with os_errors_as_user_errors(path):
        temporary.write_bytes(content)
        os.replace(temporary, path)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields a folder to write into; it becomes `path` at once, when all is written.

    Raises:
      UserError: if `path` exists and is not an empty folder, or cannot be written.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{path}: exists already, expected a new or empty folder")
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}")
    with (
        os_errors_as_user_errors(path),
        tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as parent,
    ):
        folder = Path(parent, path.name)
        folder.mkdir()  # readable by others as usual, unlike the temporary one
        yield folder
        os.replace(folder, path)
