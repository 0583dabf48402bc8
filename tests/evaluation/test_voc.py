"""Average precision of cases that can be checked by hand."""

import numpy as np
import pytest

from frcnn_jax.evaluation import voc
from frcnn_jax.evaluation.matching import box_iou
from tests.helpers.cases import FAR, NAN, SQUARE, detected, truth


def only_curve(detections, ground_truths, **options):
    (ranking,) = voc.rank(detections, ground_truths, 1, **options)
    curve = voc.curve(ranking)
    return curve.precision.tolist(), curve.recall.tolist()


def test_a_second_detection_of_an_object_is_wrong():
    found = detected((SQUARE, 0.9, 0), (SQUARE, 0.8, 0))
    assert only_curve([found], [truth((SQUARE, 0))]) == ([1.0, 0.5], [1.0, 1.0])


def test_a_detection_does_not_take_the_object_that_it_overlaps_second_most():
    # Both overlap both objects by more than 0.5 and the first object most.
    shifted = (0.0, 0.0, 10.0, 12.0)
    found = detected((SQUARE, 0.9, 0), (SQUARE, 0.8, 0))
    there = truth((SQUARE, 0), (shifted, 0))
    assert only_curve([found], [there]) == ([1.0, 0.5], [0.5, 0.5])


def test_detections_of_a_difficult_object_are_ignored():
    found = detected((SQUARE, 0.9, 0), (SQUARE, 0.8, 0), (FAR, 0.7, 0))
    there = truth((SQUARE, 0, True), (FAR, 0))
    precision, recall = only_curve([found], [there])
    np.testing.assert_array_equal(precision, [NAN, NAN, 1.0])
    assert recall == [0.0, 0.0, 1.0]


def test_a_class_of_difficult_objects_only_has_no_average_precision():
    result = voc.average_precisions(
        [detected((SQUARE, 0.9, 0))], [truth((SQUARE, 0, True))], 1
    )
    assert result.rankings[0].num_objects.sum() == 0
    assert np.isnan([result.voc07_ap[0], result.area_ap[0], result.voc07_map]).all()


def test_objects_without_detections_have_average_precision_zero():
    result = voc.average_precisions([detected()], [truth((SQUARE, 0))], 1)
    assert result.rankings[0].scores.shape == (0,)
    assert (result.voc07_map, result.area_map) == (0.0, 0.0)


def test_a_class_without_objects_is_not_in_the_mean():
    found = detected((SQUARE, 0.9, 0), (FAR, 0.9, 1))
    result = voc.average_precisions([found], [truth((SQUARE, 0))], 3)
    np.testing.assert_allclose(result.voc07_ap, [1.0, NAN, NAN])
    np.testing.assert_allclose(result.area_ap, [1.0, NAN, NAN])
    assert result.voc07_map == pytest.approx(1.0)
    assert result.area_map == 1.0


def test_an_overlap_of_exactly_the_threshold_finds_the_object():
    half = (0.0, 0.0, 10.0, 5.0)
    found, there = [detected((half, 0.9, 0))], [truth((SQUARE, 0))]
    assert only_curve(found, there, iou_threshold=0.5) == ([1.0], [1.0])
    assert only_curve(found, there, iou_threshold=0.500001) == ([0.0], [0.0])


def test_only_objects_of_the_same_class_and_image_are_found():
    found = [detected((SQUARE, 0.9, 1)), detected((FAR, 0.9, 0))]
    there = [truth((SQUARE, 0)), truth((SQUARE, 0))]
    assert voc.average_precisions(found, there, 2).area_ap[0] == 0.0


def test_detections_are_ranked_over_all_images():
    found = [detected((FAR, 0.2, 0)), detected((SQUARE, 0.9, 0), (FAR, 0.5, 0))]
    there = [truth((FAR, 0)), truth((SQUARE, 0))]
    precision, recall = only_curve(found, there)
    np.testing.assert_allclose(precision, [1.0, 1 / 2, 2 / 3])
    assert recall == [0.5, 0.5, 1.0]


def test_equal_scores_keep_the_order_of_the_images():
    found = [detected((FAR, 0.5, 0)), detected((SQUARE, 0.5, 0))]
    there = [truth(), truth((SQUARE, 0))]
    assert only_curve(found, there) == ([0.0, 0.5], [0.0, 1.0])
    assert only_curve(found[::-1], there[::-1]) == ([1.0, 0.5], [1.0, 1.0])


