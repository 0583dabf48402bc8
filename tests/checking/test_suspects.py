"""Labels that a detector disputes."""

import numpy as np

from frcnn_jax.checking.suspects import find_suspects
from frcnn_jax.data.records import Annotation, ImageDetections

NAMES = ("cat", "dog", "cow")
LEFT, RIGHT, LOW = (0, 0, 40, 40), (0, 50, 40, 90), (50, 0, 90, 30)


def annotate(*objects, difficult=False):
    boxes, labels = [box for box, _ in objects], [NAMES.index(n) for _, n in objects]
    return Annotation(
        image_id="one",
        image_size=(100, 100),
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels, np.int32),
        difficult=np.full(len(objects), difficult),
    )


def detect(*found):
    return ImageDetections(
        np.array([box for box, _, _ in found], np.float32).reshape(-1, 4),
        np.array([score for _, _, score in found], np.float32),
        np.array([NAMES.index(name) for _, name, _ in found], np.int32),
    )


def suspects(annotation, detections):
    found = find_suspects([annotation], [detections], NAMES)
    return [(each.kind, tuple(each.box), NAMES[each.label]) for each in found]


def test_labels_that_the_detector_confirms_are_not_suspect():
    annotation = annotate((LEFT, "cat"), (RIGHT, "dog"))
    assert suspects(annotation, detect((LEFT, "cat", 0.9), (RIGHT, "dog", 0.2))) == []


def test_a_confident_detection_where_nothing_is_annotated_is_suspect():
    annotation = annotate((LEFT, "cat"))
    found = detect((LEFT, "cat", 0.9), (RIGHT, "dog", 0.8), (LOW, "dog", 0.4))
    assert suspects(annotation, found) == [("no annotation", RIGHT, "dog")]


def test_a_place_found_as_two_classes_is_suspect_once_as_the_surer_one():
    found = detect((RIGHT, "dog", 0.7), (RIGHT, "cat", 0.8))
    assert suspects(annotate(), found) == [("no annotation", RIGHT, "cat")]


def test_a_badly_placed_detection_of_an_object_is_not_suspect():
    shifted = (0, 15, 40, 55)  # IoU 0.45
    annotation = annotate((LEFT, "cat"))
    assert suspects(annotation, detect((shifted, "cat", 0.9))) == []


def test_detections_in_a_crowd_and_crowds_that_are_not_found_are_not_suspect():
    crowd = annotate(((0, 0, 100, 100), "cat"), difficult=True)
    assert suspects(crowd, detect((LEFT, "cat", 0.9))) == []
    assert suspects(crowd, detect()) == []


def test_an_object_that_nothing_finds_is_suspect_whatever_its_class():
    annotation = annotate((LEFT, "cat"), (RIGHT, "cat"), (LOW, "dog"))
    found = detect((LEFT, "cat", 0.9), (LOW, "cow", 0.1))
    assert suspects(annotation, found) == [("never found", RIGHT, "cat")]


def test_objects_of_a_class_that_is_hardly_found_are_not_suspect():
    annotation = annotate((LEFT, "cat"), (RIGHT, "cat"), (LOW, "cat"))
    assert suspects(annotation, detect((LEFT, "cat", 0.9))) == []


def test_an_object_found_as_another_class_is_suspect():
    annotation = annotate((LEFT, "cat"))
    found = detect((LEFT, "dog", 0.8), (LEFT, "cat", 0.3))
    assert suspects(annotation, found) == [("other class", LEFT, "cat")]
    found = detect((LEFT, "dog", 0.6), (LEFT, "cat", 0.7))
    assert suspects(annotation, found) == []


def test_a_detection_of_an_overlapping_object_says_nothing_of_this_one():
    inner = (0, 0, 40, 30)
    annotation = annotate((LEFT, "cat"), (inner, "dog"))
    assert suspects(annotation, detect((inner, "dog", 0.9))) == []


def test_the_most_suspicious_come_first():
    first = annotate((LEFT, "cat"), (RIGHT, "dog"), (LOW, "dog"))
    second = annotate((LEFT, "cat"), ((50, 50, 60, 60), "cat"))
    third = annotate((LEFT, "dog"), (RIGHT, "dog"))
    found = [
        detect((LEFT, "cat", 0.9), ((60, 60, 90, 90), "cow", 0.7)),
        detect((LEFT, "cat", 0.9), (RIGHT, "cow", 0.9)),
        detect((LEFT, "dog", 0.9), (RIGHT, "dog", 0.9)),
    ]
    listed = find_suspects([first, second, third], found, NAMES)
    assert [(each.kind, each.image, NAMES[each.label]) for each in listed] == [
        ("no annotation", 1, "cow"),
        ("no annotation", 0, "cow"),
        ("never found", 1, "cat"),  # two of three cats are found, two of four dogs
        ("never found", 0, "dog"),  # the larger one
        ("never found", 0, "dog"),
    ]
    assert listed[0].rank > listed[1].rank
    assert tuple(listed[3].box) == RIGHT
    assert "(the detector finds 67% of this class)" in listed[2].text


def test_without_images_nothing_is_suspect():
    assert find_suspects([], [], NAMES) == []
