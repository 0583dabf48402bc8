"""Reading TFDS data sets without TensorFlow."""

import io
import pickle
import re

import numpy as np
import pytest
from PIL import Image

from frcnn_jax.checking.check import check
from frcnn_jax.config import Config, DataConfig
from frcnn_jax.data.records import Source
from frcnn_jax.data.sources import open_source
from frcnn_jax.data.sources.raw import check_source
from frcnn_jax.data.sources.tfds import TFDSSource
from frcnn_jax.errors import UserError
from tests.helpers.tfds_data import prepare, voc_features

tfds = pytest.importorskip("tensorflow_datasets")

NUM_IMAGES = 4


def encode(number):
    stream = io.BytesIO()
    Image.new("RGB", (50, 40 + number), (255, 0, 0)).save(stream, "PNG")
    stream.seek(0)
    return stream


def voc_example(number):
    """Image `number` is 40 + number pixels high and has that many objects."""
    objects = [
        {
            "label": "dog" if which else "cat",
            "bbox": tfds.features.BBox(0.25, 0.1 * which, 0.5, 1.0),
            "pose": "left",
            "is_truncated": False,
            "is_difficult": which == 1,
        }
        for which in range(number)
    ]
    image = encode(number)
    return {
        "image": image,
        "image/filename": f"{number}.png",
        "objects": objects,
        "labels": [],
        "labels_no_difficult": [],
    }


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    numbers = range(NUM_IMAGES)
    pets = {"train": [voc_example(number) for number in numbers]}
    prepare(root, "pets", voc_features(["cat", "dog"]), pets)
    features = {
        "image": tfds.features.Image(),
        "objects": tfds.features.Sequence(
            {
                "label": tfds.features.ClassLabel(names=["a"]),
                "bbox": tfds.features.BBoxFeature(),
                "is_crowd": np.bool_,
            }
        ),
    }
    prepare(
        root,
        "crowds",
        features,
        {
            "train": [
                {
                    "image": encode(number),
                    "objects": [
                        {
                            "label": "a",
                            "bbox": tfds.features.BBox(0.0, 0.0, 1.0, 1.0),
                            "is_crowd": True,
                        }
                    ],
                }
                for number in numbers
            ]
        },
    )
    prepare(
        root,
        "plain",
        {
            "image": tfds.features.Image(),
            "label": tfds.features.ClassLabel(names=["a"]),
        },
        {"train": [{"image": encode(0), "label": "a"}]},
    )
    return root


