"""Random changes: boxes follow the pixels, objects stay whole, nothing by default."""

import dataclasses

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from frcnn_jax.config import DataConfig
from frcnn_jax.data import transforms
from frcnn_jax.data.augmentation import Augmentation, draw_augmentation, largest_size

PLAIN = DataConfig(
    shorter_side=48, longer_side=96, canvases=((96, 96),)
).without_augmentation()
EVERYTHING = dataclasses.replace(
    PLAIN,
    flip_probability=0.5,
    vertical_flip_probability=0.5,
    rotation_probability=0.7,
    scale_range=(0.5, 1.5),
    min_crop=0.3,
    color_jitter=0.4,
)
CHANGES = {
    "flip_probability": 1.0,
    "vertical_flip_probability": 1.0,
    "rotation_probability": 1.0,
    "scale_range": (0.5, 0.9),
    "min_crop": 0.5,
    "color_jitter": 0.5,
}
# In a corner of the image, so that a crop has room.
BOXES = np.array([[2, 3, 12, 10], [5, 1, 9, 21]], np.float32)
SIZE = (40, 60)
DRAWS = np.random.default_rng(0).random(200)

fast = hypothesis.settings(derandomize=True, deadline=None, max_examples=200)


def noise(size=SIZE):
    return np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)


def draw_all(config, boxes=BOXES, size=SIZE):
    return [draw_augmentation(draw, size, boxes, config) for draw in DRAWS]


def apply(augmentation, image, boxes):
    resized = transforms.resize_part(
        Image.fromarray(image), augmentation.window, augmentation.size
    )
    return augmentation.apply(resized, boxes)


@st.composite
def examples(draw):
    """An image's size, boxes in it, and what decides its augmentation."""
    height, width = draw(st.integers(2, 90)), draw(st.integers(2, 90))
    lengths = np.array([height, width] * 2, np.float32)
    corners = st.tuples(*[st.floats(0, 1, width=32)] * 4)
    boxes = np.array(draw(st.lists(corners, max_size=4)), np.float32).reshape(-1, 4)
    boxes = np.sort(boxes.reshape(-1, 2, 2), axis=1).reshape(-1, 4) * lengths
    is_large = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=9.0) > 0.01
    return (height, width), boxes[is_large], draw(st.sampled_from(list(DRAWS)))


@fast
@hypothesis.given(examples())
def test_crop_is_a_part_of_the_image_that_holds_every_box_whole(example):
    size, boxes, draw = example
    window = draw_augmentation(draw, size, boxes, EVERYTHING).window
    y_min, x_min, y_max, x_max = window
    assert 0 <= y_min < y_max <= size[0]
    assert 0 <= x_min < x_max <= size[1]
    assert (boxes[:, :2] >= window[:2]).all()
    assert (boxes[:, 2:] <= window[2:]).all()
    fractions = (y_max - y_min) / size[0], (x_max - x_min) / size[1]
    assert min(fractions) >= EVERYTHING.min_crop
    # Of the same shape, up to a pixel of each side.
    assert abs(fractions[0] - fractions[1]) <= 1 / min(size)


@fast
@hypothesis.given(examples())
def test_boxes_stay_in_the_image_with_their_areas(example):
    size, boxes, draw = example
    image = np.zeros((*size, 3), np.uint8)
    augmentation = draw_augmentation(draw, size, boxes, EVERYTHING)
    image, changed, scale = apply(augmentation, image, boxes)
    height, width = image.shape[:2]
    assert changed.dtype == scale.dtype == np.float32
    assert changed.shape == boxes.shape
    assert (changed >= -1e-3).all()
    assert (changed <= np.array([height, width] * 2) + 1e-3).all()
    lengths, before = changed[:, 2:] - changed[:, :2], boxes[:, 2:] - boxes[:, :2]
    if augmentation.num_rotations % 2:
        before = before[:, ::-1]
    np.testing.assert_allclose(lengths, before * scale, rtol=1e-3, atol=1e-3)


@fast
@hypothesis.given(examples())
def test_every_change_fits_into_the_largest_size(example):
    size, boxes, draw = example
    for names in ([], ["scale_range"], ["rotation_probability"], list(CHANGES)):
        fields = {name: getattr(EVERYTHING, name) for name in names}
        config = dataclasses.replace(PLAIN, **fields)
        augmentation = draw_augmentation(draw, size, boxes, config)
        image, _, _ = apply(augmentation, np.zeros((*size, 3), np.uint8), boxes)
        height, width = largest_size(size, config)
        assert image.shape[0] <= height
        assert image.shape[1] <= width


@pytest.mark.parametrize("draw", DRAWS[:50])
def test_object_is_where_its_box_is(draw):
    image = np.zeros((*SIZE, 3), np.uint8)
    image[10:30, 20:35] = 255
    box = np.array([[10, 20, 30, 35]], np.float32)
    augmentation = draw_augmentation(draw, SIZE, box, EVERYTHING)
    image, changed, _ = apply(augmentation, image, box)
    rows, columns = np.nonzero(image[..., 0] > image.max() / 2)
    bounds = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
    np.testing.assert_allclose(bounds, changed[0], atol=1.0)


def test_nothing_is_changed_without_augmentation():
    image = noise((48, 72))
    for augmentation in draw_all(PLAIN, size=(48, 72)):
        changed, boxes, scale = apply(augmentation, image, BOXES)
        np.testing.assert_array_equal(changed, image)
        np.testing.assert_array_equal(boxes, BOXES)
        np.testing.assert_array_equal(scale, [1, 1])


