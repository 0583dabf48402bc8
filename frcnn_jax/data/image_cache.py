"""Keeps resized images on disk, for later epochs and runs.

A file is named after what its pixels depend on: the encoded image, the size, and the
version of Pillow. It is renamed into place and ends with a checksum, so that what
a kill, another process or a broken disk leaves behind is either valid or made again.
"""

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import logging
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import PIL

from frcnn_jax.config import DataConfig
from frcnn_jax.data import transforms
from frcnn_jax.data.images import EncodedImage
from frcnn_jax.errors import first_line
from frcnn_jax.files import expand_home, os_errors_as_user_errors

_VERSION = 1  # of what the files hold
_NUM_CHECKSUM_BYTES = 4
# Holds the bytes of all files, as text; locked while one is written.
_TOTAL = "total"

_logger = logging.getLogger(__name__)


def open_cache(config: DataConfig) -> "ImageCache | None":
    """Opens the cache that a config asks for, if any.

    Raises:
      UserError: if its folder cannot be written.
    """
    if not config.image_cache:
        return None
    folder = expand_home(config.image_cache)
    with os_errors_as_user_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _TOTAL).touch()
    return ImageCache(folder, int(config.image_cache_gigabytes * 10**9))


@dataclasses.dataclass(frozen=True)
class ImageCache:
    """A folder of resized images, which any number of processes may use at once."""

    folder: Path
    max_bytes: int  # A full cache keeps what it has.

    def resize(self, encoded: EncodedImage, size: transforms.Size) -> np.ndarray:
        """Decodes and resizes an image, unless the cache has it.

        Args:
          encoded: the image.
          size: (height, width) of the result.

        Returns:
          [*size, 3] uint8.

        Raises:
          UserError: if the image is broken.
        """
        path = self.folder / _name(encoded.content, size)
        pixels = _read(path, size)
        if pixels is None:
            image = encoded.decode()
            window = (0, 0, image.height, image.width)
            pixels = transforms.resize_part(image, window, size)
            self._write(path, pixels)
        return pixels

    def _write(self, path: Path, pixels: np.ndarray) -> None:
        num_bytes = pixels.nbytes + _NUM_CHECKSUM_BYTES
        try:
            with _locked(self.folder / _TOTAL) as file:
                old_bytes = path.stat().st_size if path.exists() else 0
                total = self._read_total(file) - old_bytes + num_bytes
                if total > self.max_bytes:
                    _warn_once(
                        f"{self.folder} is full; images that it does not have are "
                        "decoded each time (data.image_cache_gigabytes)"
                    )
                    return
                # First, so that a kill cannot make it too small.
                _replace_total(file, total)
                temporary = self.folder / "unfinished"
                with temporary.open("wb") as output:
                    output.write(pixels.data)
                    output.write(_checksum(pixels))
                os.replace(temporary, path)
        except OSError as error:  # Training continues without it.
            _warn_once(f"cannot write to {self.folder}: {first_line(error)}")

    def _read_total(self, file: IO[str]) -> int:
        text = file.read()
        if text.isdecimal():
            return int(text)
        return sum(path.stat().st_size for path in self.folder.iterdir())


@functools.cache
def _warn_once(message: str) -> None:
    _logger.warning(message)


def _name(content: bytes, size: transforms.Size) -> str:
    digest = hashlib.sha256(f"{_VERSION} {PIL.__version__} {size}\n".encode())
    digest.update(content)
    return digest.hexdigest()


def _read(path: Path, size: transforms.Size) -> np.ndarray | None:
    """Reads what `_write` wrote; None if it is missing or damaged."""
    try:
        stored = np.fromfile(path, np.uint8)
    except OSError:
        return None
    pixels = stored[:-_NUM_CHECKSUM_BYTES]
    is_whole = pixels.size == size[0] * size[1] * 3
    if not is_whole or stored[pixels.size :].tobytes() != _checksum(pixels):
        return None
    return pixels.reshape(*size, 3)


def _checksum(pixels: np.ndarray) -> bytes:
    return zlib.crc32(pixels.data).to_bytes(_NUM_CHECKSUM_BYTES, "little")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[IO[str]]:
    """Opens a file that exists, and keeps other processes and threads out of it."""
    with path.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _replace_total(file: IO[str], total: int) -> None:
    file.seek(0)
    file.write(f"{total:020}")
    file.flush()
