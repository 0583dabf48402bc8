"""Images and objects that a config selects, of any source."""

import dataclasses
import pickle

import numpy as np
import pytest

from frcnn_jax.config import DataConfig
from frcnn_jax.data.records import Annotation, Source, fingerprint
from frcnn_jax.data.sources import open_source
from frcnn_jax.data.sources.selection import select
from frcnn_jax.data.sources.shapes import CLASS_NAMES
from frcnn_jax.errors import UserError


class Pets:
    """Image i is filled with i."""

    class_names = ("cat", "cow", "dog")

    def __init__(self):
        """Describes four images."""
        self.annotations = [
            annotate("a", [(0, 0, 9, 9), (0, 0, 4, 20), (1, 1, 7, 6)], [2, 0, 1]),
            annotate("b", [], []),
            annotate("c", [(0, 0, 9, 9), (0, 0, 8, 8)], [0, 0], [True, False]),
            annotate("d", [(0, 0, 9, 9)], [1], [True]),
        ]

    def read_image(self, index):
        return np.full((10, 20, 3), index, np.uint8)


def annotate(image_id, boxes, labels, difficult=None):
    return Annotation(
        image_id=image_id,
        image_size=(10, 20),
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels, np.int32),
        difficult=np.array(difficult or [False] * len(boxes), bool),
    )


def choose(**options):
    return select(Pets(), DataConfig(**options))


def labels(source):
    return [each.labels.tolist() for each in source.annotations]


def difficult(source):
    return [each.difficult.tolist() for each in source.annotations]


def ids(source):
    return "".join(each.image_id for each in source.annotations)


def test_a_config_that_selects_nothing_leaves_the_source_alone():
    pets = Pets()
    assert select(pets, DataConfig()) is pets


def test_a_selection_is_a_source_that_can_be_pickled():
    source = choose(limit=2)
    assert isinstance(source, Source)
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy.read_image(1), source.read_image(1))


def test_given_classes_decide_the_labels():
    source = choose(class_names=("dog", "cat", "bee", "cow"))
    assert source.class_names == ("dog", "cat", "bee", "cow")
    assert labels(source) == [[0, 1, 3], [], [1, 1], [3]]
    assert source.annotations[0].labels.dtype == np.int32


def test_a_class_without_objects_need_not_be_given():
    pets = Pets()
    pets.annotations = pets.annotations[1:3]
    assert labels(select(pets, DataConfig(class_names=("cat",)))) == [[], [0, 0]]


def test_an_object_of_another_class_is_refused_with_its_image():
    message = r"image a .* class 'cow', expected one of data\.class_names, dog, cat; or"
    with pytest.raises(UserError, match=message):
        choose(class_names=("dog", "cat"))


def test_objects_of_other_classes_may_be_left_out():
    source = choose(class_names=("dog", "cow"), drop_other_classes=True)
    assert labels(source) == [[0, 1], [], [], [1]]
    np.testing.assert_array_equal(
        source.annotations[0].boxes, [[0, 0, 9, 9], [1, 1, 7, 6]]
    )


def test_classes_to_keep_must_exist():
    message = (
        r"data\.class_names has dgo; the classes of the data set are cat, cow, dog"
    )
    with pytest.raises(UserError, match=message):
        choose(class_names=("dgo", "cat"), drop_other_classes=True)


def test_renamed_classes_keep_their_order_and_may_become_one():
    source = choose(rename_classes=(("cat", "pet"), ("dog", "pet")))
    assert source.class_names == ("pet", "cow")
    assert labels(source) == [[0, 0, 1], [], [0, 0], [1]]


def test_names_may_be_exchanged():
    source = choose(rename_classes=(("cat", "dog"), ("dog", "cat")))
    assert source.class_names == ("dog", "cow", "cat")
    assert labels(source) == labels(Pets())


