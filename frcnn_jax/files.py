"""Writes files: a kill leaves them whole, and an error names them."""

import contextlib
import os
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