def test_images_without_anything_change_nothing():
    found, there = detected((SQUARE, 0.9, 0)), truth((SQUARE, 0))
    with_empty = [detected(), found, detected()], [truth(), there, truth()]
    assert only_curve(*with_empty) == only_curve([found], [there])
    assert only_curve([detected()], [truth()]) == ([], [])


def test_many_images_agree_with_one_detection_after_another():
    random = np.random.default_rng(0)
    found, there = zip(*(random_image(random) for _ in range(60)), strict=True)
    for label, ranking in enumerate(voc.rank(found, there, 3)):
        curve = voc.curve(ranking)
        precision, recall = slow_curve(found, there, label)
        np.testing.assert_allclose(curve.precision, precision)
        np.testing.assert_allclose(curve.recall, recall)


def random_image(random):
    """An image with up to 4 objects and detections around some of them, and ties."""
    top_left = random.integers(0, 20, (random.integers(0, 5), 2))
    boxes = np.hstack([top_left, top_left + random.integers(5, 20, top_left.shape)])
    objects = [
        (box, label, difficult)
        for box, label, difficult in zip(
            boxes,
            random.integers(0, 3, len(boxes)),
            (random.random(len(boxes)) < 0.2).tolist(),
            strict=True,
        )
    ]
    found = [
        (box + random.integers(-2, 3, 4), random.integers(0, 9) / 10, label)
        for box, label, _ in objects + objects
    ]
    return detected(*found, (FAR, 0.5, 0)), truth(*objects)


def slow_curve(detections, ground_truths, label):
    """Goes through the detections of a class one by one, as the definition reads."""
    ranked = sorted(
        (
            (score, image, box)
            for image, found in enumerate(detections)
            for box, score, found_label in zip(*found, strict=True)
            if found_label == label
        ),
        key=lambda item: -item[0],
    )
    num_objects = sum(
        np.sum((there.labels == label) & ~there.difficult) for there in ground_truths
    )
    taken, correct, wrong, precision, recall = set(), 0, 0, [], []
    for _, image, box in ranked:
        there = ground_truths[image]
        iou = box_iou(box[None], there.boxes)[0] * (there.labels == label)
        best = int(np.argmax(iou)) if len(iou) else None
        if best is None or iou[best] < 0.5 or (image, best) in taken:
            wrong += 1
        elif not there.difficult[best]:
            correct += 1
            taken.add((image, best))
        precision.append(correct / (correct + wrong) if correct + wrong else NAN)
        recall.append(correct / num_objects)
    return precision, recall


def test_average_precision_takes_the_best_precision_from_each_recall_on():
    boxes = [(0.0, 20.0 * n, 10.0, 20.0 * n + 10.0) for n in range(4)]
    there = truth(*((box, 0) for box in boxes))
    # Precision 0, 1/2, 2/3, 1/2 at recall 0, 1/4, 1/2, 1/2.
    first, second, *_ = boxes
    found = detected((FAR, 0.9, 0), (first, 0.8, 0), (second, 0.7, 0), (first, 0.6, 0))
    result = voc.average_precisions([found], [there], 1)
    assert result.area_map == pytest.approx(0.5 * 2 / 3)
    assert result.voc07_map == pytest.approx(6 / 11 * 2 / 3)


@pytest.mark.parametrize(
    ("detections", "ground_truths", "message"),
    [
        ([], [], "0 images"),
        ([detected()], [truth(), truth()], "1 images .* of 2"),
        ([detected()], [truth((SQUARE, 2))], "ground truth of image 0: label 2"),
        ([detected((SQUARE, 0.5, -1))], [truth()], "detections of image 0: label -1"),
    ],
)
def test_what_cannot_be_compared_is_refused(detections, ground_truths, message):
    with pytest.raises(ValueError, match=message):
        voc.average_precisions(detections, ground_truths, 2)


def test_box_iou_of_empty_boxes_is_zero():
    assert box_iou(np.zeros((1, 4)), np.zeros((2, 4))).tolist() == [[0.0, 0.0]]
    assert box_iou(np.zeros((0, 4)), np.zeros((2, 4))).shape == (0, 2)
