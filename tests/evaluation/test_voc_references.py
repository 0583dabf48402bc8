"""Average precision against the figures of two public evaluators."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from frcnn_jax.data.records import ImageDetections
from frcnn_jax.evaluation import voc

CASES = ("prec_rec_1", "prec_rec_2", "two_images", "difficult_1", "difficult_2")
IOU_THRESHOLDS = (0.1, 0.3, 0.5, 0.75)


@pytest.fixture(scope="module")
def chainercv(data_root):
    return json.loads((data_root / "eval_refs/chainercv_unit/cases.json").read_text())


def exclusive(boxes):
    """Turns boxes whose max edge is the last pixel inside into ours."""
    return np.array(boxes, np.float64).reshape(-1, 4) + np.array([0, 0, 1, 1])


def numbers(values, length):
    """The file's list, in which "nan" is a word, or NaN where it has null."""
    return np.full(length, np.nan) if values is None else np.array(values, float)


def chainercv_images(case):
    """Returns the detections and the ground truth of a case, image by image."""
    found = [
        ImageDetections(exclusive(boxes), np.array(scores, float), np.array(labels))
        for boxes, scores, labels in zip(
            case["pred_bboxes"], case["pred_scores"], case["pred_labels"], strict=True
        )
    ]
    difficult = case.get("gt_difficults", [[False] * len(b) for b in case["gt_labels"]])
    there = [
        SimpleNamespace(
            boxes=exclusive(boxes), labels=np.array(labels), difficult=np.array(flags)
        )
        for boxes, labels, flags in zip(
            case["gt_bboxes"], case["gt_labels"], difficult, strict=True
        )
    ]
    return found, there


def test_no_case_of_chainercv_is_left_out(chainercv):
    assert tuple(case["name"] for case in chainercv["prec_rec_cases"]) == CASES


@pytest.mark.parametrize("index", range(len(CASES)), ids=CASES)
def test_curves_are_those_of_chainercv(chainercv, index):
    case = chainercv["prec_rec_cases"][index]
    rankings = voc.rank(
        *chainercv_images(case), len(case["prec"]), iou_threshold=case["iou_thresh"]
    )
    curves = map(voc.curve, rankings)
    for curve, precision, recall in zip(curves, case["prec"], case["rec"], strict=True):
        length = len(curve.precision)
        np.testing.assert_allclose(curve.precision, numbers(precision, length))
        np.testing.assert_allclose(curve.recall, numbers(recall, length))
        assert (curve.num_objects == 0) == (recall is None)


def test_average_precisions_of_two_images_are_those_of_chainercv(chainercv):
    # The class without objects among them. Their curves are those of `ap_case`.
    case = chainercv["prec_rec_cases"][CASES.index("two_images")]
    result = voc.average_precisions(
        *chainercv_images(case), len(case["prec"]), iou_threshold=case["iou_thresh"]
    )
    expected = chainercv["ap_case"]
    np.testing.assert_allclose(result.voc07_ap, numbers(expected["ap_07"], 3))
    np.testing.assert_allclose(result.area_ap, numbers(expected["ap_area"], 3))


def padilla_rows(path):
    """Returns [N, 5 or 6] of a file: (label 0, score if any, x, y, width, height)."""
    lines = path.read_text().splitlines()
    return np.array([line.replace("object", "0").split() for line in lines], float)


def padilla_boxes(rows):
    x, y, width, height = rows[:, -4:].T
    # Their corners are (x, y, x + width, y + height), the last being pixels inside.
    return exclusive(np.stack([y, x, y + height, x + width], axis=1))


@pytest.mark.parametrize("iou_threshold", IOU_THRESHOLDS)
def test_average_precision_is_that_of_review_object_detection_metrics(
    data_root, iou_threshold
):
    root = data_root / "eval_refs/padilla_rv_case1"
    expected = json.loads((root / "expected.json").read_text())
    for figures in (expected["eleven_point"], expected["every_point"]):
        assert tuple(map(float, figures)) == IOU_THRESHOLDS
    found, there = [], []
    for path in sorted((root / "gts").iterdir()):
        rows = padilla_rows(path)
        nothing = np.zeros(len(rows), bool)
        there.append(
            SimpleNamespace(
                boxes=padilla_boxes(rows),
                labels=rows[:, 0].astype(np.int32),
                difficult=nothing,
            )
        )
        rows = padilla_rows(root / "dets" / path.name)
        labels = rows[:, 0].astype(np.int32)
        found.append(ImageDetections(padilla_boxes(rows), rows[:, 1], labels))
    result = voc.average_precisions(found, there, 1, iou_threshold=iou_threshold)
    eleven_point = expected["eleven_point"][str(iou_threshold)]
    every_point = expected["every_point"][str(iou_threshold)]
    assert result.voc07_map == pytest.approx(eleven_point, abs=1e-9)
    assert result.area_map == pytest.approx(every_point, abs=1e-9)
