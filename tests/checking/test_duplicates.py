"""Images that are there twice."""

import io

import numpy as np
import pytest
from PIL import Image

from frcnn_jax.checking.duplicates import Pair, find_pairs, hash_image
from tests.checking.data import picture


def hash_of(image):
    return hash_image(np.asarray(image.convert("RGB")))


def as_jpeg(image, quality):
    content = io.BytesIO()
    image.save(content, format="JPEG", quality=quality)
    return Image.open(content)


HASHES = [hash_of(picture(seed, (240, 320))) for seed in range(200)]


def test_different_pictures_are_no_pairs():
    assert find_pairs(HASHES) == []
    assert find_pairs(HASHES[:100], HASHES[100:]) == []


def test_equal_pixels_are_an_exact_pair_with_the_first_image_that_has_them():
    hashes = [HASHES[0], HASHES[1], HASHES[0], HASHES[0]]
    assert find_pairs(hashes) == [Pair(2, 0, True), Pair(3, 0, True)]
    assert find_pairs(hashes[1:], [HASHES[5], HASHES[0]]) == [
        Pair(1, 1, True),
        Pair(2, 1, True),
    ]


@pytest.mark.parametrize(
    "copy",
    [
        lambda image: image.resize((160, 120)),
        lambda image: as_jpeg(image, 30),
        lambda image: image.point(lambda value: 0.8 * value),
        lambda image: image.crop((1, 1, 319, 239)),
    ],
    ids=["smaller", "jpeg", "darker", "cropped"],
)
def test_a_changed_copy_is_a_near_pair(copy):
    copies = [hash_of(copy(picture(seed, (240, 320)))) for seed in (7, 150)]
    assert find_pairs(copies, HASHES) == [Pair(0, 7, False), Pair(1, 150, False)]
    assert find_pairs([*HASHES, *copies]) == [
        Pair(200, 7, False),
        Pair(201, 150, False),
    ]


def test_the_same_pixels_in_another_shape_are_no_exact_pair():
    pixels = np.asarray(picture(0, (60, 80)))
    other = hash_image(pixels.reshape(80, 60, 3))
    assert not any(pair.is_exact for pair in find_pairs([hash_image(pixels), other]))


def test_pictures_without_structure_are_not_near_one_another():
    plain = [hash_of(Image.new("RGB", (80, 60), color)) for color in ("black", "gray")]
    assert find_pairs(plain) == []
    assert find_pairs([*plain, plain[1]]) == [Pair(2, 1, True)]


def test_no_images_have_no_pairs():
    assert find_pairs([]) == find_pairs(HASHES, []) == find_pairs([], HASHES) == []


def test_pairs_do_not_depend_on_the_block_size(monkeypatch):
    hashes = [*HASHES[:20], *HASHES[:5], hash_of(as_jpeg(picture(3, (240, 320)), 30))]
    expected = find_pairs(hashes)
    assert len(expected) == 6
    monkeypatch.setattr("frcnn_jax.checking.duplicates._BLOCK", 4)
    assert find_pairs(hashes) == expected
