"""What `evaluation.json` and the printed table hold."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from frcnn_jax.data.records import Annotation
from frcnn_jax.evaluation import coco, evaluated_split, report, sections, voc
from tests.helpers.cases import FAR, SQUARE, detected, truth
from tests.helpers.splits import CLASS_NAMES, evaluated, random_evaluated


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    monkeypatch.setattr(sections, "NUM_RESAMPLES", 50)


def to_json(detections, ground_truths, class_names=CLASS_NAMES):
    annotations = [
        Annotation(image_id=str(index), image_size=(64, 64), **vars(each))
        for index, each in enumerate(ground_truths)
    ]
    evaluation = report.to_json(evaluated(detections, annotations, class_names))
    return json.loads(json.dumps(evaluation, allow_nan=False))


def numbers(value):
    """Lists all numbers of a nested dictionary."""
    if isinstance(value, dict | list):
        items = value.values() if isinstance(value, dict) else value
        return [number for item in items for number in numbers(item)]
    return [value]


def test_figures_are_those_of_voc_and_coco():
    split = random_evaluated()
    evaluation = report.to_json(split)
    result = voc.average_precisions(*split.compared)
    assert evaluation["voc07_map"] == pytest.approx(result.voc07_map)
    assert evaluation["area_map"] == pytest.approx(result.area_map)
    assert evaluation["coco"] == pytest.approx(coco.average_precisions(*split.compared))
    for label, name in enumerate(CLASS_NAMES):
        row = evaluation["per_class"][name]
        assert row["voc07_ap"] == pytest.approx(result.voc07_ap[label])
        assert row["area_ap"] == pytest.approx(result.area_ap[label])
        assert row["num_objects"] == result.rankings[label].num_objects.sum()


def test_parts_agree_with_one_another():
    split = random_evaluated()
    evaluation = report.to_json(split)
    num_objects = sum((~each.difficult).sum() for each in split.annotations)
    by_iou = evaluation["precision_by_iou"]
    at_half = by_iou["iou_thresholds"].index(0.5)
    assert by_iou["area_map"][at_half] == pytest.approx(evaluation["area_map"])
    assert evaluation["tide"]["ap50"] == pytest.approx(evaluation["coco"]["AP50"])
    assert np.sum(evaluation["confusion"][:-1]) == num_objects
    for kind in ("side", "aspect"):
        bins = evaluation["objects"][kind]
        assert sum(bins["num_objects"]) == num_objects
        assert len(bins["num_found"]) == len(bins["edges"]) + 1
    per_class = evaluation["per_class"]
    found = sum(
        row["best_f1"]["recall"] * row["num_objects"] for row in per_class.values()
    )
    assert sum(evaluation["objects"]["side"]["num_found"]) == pytest.approx(found)
    recall = np.array(evaluation["proposals"]["recall"])
    assert (np.diff(recall, axis=0) >= 0).all()
    assert (np.diff(recall, axis=1) <= 0).all()


def test_intervals_lie_around_their_figures():
    evaluation = report.to_json(random_evaluated())
    intervals = evaluation["intervals"]
    pairs = [(evaluation["voc07_map"], intervals["voc07_map"])]
    pairs += [(evaluation["coco"][n], ends) for n, ends in intervals["coco"].items()]
    for name, row in intervals["per_class"].items():
        pairs += [(evaluation["per_class"][name][key], row[key]) for key in row]
    for figure, (low, high) in pairs:
        assert low <= figure <= high
        assert low < high


def test_class_without_objects_has_null():
    evaluation = to_json([detected()], [truth((SQUARE, 0))], ("cat", "dog"))
    assert (evaluation["voc07_map"], evaluation["area_map"]) == (0.0, 0.0)
    cat, dog = (evaluation["per_class"][name] for name in ("cat", "dog"))
    assert (cat["voc07_ap"], cat["num_objects"], cat["num_detections"]) == (0.0, 1, 0)
    assert (dog["voc07_ap"], dog["area_ap"], dog["num_objects"]) == (None, None, 0)
    assert dog["best_f1"] == {
        "threshold": None,
        "precision": None,
        "recall": None,
        "f1": None,
    }
    assert cat["best_f1"]["threshold"] is None  # nothing is found at any
    assert evaluation["coco"]["APlarge"] is None
    assert evaluation["intervals"]["per_class"]["dog"]["voc07_ap"] == [None, None]


@pytest.mark.parametrize("found", [detected(), detected((SQUARE, 0.9, 0))])
def test_split_without_objects_has_null_and_no_error(found):
    evaluation = to_json([found, found], [truth(), truth()])
    assert evaluation["voc07_map"] is None
    assert set(evaluation["coco"].values()) == {None}
    assert evaluation["anchors"]["median_iou"] is None
    assert set(numbers(evaluation["proposals"]["recall"])) == {None}
    assert evaluation["tide"]["ap50"] is None


def test_random_split_has_the_keys_of_the_documentation():
    evaluation = report.to_json(random_evaluated())
    assert set(evaluation) == {
        *("schema", "voc07_map", "area_map", "coco", "per_class", "intervals"),
        *("precision_by_iou", "calibration", "tide", "confusion", "objects"),
        *("proposals", "anchors", "fingerprints"),
    }
    assert evaluation["schema"] == report.SCHEMA
    text = (Path(__file__).parents[2] / "docs" / "report.md").read_text()
    assert f"`schema` is {report.SCHEMA}" in text
    for name, part in evaluation.items():
        assert f"`{name}`" in text
        keys = part if isinstance(part, dict) and name != "per_class" else {}
        assert [key for key in keys if f"`{key}`" not in text] == []


def test_table_shows_every_class_and_the_mean(capsys):
    found = detected((SQUARE, 0.9, 0))
    evaluation = to_json([found], [truth((SQUARE, 0), (FAR, 1))])
    evaluation["coco"] |= {"AP": 0.25, "AP50": 0.5, "AP75": None}
    report.print_table(evaluation)
    lines = capsys.readouterr().out.splitlines()
    cells = {line.strip("│ ").split()[0]: line.replace("│", " ") for line in lines}
    assert cells["cat"].split() == ["cat", "1", "100.0", "100.0"]
    assert cells["cow"].split() == ["cow", "0", "-", "-"]
    assert cells["all"].split() == ["all", "2", "50.0", "50.0"]
    assert lines[-1] == "COCO AP 25.0, AP50 50.0, AP75 -"


def test_split_is_the_same_after_it_was_stored(tmp_path):
    split = random_evaluated()
    evaluated_split.save(split, tmp_path / "evaluation.npz")
    stored = evaluated_split.load(tmp_path / "evaluation.npz")
    assert report.to_json(stored) == report.to_json(split)
    assert stored.environment == split.environment
    for ours, theirs in zip(stored.annotations, split.annotations, strict=True):
        assert (ours.image_id, ours.image_size) == (theirs.image_id, theirs.image_size)
        for field in dataclasses.fields(ours)[2:]:
            values = [getattr(each, field.name) for each in (ours, theirs)]
            np.testing.assert_array_equal(*values)