@pytest.fixture(scope="module")
def broken_dir(tmp_path_factory):
    """Image 1 is cut short, image 2 is no image."""
    root = tmp_path_factory.mktemp("broken")
    examples = [voc_example(number) for number in range(NUM_IMAGES)]
    content = examples[1]["image"].getvalue()
    examples[1]["image"] = io.BytesIO(content[: len(content) // 2])
    examples[2]["image"] = io.BytesIO(b"no image")
    prepare(root, "pets", voc_features(["cat", "dog"]), {"train": examples})
    return root


@pytest.fixture(scope="module")
def pets(data_dir):
    return check_source(TFDSSource("pets", "train", data_dir=data_dir))


def test_given_classes_decide_the_labels(data_dir):
    config = DataConfig(
        source="tfds", name="pets", root=str(data_dir), class_names=("dog", "cat")
    )
    source = open_source(config, "train")
    assert source.class_names == ("dog", "cat")
    labels = source.annotations[find(source, "3.png")].labels
    np.testing.assert_array_equal(labels, [1, 0, 0])
    assert labels.dtype == np.int32


def test_an_object_without_a_label_is_refused(tmp_path):
    example = voc_example(1)
    example["objects"][0]["label"] = -1
    prepare(tmp_path, "pets", voc_features(["cat", "dog"]), {"train": [example]})
    with pytest.raises(UserError, match=r"an object in 0 of .* pets .* has no label"):
        check_source(TFDSSource("pets", "train", data_dir=tmp_path))


def test_skip_broken_leaves_out_broken_images_and_names_them(broken_dir, caplog):
    source = check_source(
        TFDSSource("pets", "train", data_dir=broken_dir), skip_broken=True
    )
    ids = [annotation.image_id for annotation in source.annotations]
    assert sorted(ids) == ["0.png", "3.png"]
    for index, annotation in enumerate(source.annotations):
        assert source.read_image(index).shape == (*annotation.image_size, 3)
    (message,) = caplog.messages
    assert message.startswith("left out 2 broken images: ")
    assert "of pets (train)" in message


def test_a_broken_image_names_the_data_set_otherwise(broken_dir):
    with pytest.raises(UserError, match=r"cannot read image \d of TFDS data set pets"):
        check_source(TFDSSource("pets", "train", data_dir=broken_dir))


def test_the_check_of_data_lists_all_broken_images(broken_dir):
    data = DataConfig(
        source="tfds",
        name="pets",
        root=str(broken_dir),
        train_split="train[:50%]",
        test_split="train[50%:]",
    )
    checked = check(Config(data=data))
    assert [each.kind for each in checked.problems] == ["broken image"] * 2
    for problem in checked.problems:
        assert re.match(r"\d of pets \(train\[.* cannot read image \d", str(problem))


def find(source, image_id):
    (index,) = (
        index
        for index, annotation in enumerate(source.annotations)
        if annotation.image_id == image_id
    )
    return index


def test_it_is_a_source_with_the_classes_of_the_label(pets):
    assert isinstance(pets, Source)
    assert pets.class_names == ("cat", "dog")
    assert len(pets.annotations) == NUM_IMAGES


def test_boxes_become_pixels_without_a_shift(pets):
    annotation = pets.annotations[find(pets, "3.png")]
    assert annotation.image_size == (43, 50)
    expected = [[10.75, 0, 21.5, 50], [10.75, 5, 21.5, 50], [10.75, 10, 21.5, 50]]
    np.testing.assert_allclose(annotation.boxes, expected, rtol=1e-6)
    np.testing.assert_array_equal(annotation.labels, [0, 1, 1])
    np.testing.assert_array_equal(annotation.difficult, [False, True, False])
    assert (annotation.boxes.dtype, annotation.labels.dtype) == (np.float32, np.int32)


def test_an_image_without_objects_is_valid(pets):
    annotation = pets.annotations[find(pets, "0.png")]
    assert annotation.boxes.shape == (0, 4)
    assert annotation.labels.shape == annotation.difficult.shape == (0,)


def test_images_are_read_as_rgb(pets):
    for index, annotation in enumerate(pets.annotations):
        image = pets.read_image(index)
        assert (image.shape, image.dtype) == ((*annotation.image_size, 3), np.uint8)
        assert (image == [255, 0, 0]).all()


def test_a_source_can_be_pickled_for_workers(pets):
    copy = pickle.loads(pickle.dumps(pets))
    np.testing.assert_array_equal(copy.read_image(2), pets.read_image(2))


def test_a_slice_of_a_split_is_a_split(data_dir):
    source = check_source(TFDSSource("pets", "train[:3]", data_dir=data_dir))
    assert len(source.annotations) == 3


def test_crowds_count_as_difficult_and_file_names_are_optional(data_dir):
    source = check_source(TFDSSource("crowds", "train", data_dir=data_dir))
    assert all(item.difficult.tolist() == [True] for item in source.annotations)
    assert [item.image_id for item in source.annotations] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("no_such_data", "train", "no TFDS data set 'no_such_data': .*not found"),
        ("pets", "valid", "cannot read split 'valid' of .*'pets'.*'train'"),
        ("voc/2007", "train", "'voc/2007' is not prepared in .*array_record"),
        ("plain", "train", "'plain' has the features image, label; expected 'image'"),
    ],
)
def test_a_mistake_is_explained_in_one_line(data_dir, name, split, message):
    with pytest.raises(UserError, match=message) as error:
        check_source(TFDSSource(name, split, data_dir=data_dir))
    assert "\n" not in str(error.value)
