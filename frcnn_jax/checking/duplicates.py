"""Finds duplicate images, with the same pixels or nearly the same ones."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

_SIDE = 12  # cells of the difference hash
# Copies of VOC and BCCD images at half the size or at JPEG quality 30 differ in at most
# 10 of the 144 bits (99 of 100 copies), different photos of VOC in 19 and more.
_MAX_DISTANCE = 12
_BLOCK = 512  # images that are compared with all others at once


class ImageHash(NamedTuple):
    """The hashes by which images are compared."""

    digest: bytes  # SHA-256 of size and pixels
    differences: np.ndarray  # [144] bool: whether a cell is brighter than the one left


class Pair(NamedTuple):
    """An image that repeats another one."""

    image: int
    other: int
    is_exact: bool


def hash_image(pixels: np.ndarray) -> ImageHash:
    """Computes the hashes of an image, [H, W, 3] uint8.

    References:
      N. Krawetz, Kind of Like That (dHash), with 12 x 12 instead of 8 x 8 cells.
    """
    digest = hashlib.sha256(f"{pixels.shape}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    gray = Image.fromarray(pixels).convert("L")
    cells = np.asarray(gray.resize((_SIDE + 1, _SIDE), Image.Resampling.BOX))
    return ImageHash(digest.digest(), (cells[:, 1:] > cells[:, :-1]).ravel())


def find_pairs(
    hashes: Sequence[ImageHash], others: Sequence[ImageHash] | None = None
) -> list[Pair]:
    """Finds the images that repeat another one.

    Args:
      hashes: of the images.
      others: of those that may be repeated; by default the earlier ones of `hashes`.

    Returns:
      At most one pair for each image: with the first image of the same pixels, or else
      with the most similar one.
    """
    pairs = []
    first: dict[bytes, int] = {}
    for index, image_hash in enumerate(hashes if others is None else others):
        first.setdefault(image_hash.digest, index)
    nearest, distances = _find_nearest(hashes, others)
    for index, image_hash in enumerate(hashes):
        same = first.get(image_hash.digest)
        if same is not None and (others is not None or same < index):
            pairs.append(Pair(index, same, True))
        elif distances[index] <= _MAX_DISTANCE:
            pairs.append(Pair(index, int(nearest[index]), False))
    return pairs


def _find_nearest(
    hashes: Sequence[ImageHash], others: Sequence[ImageHash] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the most similar other image of each, and how many bits differ."""
    signs = _signs(hashes)
    other_signs = signs if others is None else _signs(others)
    num_bits = _SIDE * _SIDE
    nearest = np.zeros(len(signs), int)
    distances = np.full(len(signs), num_bits)
    for start in range(0, len(signs) if len(other_signs) else 0, _BLOCK):
        block = slice(start, start + _BLOCK)
        # The number of bits that agree, less that of those that differ.
        agreement = signs[block] @ other_signs.T
        if others is None:
            is_earlier = np.tri(len(agreement), len(signs), start - 1, bool)
            agreement = np.where(is_earlier, agreement, -num_bits)
        nearest[block] = agreement.argmax(axis=1)
        distances[block] = (num_bits - agreement.max(axis=1)) / 2
    return nearest, distances


def _signs(hashes: Sequence[ImageHash]) -> np.ndarray:
    """Returns [N, 144] float32: 1 or -1, or 0 for images without structure.

    Such images, all black or noise on gray, would all look alike.
    """
    bits = np.array([image_hash.differences for image_hash in hashes]).reshape(
        -1, _SIDE * _SIDE
    )
    counts = bits.sum(axis=1, keepdims=True)
    is_plain = np.minimum(counts, bits.shape[1] - counts) <= _MAX_DISTANCE
    return np.where(is_plain, 0.0, 2.0 * bits - 1.0).astype(np.float32)
