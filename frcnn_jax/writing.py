"""Writing files: a kill leaves them whole, and an error names them."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from frcnn_jax.errors import UserError


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Names what is written in an error of the system, which does not on a full disk.

    Raises:
      UserError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write {error.filename or path}: {reason}") from error


def replace_text(path: Path, text: str) -> None:
    """Writes a file that has, whenever one looks, all of the old text or the new one.

    Raises:
      UserError: if it cannot be written.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    with writing(path):
        temporary.write_text(text)
        os.replace(temporary, path)
