"""COCO's figures: pycocotools' own, and cases that can be checked by hand."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from frcnn_jax.config import DataConfig
from frcnn_jax.data.records import ImageDetections
from frcnn_jax.data.sources import open_source
from frcnn_jax.evaluation import coco
from tests.helpers import pycoco
from tests.helpers.cases import FAR, SQUARE, detected, truth
from tests.helpers.pycoco import NAMES
from tests.helpers.random_images import detect_randomly, random_split, with_ties

LARGE = (0.0, 100.0, 100.0, 300.0)


def of_image(rows, image_id, labels):
    """The boxes, labels and scores, if any, of one image in a COCO file."""
    rows = [row for row in rows if row["image_id"] == image_id]
    boxes = np.array([row["bbox"] for row in rows]).reshape(-1, 4)
    x, y, width, height = boxes.T
    return (
        np.stack([y, x, y + height, x + width], axis=1).astype(np.float32),
        np.array([labels[row["category_id"]] for row in rows], np.int32),
        np.array([row.get("score") for row in rows], np.float32),
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("has_ties", [False, True])
@pytest.mark.parametrize(
    "sizes",
    [
        {"num_classes": 4},
        {"num_classes": 30, "num_objects": 2, "num_wrong": 2},
        # More than 100 detections in some image and class.
        {"num_classes": 1, "num_images": 6, "num_objects": 30, "num_wrong": 100},
    ],
)
def test_figures_are_those_of_pycocotools(seed, has_ties, sizes):
    found, there = random_split(seed, **sizes)
    if has_ties:
        found = with_ties(found)
    assert_same_as_pycocotools(found, there, sizes["num_classes"])


@pytest.mark.parametrize("path", ["BCCD", "VOC2007"])
def test_figures_of_real_objects_are_those_of_pycocotools(data_root, path):
    source = open_source(DataConfig(root=str(data_root / path)), "test")
    num_classes = len(source.class_names)
    random = np.random.default_rng(0)
    found = detect_randomly(random, source.annotations, num_classes, num_wrong=20)
    assert_same_as_pycocotools(found, source.annotations, num_classes)


def assert_same_as_pycocotools(detections, ground_truths, num_classes):
    figures = coco.average_precisions(detections, ground_truths, num_classes)
    expected = pycoco.average_precisions(detections, ground_truths, num_classes)
    assert figures == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_figures_are_those_of_coco(data_root):
    root = data_root / "eval_refs/coco_fake100"
    truth_file = json.loads((root / "gt_coco.json").read_text())
    rows = json.loads((root / "dets_coco.json").read_text())
    labels = {each["id"]: i for i, each in enumerate(truth_file["categories"])}

    found, there = [], []
    # By id, as COCO does, which makes a difference where scores are equal.
    for image_id in sorted(image["id"] for image in truth_file["images"]):
        boxes, found_labels, scores = of_image(rows, image_id, labels)
        found.append(ImageDetections(boxes, scores, found_labels))
        boxes, there_labels, _ = of_image(truth_file["annotations"], image_id, labels)
        nothing = np.zeros(len(boxes), bool)
        there.append(
            SimpleNamespace(boxes=boxes, labels=there_labels, difficult=nothing)
        )
    figures = coco.average_precisions(found, there, len(labels))
    expected = json.loads((root / "expected.json").read_text())["expected"]
    assert figures == pytest.approx(expected, abs=5e-7)
    assert_same_as_pycocotools(found, there, len(labels))


def defined(detections, ground_truths, num_classes=1):
    """The figures, rounded, that are not NaN."""
    figures = coco.average_precisions(detections, ground_truths, num_classes)
    assert tuple(figures) == NAMES
    return {name: round(x, 9) for name, x in figures.items() if not np.isnan(x)}


def of_all_sizes(value, *sizes):
    """One value in every figure that holds without objects of the other sizes."""
    others = {"small", "medium", "large"} - set(sizes)
    return {name: value for name in NAMES if name[2:] not in others}


def test_perfect_detections_have_one_wherever_there_are_objects():
    found = [detected((SQUARE, 0.9, 0)), detected((LARGE, 0.8, 2))]
    there = [truth((SQUARE, 0)), truth((LARGE, 2))]
    assert defined(found, there, 4) == of_all_sizes(1.0, "small", "large")


def test_objects_without_detections_have_zero():
    there = [truth((SQUARE, 0)), truth()]
    assert defined([detected(), detected()], there) == of_all_sizes(0.0, "small")


def test_without_objects_every_figure_is_nan():
    assert defined([detected()], [truth()]) == {}
    assert defined([detected((SQUARE, 0.9, 0))], [truth()]) == {}


def test_average_is_over_the_thresholds_that_the_overlap_reaches():
    figures = defined([detected(((0, 0, 7.2, 10), 0.9, 0))], [truth((SQUARE, 0))])
    assert (figures["AP50"], figures["AP75"]) == (1.0, 0.0)
    assert figures["AP"] == figures["AR100"] == 0.5  # 0.5, 0.55, ... 0.7 of ten


def test_average_is_over_the_classes_with_objects():
    found = detected((SQUARE, 0.9, 0), (FAR, 0.9, 2))
    figures = defined([found], [truth((SQUARE, 0), (FAR, 1))], 3)
    assert figures == of_all_sizes(0.5, "small")


def test_detection_in_an_image_without_objects_is_wrong():
    found = [detected((SQUARE, 0.9, 0)), detected((SQUARE, 0.8, 0))]
    figures = defined(found, [truth(), truth((SQUARE, 0))])
    assert (figures["AP"], figures["AR100"]) == (0.5, 1.0)


def test_recall_is_limited_by_the_number_of_detections():
    found = detected((SQUARE, 0.9, 0), (FAR, 0.8, 0))
    figures = defined([found], [truth((SQUARE, 0), (FAR, 0))])
    assert (figures["AR1"], figures["AR10"]) == (0.5, 1.0)


def test_area_is_that_of_the_box_without_its_max_edge():
    box = (10.0, 10.0, 42.0, 42.0)  # 32 x 32, which is both small and medium
    figures = defined([detected((box, 0.9, 0))], [truth((box, 0))])
    assert figures == of_all_sizes(1.0, "small", "medium")


@pytest.mark.parametrize("num_found", [0, 1, 2])
def test_difficult_object_is_neither_found_nor_missed(num_found):
    found = detected(*[(SQUARE, 0.9, 0)] * num_found, (LARGE, 0.5, 0))
    there = truth((SQUARE, 0, True), (LARGE, 0))
    # With 1 detection of each image the surest one is that of the difficult object.
    expected = of_all_sizes(1.0, "large") | {"AR1": float(num_found == 0)}
    assert defined([found], [there]) == expected


def test_detection_inside_a_difficult_object_is_ignored_however_small():
    found = detected(((2, 2, 3, 3), 0.9, 0), (FAR, 0.8, 0))
    there = truth((SQUARE, 0, True), (FAR, 0))
    assert defined([found], [there])["AP"] == 1.0


def test_detection_goes_to_a_difficult_object_only_if_no_other_is_left():
    there = truth((SQUARE, 0, True), ((0, 0, 10, 9), 0))
    assert defined([detected((SQUARE, 0.9, 0))], [there])["AP50"] == 1.0


@pytest.mark.parametrize(
    ("detections", "ground_truths", "message"),
    [
        ([], [], "0 images"),
        ([detected()], [truth(), truth()], "1 images .* of 2"),
        ([detected((SQUARE, 0.9, 1))], [truth()], "detections of image 0: label 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(detections, ground_truths, message):
    with pytest.raises(ValueError, match=message):
        coco.average_precisions(detections, ground_truths, 1)


def test_nothing_is_printed(capsys):
    coco.average_precisions([detected((SQUARE, 0.9, 0))], [truth((SQUARE, 0))], 1)
    assert capsys.readouterr() == ("", "")
