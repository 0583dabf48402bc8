"""The checks that every data set passes through."""

import logging

import numpy as np
import pytest

from frcnn_jax.data.records import (
    Annotation,
    abbreviate,
    check_boxes,
    check_max_objects,
    drop_bad_boxes,
)
from frcnn_jax.errors import UserError


def annotate(boxes, image_id="one", difficult=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return Annotation(
        image_id=image_id,
        image_size=(50, 100),
        boxes=boxes,
        labels=np.arange(len(boxes), dtype=np.int32),
        difficult=np.array(difficult or [False] * len(boxes)),
    )


def test_good_boxes_pass_unchanged_and_silently(caplog):
    annotation = annotate([[0, 0, 50, 100], [10, 20, 11, 21]])
    (kept,) = drop_bad_boxes([annotation])
    np.testing.assert_array_equal(kept.boxes, annotation.boxes)
    assert kept.boxes.dtype == np.float32
    assert not caplog.records


@pytest.mark.parametrize(
    "bad",
    [
        [10, 10, 10, 20],
        [10, 10, 20, 10],
        [20, 10, 10, 20],
        [-1, 10, 0, 20],
        [10, 100, 20, 101],
        [-30, 10, -10, 20],
        [10, 110, 20, 130],
        [10, np.nan, 20, 20],
        [10, 10, np.inf, 20],
        [10, np.inf, 20, np.inf],
    ],
)
def test_a_box_without_area_or_outside_is_dropped_with_its_label(bad, caplog):
    (kept,) = drop_bad_boxes([annotate([[1, 2, 3, 4], bad, [5, 6, 7, 8]])])
    np.testing.assert_array_equal(kept.boxes, [[1, 2, 3, 4], [5, 6, 7, 8]])
    np.testing.assert_array_equal(kept.labels, [0, 2])
    assert kept.difficult.shape == (2,)
    assert "1, in one" in caplog.text


def test_a_box_one_pixel_outside_is_clipped_silently(caplog):
    (kept,) = drop_bad_boxes([annotate([[-1, -1, 51, 101]])])
    np.testing.assert_array_equal(kept.boxes, [[0, 0, 50, 100]])
    assert not caplog.records


@pytest.mark.parametrize(
    ("box", "clipped"),
    [
        ([-2, 10, 20, 20], [0, 10, 20, 20]),
        ([10, -1.5, 20, 20], [10, 0, 20, 20]),
        ([10, 10, 52, 20], [10, 10, 50, 20]),
        ([10, 10, 20, 102], [10, 10, 20, 100]),
        ([-1e6, -1e6, 1e6, 1e6], [0, 0, 50, 100]),
        ([49.5, 10, 70, 20], [49.5, 10, 50, 20]),
    ],
)
def test_a_box_that_reaches_far_outside_is_clipped_with_a_warning(box, clipped, caplog):
    (kept,) = drop_bad_boxes([annotate([[1, 2, 3, 4], box])])
    np.testing.assert_array_equal(kept.boxes, [[1, 2, 3, 4], clipped])
    np.testing.assert_array_equal(kept.labels, [0, 1])
    expected = "clipped boxes that reach outside their image: 1, in one"
    assert caplog.messages == [expected]


@pytest.mark.parametrize(
    ("box", "is_dropped", "reason"),
    [
        ([10, 10, 10, 20], True, "is 0 x 10 pixels (height x width), expected more"),
        ([20, 10, 10.5, 20], True, "is -9.5 x 10 pixels (height x width), expected"),
        ([60, 10, 70, 20], True, "lies outside of the image of 50 x 100 pixels"),
        ([10, np.nan, 20, 20], True, "is not finite"),
        ([-2.5, 10, 51, 20], False, "reaches 2.5 pixels outside of the image"),
        ([10, 10, 20, 123], False, "reaches 23 pixels outside of the image"),
    ],
)
def test_every_bad_box_has_its_place_and_reason(box, is_dropped, reason):
    annotations = [annotate([]), annotate([[1, 2, 3, 4], box])]
    kept, (bad,) = check_boxes(annotations)
    assert (bad.image, bad.label, bad.is_dropped) == (1, 1, is_dropped)
    np.testing.assert_array_equal(bad.box, np.float32(box))
    assert bad.reason.startswith(reason)
    assert [len(each.boxes) for each in kept] == [0, 1 if is_dropped else 2]


def test_clipped_and_dropped_boxes_have_a_warning_each(caplog):
    outside, far_outside, empty = [0, 0, 60, 9], [60, 0, 70, 9], [5, 5, 5, 9]
    drop_bad_boxes(
        [annotate([outside, empty], "a"), annotate([far_outside], "b"), annotate([])]
    )
    assert caplog.messages == [
        "clipped boxes that reach outside their image: 1, in a",
        "dropped boxes without area or outside their image: 2, in a, b",
    ]


def test_empty_side_decides_which_boxes_have_an_area():
    annotation = annotate([[0, 0, 1, 5], [0, 0, 2, 2]])
    (kept,) = drop_bad_boxes([annotation], empty_side=1.0)
    np.testing.assert_array_equal(kept.labels, [1])


def test_images_stay_even_when_they_lose_their_last_box():
    kept = drop_bad_boxes([annotate([]), annotate([[5, 5, 5, 5]]), annotate([])])
    assert [item.boxes.shape for item in kept] == [(0, 4)] * 3


def test_one_warning_counts_all_boxes_and_names_at_most_ten_images(caplog):
    bad = [annotate([[5, 5, 5, 5]] * 2, f"image{number:02d}") for number in range(13)]
    drop_bad_boxes(bad)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    message = record.getMessage()
    assert ": 26, in image00, image01," in message
    assert message.endswith("image09 and 3 more")


def test_abbreviate_lists_ten_names_in_full():
    names = [str(number) for number in range(10)]
    assert abbreviate(names) == ", ".join(names)


def test_too_many_objects_name_the_image_the_count_and_the_limit():
    annotations = [annotate([[0, 0, 1, 1]] * 3), annotate([[0, 0, 1, 1]] * 4, "second")]
    check_max_objects(annotations, 4)
    with pytest.raises(UserError, match=r"image second has 4 objects.* is 3"):
        check_max_objects(annotations, 3)


def test_difficult_objects_do_not_count_towards_the_limit():
    annotation = annotate([[0, 0, 1, 1]] * 2, difficult=[True, False])
    check_max_objects([annotation], 1)