def test_only_horizontal_flips_are_on_by_default():
    flipping = dataclasses.replace(PLAIN, flip_probability=0.5)
    sides = {"shorter_side": 48, "longer_side": 96, "canvases": ((96, 96),)}
    assert DataConfig(**sides) == flipping
    assert EVERYTHING.without_augmentation() == PLAIN


@pytest.mark.parametrize("name", CHANGES)
def test_switching_one_change_on_alters_no_other(name):
    fields = {
        "flip_probability": "flips_horizontally",
        "vertical_flip_probability": "flips_vertically",
        "rotation_probability": "num_rotations",
        "scale_range": "size",
        "min_crop": "window",
        "color_jitter": "color_factors",
    }
    others = {n: v for n, v in CHANGES.items() if n != name}
    pairs = zip(
        draw_all(dataclasses.replace(PLAIN, **others)),
        draw_all(dataclasses.replace(PLAIN, **CHANGES)),
        strict=True,
    )
    for without, augmentation in pairs:
        for field in Augmentation._fields:
            value, expected = getattr(augmentation, field), getattr(without, field)
            if field == fields[name]:
                assert not np.array_equal(value, expected) or field == "window"
            else:
                np.testing.assert_array_equal(value, expected)


def test_changes_are_as_frequent_and_as_large_as_the_config_says():
    drawn = draw_all(EVERYTHING, boxes=BOXES[:0])
    turns = [augmentation.num_rotations for augmentation in drawn]
    assert abs(np.mean(np.array(turns) > 0) - 0.7) < 0.1
    assert set(turns) == {0, 1, 2, 3}
    for field in ("flips_vertically", "flips_horizontally"):
        assert abs(np.mean([getattr(each, field) for each in drawn]) - 0.5) < 0.15
    heights = np.array([augmentation.size[0] for augmentation in drawn])
    assert heights.min() == pytest.approx(0.5 * 48, abs=1)
    assert heights.max() == pytest.approx(1.5 * 48, abs=1)
    colors = np.array([augmentation.color_factors for augmentation in drawn])
    np.testing.assert_allclose(colors.min(axis=0), 0.6, atol=0.03)
    np.testing.assert_allclose(colors.max(axis=0), 1.4, atol=0.03)
    windows = np.array([augmentation.window for augmentation in drawn])
    kept = (windows[:, 2] - windows[:, 0]) / SIZE[0]
    assert kept.min() == pytest.approx(0.3, abs=0.03)
    assert kept.max() == pytest.approx(1.0, abs=0.03)
    assert windows[:, 0].min() == 0
    assert windows[:, 2].max() == SIZE[0]


def test_object_that_fills_the_image_leaves_no_room_for_a_crop():
    boxes = np.array([[0, 0, *SIZE]], np.float32)
    assert {each.window for each in draw_all(EVERYTHING, boxes)} == {(0, 0, *SIZE)}


def test_stretched_image_keeps_its_stretched_shape():
    config = dataclasses.replace(EVERYTHING, keep_aspect_ratio=False)
    for augmentation in draw_all(config):
        height, width = augmentation.size
        assert width == pytest.approx(2 * height, abs=1.5)


def test_four_rotations_are_the_identity():
    image, boxes = noise(), BOXES
    for _ in range(4):
        image, boxes = transforms.rotate(image, boxes)
    np.testing.assert_array_equal(image, noise())
    np.testing.assert_array_equal(boxes, BOXES)


def test_rotation_is_counterclockwise():
    image = np.zeros((4, 10, 3), np.uint8)
    image[1, 7:9] = 255  # To the right: it comes to the top.
    boxes = np.array([[1, 7, 2, 9]], np.float32)
    image, boxes = transforms.rotate(image, boxes)
    assert image.shape == (10, 4, 3)
    np.testing.assert_array_equal(boxes, [[1, 1, 3, 2]])
    assert (image[1:3, 1] == 255).all()
    assert image.sum() == 2 * 3 * 255


def test_two_rotations_are_both_flips():
    rotated = transforms.rotate(*transforms.rotate(noise(), BOXES))
    flipped = transforms.flip_horizontally(*transforms.flip_vertically(noise(), BOXES))
    np.testing.assert_array_equal(rotated[0], flipped[0])
    np.testing.assert_array_equal(rotated[1], flipped[1])


def test_vertical_flip_twice_is_the_identity():
    image, boxes = transforms.flip_vertically(noise(), BOXES)
    assert not np.array_equal(image, noise())
    np.testing.assert_array_equal(boxes[0], [28, 3, 38, 10])
    image, boxes = transforms.flip_vertically(image, boxes)
    np.testing.assert_array_equal(image, noise())
    np.testing.assert_array_equal(boxes, BOXES)


def test_every_geometry_accepts_no_boxes():
    no_boxes = np.zeros((0, 4), np.float32)
    for augmentation in draw_all(EVERYTHING, no_boxes)[:20]:
        _, boxes, _ = apply(augmentation, noise(), no_boxes)
        assert boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        ((1, 1, 1), [[200, 100, 0], [40, 40, 40]]),
        ((0, 1, 1), [[0, 0, 0], [0, 0, 0]]),
        ((1.5, 1, 1), [[255, 150, 0], [60, 60, 60]]),
        ((1, 1, 0), [[118.5, 118.5, 118.5], [40, 40, 40]]),
        ((1, 0, 1), [[79.25] * 3] * 2),  # The mean of 118.5 and 40.
        ((1, 2, 1), [[255, 120.75, 0], [0.75] * 3]),
    ],
)
def test_colors_change_as_the_factors_say(factors, expected):
    image = np.array([[[200, 100, 0], [40, 40, 40]]], np.uint8)
    changed = transforms.adjust_colors(image, np.array(factors))
    assert changed.dtype == np.uint8
    np.testing.assert_allclose(changed[0], expected, atol=0.51)
