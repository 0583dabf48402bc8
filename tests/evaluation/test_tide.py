"""TIDE's errors against an independent version, one detection after another."""

import numpy as np
import pytest

from frcnn_jax.evaluation import coco
from frcnn_jax.evaluation.tide import ERRORS, tide_errors
from tests.helpers.cases import FAR, SQUARE, detected, truth
from tests.helpers.random_images import random_split

HALF = (0.0, 0.0, 10.0, 4.0)  # IoU 0.4 with SQUARE


def overlap(box, other):
    height = min(box[2], other[2]) - max(box[0], other[0])
    width = min(box[3], other[3]) - max(box[1], other[1])
    shared = max(height, 0.0) * max(width, 0.0)
    area, other_area = ((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
    return shared / (area + other_area - shared), shared / area


class SlowTIDE:
    """The paper's definitions, for one image after the other."""

    def __init__(self, detections, ground_truths, num_classes):
        """Goes through all images."""
        self.num_classes = num_classes
        self.rows = []  # of (score, label, error or "correct" or "ignored")
        self.objects = {}  # by image and number: (label, whether it is found)
        self.targets = {}  # of the row, the object that a fix would find
        for image, (found, there) in enumerate(
            zip(detections, ground_truths, strict=True)
        ):
            self.add_image(image, found, there)
        concerned = set(self.targets.values())
        self.missed = [
            key
            for key, (_, is_found) in self.objects.items()
            if not is_found and key not in concerned
        ]

    def add_image(self, image, found, there):
        boxes = there.boxes.astype(float)
        real = [n for n in range(len(boxes)) if not there.difficult[n]]
        difficult = [n for n in range(len(boxes)) if there.difficult[n]]
        taken = set()
        order = sorted(range(len(found.scores)), key=lambda d: -found.scores[d])
        for d in order:
            box, label = found.boxes[d].astype(float), found.labels[d]
            iou = {n: overlap(box, boxes[n])[0] for n in real}
            same = {n: iou[n] for n in real if there.labels[n] == label}
            other = {n: iou[n] for n in real if there.labels[n] != label}
            free = {n: x for n, x in same.items() if n not in taken and x >= 0.5}
            state = self.classify(same, other, iou, free)
            if free:
                taken.add(max(free, key=free.get))
            elif any(
                overlap(box, boxes[n])[1] >= 0.5 and there.labels[n] == label
                for n in difficult
            ):
                state = "ignored"
            if state in ("location", "class"):
                near = same if state == "location" else other
                self.targets[len(self.rows)] = (image, max(near, key=near.get))
            self.rows.append((found.scores[d], label, state))
        for n in real:
            self.objects[image, n] = (there.labels[n], n in taken)

    @staticmethod
    def classify(same, other, iou, free):
        best = max(same.values(), default=0.0)
        if free:
            return "correct"
        if 0.1 <= best < 0.5:
            return "location"
        if max(other.values(), default=0.0) >= 0.5:
            return "class"
        if best >= 0.5:
            return "duplicate"
        return "background" if max(iou.values(), default=0.0) <= 0.1 else "both"

    def average_precisions(self, fixed=None):
        best_row = {}
        for i, key in self.targets.items():
            is_better = (
                key not in best_row or self.rows[i][0] > self.rows[best_row[key]][0]
            )
            if not self.objects[key][1] and is_better:
                best_row[key] = i
        points = {label: [] for label in range(self.num_classes)}
        for i, (score, label, state) in enumerate(self.rows):
            if state == "correct":
                points[label].append((score, True))
            elif state == fixed and i in best_row.values():
                points[self.objects[self.targets[i]][0]].append((score, True))
            elif state not in (fixed, "ignored"):
                points[label].append((score, False))
        counted = [
            label
            for key, (label, _) in self.objects.items()
            if fixed != "missed" or key not in self.missed
        ]
        return [self.area(points[n], counted.count(n)) for n in range(self.num_classes)]

    def area(self, points, num_objects):
        if num_objects == 0:
            return 1.0
        points = sorted(points, key=lambda point: -point[0])
        curve, correct = [], 0
        for number, (_, is_correct) in enumerate(points, start=1):
            correct += is_correct
            curve.append((correct / num_objects, correct / number))
        return np.mean(
            [
                max((p for r, p in curve if r >= start), default=0.0)
                for start in np.linspace(0.0, 1.0, 101)
            ]
        )


@pytest.mark.parametrize("seed", range(4))
def test_errors_and_delta_ap_are_those_of_the_definitions(seed):
    found, there = random_split(seed, num_images=25, num_classes=4)
    slow = SlowTIDE(found, there, 4)
    errors = tide_errors(found, there, 4)
    states = [row[2] for row in slow.rows]
    expected = [states.count(name) for name in ERRORS[:-1]] + [len(slow.missed)]
    assert errors.counts.sum(axis=1).tolist() == expected
    before = slow.average_precisions()
    np.testing.assert_allclose(errors.average_precision, before)
    for name, delta_ap, mean in zip(
        ERRORS, errors.delta_ap, errors.mean_delta_ap, strict=True
    ):
        gained = np.maximum(np.subtract(slow.average_precisions(name), before), 0.0)
        np.testing.assert_allclose(delta_ap, gained, atol=1e-12)
        assert mean == pytest.approx(gained.mean(), abs=1e-12)


def test_average_precision_is_that_of_coco_at_half_overlap():
    found, there = random_split(5, num_classes=6)
    expected = coco.average_precisions(found, there, 6)["AP50"]
    values = tide_errors(found, there, 6).average_precision
    assert np.nanmean(values) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ((HALF, 0.9, 0), "location"),
        ((SQUARE, 0.9, 1), "class"),
        ((HALF, 0.9, 1), "both"),
        ((FAR, 0.9, 0), "background"),
        ((SQUARE, 0.9, 0), None),
    ],
)
def test_single_detection_is_one_error(row, error):
    errors = tide_errors([detected(row)], [truth((SQUARE, 0))], 2)
    counts = dict(zip(ERRORS, errors.counts.sum(axis=1).tolist(), strict=True))
    # An object that an error of location or class concerns is not missed as well.
    expected = {error, "missed"} if error in ("both", "background") else {error}
    assert counts == {name: int(name in expected) for name in ERRORS}
    delta_ap = dict(zip(ERRORS, errors.mean_delta_ap, strict=True))
    if error in ("location", "class"):
        assert delta_ap[error] == 1.0


def test_second_detection_of_an_object_is_a_duplicate():
    found = detected((SQUARE, 0.9, 0), (SQUARE, 0.8, 0))
    errors = tide_errors([found], [truth((SQUARE, 0))], 1)
    assert errors.counts[ERRORS.index("duplicate")].tolist() == [1]
    assert errors.detection_errors.tolist() == [-1, ERRORS.index("duplicate")]


def test_detection_of_a_difficult_object_is_no_error():
    there = truth((SQUARE, 0, True))
    errors = tide_errors([detected((SQUARE, 0.9, 0), (SQUARE, 0.8, 0))], [there], 1)
    assert errors.counts.sum() == 0
    assert np.isnan(errors.average_precision).all()


def test_class_whose_objects_are_all_missed_costs_its_whole_precision():
    errors = tide_errors([detected((FAR, 0.9, 0))], [truth((SQUARE, 0))], 1)
    assert errors.delta_ap[ERRORS.index("missed")].tolist() == [1.0]


def test_without_objects_or_detections_nothing_is_an_error():
    errors = tide_errors([detected()], [truth()], 2)
    assert errors.counts.sum() == 0
    assert errors.delta_ap.shape == (6, 2)
