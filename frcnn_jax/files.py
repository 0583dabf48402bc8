"""Writes files: a kill leaves them whole, and an error names them."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Container, Iterator
from pathlib import Path

from frcnn_jax.errors import UserError, first_line


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
    with new_file(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yields a path to write to; the file replaces `path` when all is written.

    Raises:
      UserError: if it cannot be written.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {first_line(error)}") from error
    finally:  # also when interrupted
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def expand_home(path: str | Path) -> Path:
    """Returns a path with the home folder in place of a `~` at its start.

    Shells do so for separate words only, not in `--work-dir=~/runs` or in a config.

    Args:
      path: a `~` of a user who does not exist stays as it is.
    """
    return Path(os.path.expanduser(path))


def check_new_file(path: Path) -> None:
    """Checks, before long work, that a file can be written to a path.

    Raises:
      UserError: if it is a folder, or there is no folder for it that can be written to.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder, expected a file")
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"cannot write {path}: {os.strerror(errno.EACCES)}")


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields a folder to write into; it becomes `path` at once, when all is written.

    Raises:
      UserError: if `path` exists and is not an empty folder, or cannot be written.
    """
    path = Path(os.path.realpath(path))  # a folder cannot replace a link, or "."
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


def free_name(name: str, taken: Container[str]) -> str:
    """Returns a name, with -2, -3, ... after it if it is taken.

    Args:
      name: the wanted one.
      taken: names that cannot be used.
    """
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free
