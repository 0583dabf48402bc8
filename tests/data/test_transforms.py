"""Images and boxes move together."""

import numpy as np
import pytest

from frcnn_jax.data import transforms
from frcnn_jax.errors import UserError

NO_BOXES = np.zeros((0, 4), np.float32)


@pytest.mark.parametrize(
    ("image_size", "expected"),
    [
        ((375, 500), (600, 800)),
        ((500, 375), (800, 600)),
        ((300, 600), (500, 1000)),  # 600 would make the longer side 1200.
        ((600, 1000), (600, 1000)),
        ((333, 500), (600, 901)),
        ((1, 5000), (1, 1000)),  # Never less than a pixel.
        ((1200, 2000), (600, 1000)),
    ],
)
def test_fit_scales_the_shorter_side_unless_the_longer_would_exceed(
    image_size, expected
):
    assert (
        transforms.resized_size(image_size, shorter_side=600, longer_side=1000)
        == expected
    )


def test_resize_scales_boxes_by_the_real_ratio_of_each_axis():
    image = np.zeros((333, 500, 3), np.uint8)
    boxes = np.array([[0, 0, 333, 500], [30, 50, 60, 100]], np.float32)
    image, boxes, scale = transforms.resize(
        image, boxes, shorter_side=600, longer_side=1000
    )
    assert image.shape == (600, 901, 3)
    assert image.dtype == np.uint8
    np.testing.assert_allclose(scale, [600 / 333, 901 / 500], rtol=1e-6)
    np.testing.assert_allclose(boxes[0], [0, 0, 600, 901], rtol=1e-6)
    np.testing.assert_allclose(boxes[1] / np.tile(scale, 2), [30, 50, 60, 100])
    assert boxes.dtype == scale.dtype == np.float32


@pytest.mark.parametrize(
    ("image_size", "expected"), [((333, 500), (80, 96)), ((500, 333), (96, 80))]
)
def test_stretched_image_gets_both_lengths_exactly(image_size, expected):
    image = np.zeros((*image_size, 3), np.uint8)
    boxes = np.array([[0, 0, *image_size]], np.float32)
    image, boxes, scale = transforms.resize(
        image, boxes, shorter_side=80, longer_side=96, keep_aspect_ratio=False
    )
    assert image.shape == (*expected, 3)
    np.testing.assert_allclose(boxes, [[0, 0, *expected]], rtol=1e-6)
    np.testing.assert_allclose(scale * image_size, expected, rtol=1e-6)


def test_resize_to_the_same_size_changes_nothing():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    resized, boxes, scale = transforms.resize(
        image, NO_BOXES, shorter_side=20, longer_side=30
    )
    np.testing.assert_array_equal(resized, image)
    np.testing.assert_array_equal(scale, [1, 1])
    assert boxes.shape == (0, 4)


def test_resized_pixels_stay_inside_the_resized_box():
    image = np.zeros((40, 60, 3), np.uint8)
    image[10:20, 30:45] = 255
    box = np.array([[10, 30, 20, 45]], np.float32)
    image, boxes, _ = transforms.resize(image, box, shorter_side=80, longer_side=999)
    rows, columns = np.nonzero(image[..., 0] > 127)
    bounds = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
    np.testing.assert_array_equal(bounds, boxes[0])


def test_flip_moves_pixels_and_boxes_alike():
    image = np.zeros((4, 10, 3), np.uint8)
    image[1:3, 2:5] = 255
    boxes = np.array([[1, 2, 3, 5]], np.float32)
    flipped, flipped_boxes = transforms.flip_horizontally(image, boxes)
    np.testing.assert_array_equal(flipped_boxes, [[1, 5, 3, 8]])
    assert flipped_boxes.dtype == np.float32
    assert (flipped[1:3, 5:8] == 255).all()
    assert flipped.sum() == image.sum()


def test_flipping_twice_is_the_identity():
    image = np.random.default_rng(0).integers(0, 256, (4, 7, 3), np.uint8)
    boxes = np.array([[0, 1, 2, 3], [1, 0, 4, 7]], np.float32)
    again = transforms.flip_horizontally(*transforms.flip_horizontally(image, boxes))
    np.testing.assert_array_equal(again[0], image)
    np.testing.assert_array_equal(again[1], boxes)


def test_flip_accepts_no_boxes():
    _, boxes = transforms.flip_horizontally(np.zeros((4, 7, 3), np.uint8), NO_BOXES)
    assert boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("image_size", "expected"),
    [
        ((600, 800), 2),
        ((600, 801), 0),
        ((608, 1008), 0),
        ((609, 600), 1),
        ((1, 1), 2),
        ((608, 608), 2),
        ((609, 1000), None),
        ((1009, 1), None),
    ],
)
def test_an_image_takes_the_smallest_canvas_it_fits_into(image_size, expected):
    canvases = ((608, 1008), (1008, 608), (608, 800))
    assert transforms.choose_canvas(image_size, canvases) == expected


def test_of_equal_canvases_an_image_takes_the_first():
    assert transforms.choose_canvas((5, 5), ((99, 99), (8, 6), (6, 8))) == 1
    assert transforms.choose_canvas((5, 5), ((99, 99), (6, 8), (8, 6))) == 1


def test_pad_to_is_zero_outside_the_image():
    padded = transforms.pad_to(np.full((2, 3, 3), 7, np.uint8), (4, 5))
    assert padded.shape == (4, 5, 3)
    assert (padded[:2, :3] == 7).all()
    assert padded.sum() == 7 * 2 * 3 * 3


@pytest.mark.parametrize("canvas", [(3, 99), (99, 4)])
def test_a_canvas_smaller_than_the_image_is_refused(canvas):
    height, width = canvas
    with pytest.raises(UserError, match=rf"4x5 .* canvas of {height}x{width}"):
        transforms.pad_to(np.zeros((4, 5, 3), np.uint8), canvas)
