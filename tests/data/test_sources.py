"""Opening a split by its config."""

import dataclasses

import pytest

from frcnn_jax.config import Config, DataConfig
from frcnn_jax.data.sources import open_source, warn_of_shared_images
from frcnn_jax.data.sources.shapes import CLASS_NAMES
from frcnn_jax.errors import UserError
from frcnn_jax.training.train import open_splits
from tests.helpers.sized import SizedSource

SHAPES = DataConfig(source="shapes", train_split="train", test_split="test")


def test_shapes_of_the_two_splits_are_as_many_as_the_config_says():
    for split, number in (("train", 2000), ("test", 128)):
        assert len(open_source(SHAPES, split).annotations) == number
    with pytest.raises(UserError, match=r"'valid' .* unknown, expected .* train, test"):
        open_source(SHAPES, "valid")


def test_shapes_have_the_classes_of_the_config():
    names = CLASS_NAMES[::-1]
    config = dataclasses.replace(SHAPES, class_names=names)
    assert open_source(config, "test").class_names == names


def test_a_folder_has_the_classes_of_the_config_without_its_broken_images(
    voc_folder, voc_object, caplog
):
    for image_id in ("a", "b"):
        voc_folder.add(image_id, [voc_object("x", 1, 1, 9, 9)])
    voc_folder.truncate("a")
    voc_folder.split("all", ["a", "b"])
    config = DataConfig(
        root=str(voc_folder.root), class_names=("y", "x"), skip_broken=True
    )
    source = open_source(config, "all")
    assert source.class_names == ("y", "x")
    assert [annotation.image_id for annotation in source.annotations] == ["b"]
    assert caplog.messages == ["left out 1 broken images: a"]


@pytest.mark.parametrize(
    ("train", "other", "shared"),
    [
        ("train", "train", "train"),
        ("a/train+b/train", "b/train", "b/train"),
        ("train+validation", "validation+test", "validation"),
        ("all", "all[80%:]", "all[80%:]"),
        ("all[:80%]+more", "test+all[70%:90%]", "all[70%:90%]"),
        ("train[:500]", "train[:500]", "train[:500]"),  # of TFDS
    ],
)
@pytest.mark.parametrize("name", ["validation_split", "test_split"])
def test_parts_of_tfds_in_training_and_evaluation_are_warned_of(
    train, other, shared, name, caplog
):
    config = DataConfig(source="tfds", train_split=train, **{name: other})
    names = ("train", name.removesuffix("_split"))
    warn_of_shared_images(config, dict.fromkeys(names, SizedSource([])))
    (message,) = caplog.messages
    assert message.startswith(f"data.train_split and data.{name} share {shared}:")


def test_a_run_on_one_split_is_warned_of_and_allowed(voc_folder, voc_object, caplog):
    voc_folder.add("a", [voc_object("x", 1, 1, 9, 9)])
    voc_folder.split("one", ["a"])
    data = DataConfig(root=str(voc_folder.root), train_split="one", test_split="one")
    splits = open_splits(Config(data=data))
    assert len(splits.train.annotations) == len(splits.test.annotations) == 1
    (message,) = caplog.messages
    assert message.startswith("data.train_split and data.test_split share a:")


def test_images_of_two_lists_are_warned_of(voc_folder, voc_object, caplog):
    for name in "abc":
        voc_folder.add(name, [voc_object("x", 1, 1, 9, 9)])
    voc_folder.split("trainval", ["a", "b"])
    voc_folder.split("val", ["b", "c"])
    data = DataConfig(root=str(voc_folder.root), validation_split="val")
    open_splits(Config(data=dataclasses.replace(data, test_split="all[:]")))
    assert [message.partition(":")[0] for message in caplog.messages] == [
        "data.train_split and data.validation_split share b",
        "data.train_split and data.test_split share a, b",
    ]


@pytest.mark.parametrize("extra", [None, "<difficult>1</difficult>"])
def test_a_training_split_without_anything_to_learn_is_refused(
    voc_folder, voc_object, extra
):
    voc_folder.add("a", [voc_object("x", 1, 1, 9, 9, extra)] if extra else [])
    voc_folder.add("b", [voc_object("x", 1, 1, 9, 9)])
    voc_folder.split("train", ["a"])
    voc_folder.split("test", ["b"])
    data = DataConfig(root=str(voc_folder.root), train_split="train")
    with pytest.raises(
        UserError, match=r"train_split is 'train', which has no objects"
    ):
        open_splits(Config(data=data))


@pytest.mark.parametrize("source", ["tfds", "coco"])
def test_splits_without_common_parts_are_fine(source, caplog):
    config = DataConfig(
        source=source, train_split="all[:80%]", validation_split="a", test_split="a"
    )
    config = dataclasses.replace(config, test_split="all[80%:]")
    sources = dict.fromkeys(("train", "validation", "test"), SizedSource([]))
    warn_of_shared_images(config, sources)
    assert not caplog.records
