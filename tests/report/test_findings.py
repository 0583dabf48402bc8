"""Findings follow from the figures, and each names its number."""

import copy

import numpy as np
import pytest

from frcnn_jax.evaluation import report, sections
from frcnn_jax.evaluation.tide import ERRORS
from frcnn_jax.report.findings import find
from frcnn_jax.report.runs import ReportedRun
from tests.helpers import tiny
from tests.helpers.reported import shapes_split


@pytest.fixture(scope="module")
def evaluation():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sections, "NUM_RESAMPLES", 20)
        return report.to_json(shapes_split())


def texts(evaluation, curves=None, config=tiny.CONFIG):
    run = ReportedRun(
        name="run",
        path=None,
        config=config,
        file=None,
        evaluation=evaluation,
        split=None,
        source=None,
        curves=curves or {},
        missing=[],
    )
    return [finding.text for finding in find(run)]


def has(evaluation, words, **options):
    return any(words in text for text in texts(evaluation, **options))


def test_costliest_error_is_named_with_what_fixing_it_gains(evaluation):
    changed = copy.deepcopy(evaluation)
    for row in (changed["tide"], *changed["tide"]["per_class"].values()):
        for name in ERRORS:
            row[name]["cost"] = 0.01
        row["location"]["cost"], row["ap50"] = 0.15, 0.5
    changed["anchors"]["per_class"]["star"]["median_iou"] = 0.49
    changed["tide"]["per_class"]["star"]["ap50"] = 0.1
    assert has(
        changed,
        "star: localization errors cost the most; fixing them alone would gain 15.0 "
        "points of AP50; the median best anchor IoU is 0.49",
    )


def test_scales_that_fit_more_objects_are_suggested(evaluation):
    changed = copy.deepcopy(evaluation)
    part = changed["anchors"]
    part["by_scales"] = {"1 2 4": 0.9, "2 4 8": 0.7, "1 2 4 8": 0.91}
    for row in part["per_class"].values():
        row["by_scales"], row["recall"] = part["by_scales"], 0.9
    part["per_class"]["star"] |= {"recall": 0.6, "median_iou": 0.52}
    assert has(
        changed,
        "star: anchors of the scales 1 2 overlap 60.0 % of the objects by IoU 0.5 "
        "(median 0.52), those of the scales 1 2 4 would 90.0 %: try "
        "--model.anchor-scales 1 2 4.",
    )
    part["per_class"]["star"]["recall"] = 0.87
    assert not has(changed, "--model.anchor-scales")
    assert not has(changed, "need larger images")
    part["per_class"]["star"]["by_scales"] = dict.fromkeys(part["by_scales"], 0.536)
    assert has(changed, "star: no choice of anchor scales covers more than 53.6 % of")


def test_class_that_is_found_well_despite_its_anchors_needs_no_others(evaluation):
    changed = copy.deepcopy(evaluation)
    part = changed["anchors"]
    part["by_scales"] = {"1 2 4": 0.7}
    for name, row in part["per_class"].items():
        row["by_scales"], row["recall"] = part["by_scales"], 0.1
        changed["tide"]["per_class"][name]["ap50"] = 0.95
    assert not has(changed, "anchors of")
    changed["tide"]["per_class"]["star"]["ap50"] = 0.85
    assert has(changed, "star: anchors of the scales 1 2 overlap 10.0 %")
    assert has(changed, "star: no choice of anchor scales covers more than 70.0 %")


def test_class_that_is_hardly_found_is_reported_with_its_proposals(evaluation):
    changed = copy.deepcopy(evaluation)
    row = changed["per_class"]["star"]
    row |= {"num_objects": 69, "num_detections": 39, "area_ap": 0.001}
    changed["proposals"]["per_class"]["star"] = 0.101
    changed["tide"]["per_class"]["star"]["ap50"] = 0.0
    assert has(
        changed, "star is hardly found, with an area AP of 0.1 %: 69 objects, 39"
    )
    assert not has(changed, "star: ")
    assert not has(changed, "star is the weakest class")
    matrix = np.zeros((7, 7), int)
    matrix[3, 5] = 15
    changed["confusion"] = matrix.tolist()
    assert not has(changed, "is most often taken for")


def test_confused_classes_are_counted(evaluation):
    changed = copy.deepcopy(evaluation)
    matrix = np.zeros((7, 7), int)
    matrix[3, 3], matrix[3, 5] = 5, 15
    changed["confusion"] = matrix.tolist()
    assert has(
        changed, "cross is most often taken for star: 15 of 20 objects (75.0 %)."
    )


def test_low_recall_of_proposals_is_reported_before_the_second_stage_is_blamed(
    evaluation,
):
    changed = copy.deepcopy(evaluation)
    changed["proposals"]["recall"][-1][0] = 0.8
    assert has(changed, "the first stage limits the second")
    changed["proposals"]["recall"][-1][0] = 0.99
    assert has(
        changed, "overlap 99.0 % of the objects by IoU 0.5: the remaining errors"
    )


def test_small_objects_that_are_missed_more_are_reported(evaluation):
    changed = copy.deepcopy(evaluation)
    side = changed["objects"]["side"]
    side["num_objects"], side["num_found"] = [20, 80, 0, 0, 0, 0], [4, 76, 0, 0, 0, 0]
    assert has(
        changed, "20.0 % of the objects with a side of 0 to 16 pixels are found, "
    )
    side["num_found"] = [19, 76, 0, 0, 0, 0]
    assert not has(changed, "of the objects with a side")


def test_scores_that_are_not_probabilities_are_reported(evaluation):
    changed = copy.deepcopy(evaluation)
    part = changed["calibration"]
    part |= {"counts": [10, 30], "mean_scores": [0.2, 0.8], "precisions": [0.0, 0.4]}
    part["error"] = 0.35
    assert has(
        changed, "they are 0.65 on average, but 30.0 % of the detections are correct"
    )


def test_training_that_is_not_at_its_end_is_reported():
    steps = np.arange(100)
    falling = {"loss": (steps, np.linspace(2.0, 1.0, 100))}
    assert has({}, "1.05, is 8.8 % below that of the tenth before", curves=falling)
    flat = {"loss": (steps, np.ones(100))}
    assert texts({}, curves=flat) == []
    turned = {"validation_loss": (np.arange(4), np.array([1.0, 0.5, 0.6, 0.8]))}
    assert has({}, "lowest at step 1 (0.5; now 0.8)", curves=turned)
    skipped = {"bad_steps": (np.arange(2), np.array([0.0, 3.0]))}
    assert has({}, "3 updates were skipped", curves=skipped)


def test_every_sentence_on_figures_has_a_number(evaluation):
    for text in texts(evaluation):
        assert any(character.isdigit() for character in text), text
        assert text.endswith(".")
