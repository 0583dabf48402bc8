"""VOC from TensorFlow Datasets: the records of the folder it was prepared from."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from frcnn_jax.config.loading import load_config, override_config
from frcnn_jax.data.records import VOC_CLASS_NAMES, fingerprint
from frcnn_jax.data.sources import open_source
from frcnn_jax.data.sources.raw import check_source
from frcnn_jax.data.sources.tfds import TFDSSource
from frcnn_jax.training.train import train
from tests.helpers import tiny
from tests.helpers.tfds_data import prepare, prepare_voc2007, voc_example, voc_features
from tests.helpers.voc_folder import VOCFolder, open_voc, voc_object, voc_size

pytest.importorskip("tensorflow_datasets")

CONFIG = Path(__file__).parents[2] / "configs" / "voc07_tfds.py"
STEMS = {"train": ["1", "2", "3"], "val": ["4", "5"], "test": ["6", "7", "8", "9"]}


def random_objects(rng, height, width):
    """Boxes of whole pixels, of tenths as VOC 2012 has some, and empty ones."""
    for name in rng.choice(VOC_CLASS_NAMES, 12):
        y, x = (np.sort(rng.integers(1, side + 1, 2)) for side in (height, width))
        if rng.random() < 0.2:
            y[0], x[0] = y[1], x[1]
        shift = np.float32(0.7) if rng.random() < 0.3 else 0
        corners = (x[0] - shift, y[0] - shift, x[1] - shift, y[1] - shift)
        difficult = f"<difficult>{rng.integers(2)}</difficult>"
        yield voc_object(name, *map(float, corners), difficult)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = VOCFolder(tmp_path_factory.mktemp("voc") / "VOC2007")
    rng = np.random.default_rng(0)
    for split, stems in STEMS.items():
        folder.split(split, stems)
        for stem in stems:
            size = height, width = tuple(map(int, rng.integers(40, 501, 2)))
            objects = random_objects(rng, height, width)
            folder.add(stem, [voc_size(*size), *objects], size=size)
    return folder.root


@pytest.fixture(scope="module")
def data_dir(folder, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("tfds")
    prepare_voc2007(data_dir, folder)
    return data_dir


def in_order(source):
    """TFDS shuffles the images of a split."""
    return sorted(source.annotations, key=lambda annotation: annotation.image_id)


def assert_same_records(ours, theirs):
    assert ours.class_names == theirs.class_names
    for record, expected in zip(in_order(ours), in_order(theirs), strict=True):
        for field in dataclasses.fields(record):
            value, wanted = (getattr(each, field.name) for each in (record, expected))
            np.testing.assert_array_equal(value, wanted, err_msg=record.image_id)


@pytest.mark.parametrize(
    ("split", "folder_split"),
    [("train", "train"), ("train+validation", "train+val"), ("test", "test")],
)
def test_records_are_those_of_the_folder(folder, data_dir, split, folder_split):
    ours = check_source(TFDSSource("voc/2007", split, data_dir=data_dir))
    theirs = open_voc(folder, folder_split, class_names=VOC_CLASS_NAMES)
    assert sum(len(each.boxes) for each in ours.annotations) > 20
    assert_same_records(ours, theirs)
    ids = [annotation.image_id for annotation in theirs.annotations]
    for index, annotation in enumerate(ours.annotations):
        pixels = theirs.read_image(ids.index(annotation.image_id))
        np.testing.assert_array_equal(ours.read_image(index), pixels)


def test_records_of_real_annotations_are_those_of_the_folder(data_root, tmp_path):
    folder = data_root / "VOC2007"
    stems = (folder / "ImageSets/Main/trainval.txt").read_text().split()
    examples = {"train": [voc_example(folder, stem) for stem in stems]}
    features = voc_features()
    prepare(tmp_path, "voc", features, examples, config_name="2007", version="5.0.0")
    ours = check_source(TFDSSource("voc/2007", "train", data_dir=tmp_path))
    assert_same_records(ours, open_voc(folder, "trainval", class_names=VOC_CLASS_NAMES))


def test_the_shipped_config_opens_the_builder(folder, data_dir):
    config = override_config(load_config(CONFIG), ["--data.root", str(data_dir)], "")
    train, test = (
        open_source(config.data, split)
        for split in (config.data.train_split, config.data.test_split)
    )
    assert (len(train.annotations), len(test.annotations)) == (5, 4)
    assert fingerprint(train) != fingerprint(test)
    assert_same_records(
        train, open_voc(folder, "train+val", class_names=VOC_CLASS_NAMES)
    )


@pytest.mark.slow
def test_the_shipped_config_trains_and_evaluates(data_dir, tmp_path):
    config = load_config(CONFIG)
    sizes = {name: getattr(tiny.DATA, name) for name in ("shorter_side", "longer_side")}
    config = dataclasses.replace(
        config,
        work_dir=str(tmp_path),
        num_steps=2,
        model=tiny.MODEL,
        data=dataclasses.replace(
            config.data, root=str(data_dir), canvases=((64, 64),), **sizes
        ),
    )
    evaluation = train(config)
    assert set(evaluation["per_class"]) == set(VOC_CLASS_NAMES)