def test_given_classes_are_those_after_renaming():
    options = {
        "rename_classes": (("cat", "pet"),),
        "class_names": ("cow", "dog", "pet"),
    }
    assert labels(choose(**options)) == [[1, 2, 0], [], [2, 2], [0]]
    with pytest.raises(UserError, match=r"image a has an object of class 'pet'"):
        choose(rename_classes=(("cat", "pet"),), class_names=Pets.class_names)


def test_a_renamed_class_must_exist():
    message = r"data\.rename_classes has cta; the classes of the data set are cat, cow"
    with pytest.raises(UserError, match=message):
        choose(rename_classes=(("cta", "cat"),))


def test_small_objects_are_difficult():
    source = choose(min_object_size=5)
    assert difficult(source) == [[False, True, False], [], [True, False], [True]]
    assert labels(source) == labels(Pets())
    assert difficult(choose(min_object_size=4)) == difficult(Pets())


def test_difficult_objects_may_be_used_as_others():
    source = choose(difficult_objects="use", min_object_size=5)
    assert difficult(source) == [[False, True, False], [], [False] * 2, [False]]


def test_difficult_objects_may_be_left_out():
    source = choose(difficult_objects="drop")
    assert labels(source) == [[2, 0, 1], [], [0], []]
    small = choose(difficult_objects="drop", min_object_size=5)
    assert labels(small) == [[2, 1], [], [0], []]


def test_images_without_objects_may_be_left_out():
    assert ids(choose(skip_empty_images=True)) == "ac"
    assert ids(choose(skip_empty_images=True, difficult_objects="use")) == "acd"
    assert ids(choose(skip_empty_images=True, min_object_size=9)) == "a"
    only_dogs = {"class_names": ("dog",), "drop_other_classes": True}
    assert ids(choose(skip_empty_images=True, **only_dogs)) == "a"


def test_the_first_images_are_those_that_other_filters_left():
    assert ids(choose(limit=2)) == "ab"
    assert ids(choose(limit=2, skip_empty_images=True)) == "ac"
    assert ids(choose(limit=9)) == "abcd"


def test_images_are_read_by_their_place_in_the_source():
    source = choose(skip_empty_images=True)
    assert [source.read_image(index)[0, 0, 0] for index in (0, 1)] == [0, 2]


def test_every_selection_changes_the_fingerprint():
    selections = [
        {},
        {"class_names": ("dog", "cow", "cat")},
        {"rename_classes": (("cat", "pet"),)},
        {"class_names": ("dog",), "drop_other_classes": True},
        {"min_object_size": 5},
        {"difficult_objects": "use"},
        {"difficult_objects": "drop"},
        {"skip_empty_images": True},
        {"limit": 3},
    ]
    prints = {fingerprint(choose(**options)) for options in selections}
    assert len(prints) == len(selections)


def test_shapes_can_be_selected_too():
    config = DataConfig(
        source="shapes", train_split="train", num_train_images=20, shapes_size=(32, 32)
    )
    whole = open_source(config, "train")
    turned = open_source(
        dataclasses.replace(config, class_names=CLASS_NAMES[::-1]), "train"
    )
    for ours, theirs in zip(turned.annotations, whole.annotations, strict=True):
        np.testing.assert_array_equal(ours.labels, 5 - theirs.labels)
        np.testing.assert_array_equal(ours.boxes, theirs.boxes)
    np.testing.assert_array_equal(turned.read_image(0), whole.read_image(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop_other_classes": True}, r"data\.class_names is None, expected names"),
        ({"class_names": ("a", "a")}, r"data\.class_names is .*, expected different"),
        (
            {"rename_classes": (("a", "b"), ("a", "c"))},
            r"data\.rename_classes is .*, expected one new name for each old one",
        ),
        ({"min_object_size": -1.0}, r"data\.min_object_size is -1\.0, expected"),
        ({"limit": 0}, r"data\.limit is 0, expected"),
    ],
)
def test_a_selection_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        DataConfig(**options)
