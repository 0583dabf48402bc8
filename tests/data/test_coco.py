"""Reading data sets in COCO format, and refusing broken ones."""

import json

import numpy as np
import pytest

from frcnn_jax.config import DataConfig
from frcnn_jax.data.records import Source
from frcnn_jax.data.sources import coco, open_source
from frcnn_jax.errors import UserError
from tests.helpers.pictures import save_noise


def box(image_id, category_id, bbox, **fields):
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, **fields}


def pets():
    """Two images with objects and one without, whose ids are in no order."""
    return {
        "categories": [
            {"id": 9, "name": "dog"},
            {"id": 2, "name": "cat"},
            {"id": 5, "name": "cow"},
        ],
        "images": [
            {"id": 7, "file_name": "b.jpg", "height": 60, "width": 80},
            {"id": 3, "file_name": "a.jpg", "height": 60, "width": 80},
            {"id": 4, "file_name": "c.jpg"},
        ],
        "annotations": [
            box(3, 9, [10, 20.5, 30, 25]),
            box(7, 2, [0, 0, 80, 60], iscrowd=1),
            box(3, 2, [1, 2, 3, 4], iscrowd=0, segmentation=[]),
        ],
    }


def write(root, content, path="annotations/instances_train.json", images="train"):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    for name in "abc":
        save_noise(root / images / f"{name}.jpg")


def open_coco(root, split="train", **options):
    return open_source(DataConfig(source="coco", root=str(root), **options), split)


def refuse(root, message, **options):
    with pytest.raises(UserError, match=message) as error:
        open_coco(root, **options)
    assert "\n" not in str(error.value)


def test_boxes_are_corners_in_pixels(tmp_path):
    write(tmp_path, pets())
    source = open_coco(tmp_path)
    assert isinstance(source, Source)
    b, a, c = source.annotations
    np.testing.assert_array_equal(a.boxes, [[20.5, 10, 45.5, 40], [2, 1, 6, 4]])
    np.testing.assert_array_equal(b.boxes, [[0, 0, 60, 80]])
    assert a.boxes.dtype == np.float32
    assert c.boxes.shape == (0, 4)
    assert [each.image_size for each in (a, b, c)] == [(60, 80)] * 3
    assert source.read_image(0).shape == (60, 80, 3)


def test_labels_are_in_the_order_of_the_category_ids(tmp_path):
    write(tmp_path, pets())
    source = open_coco(tmp_path)
    assert source.class_names == ("cat", "cow", "dog")
    np.testing.assert_array_equal(source.annotations[1].labels, [2, 0])


def test_a_crowd_is_difficult(tmp_path):
    write(tmp_path, pets())
    difficult = [each.difficult.tolist() for each in open_coco(tmp_path).annotations]
    assert difficult == [[True], [False, False], []]


def test_images_keep_their_order_and_are_called_by_their_path(tmp_path):
    write(tmp_path, pets())
    ids = [each.image_id for each in open_coco(tmp_path).annotations]
    assert ids == ["train/b.jpg", "train/a.jpg", "train/c.jpg"]


@pytest.mark.parametrize("images", ["train", "images/train", "images", "."])
@pytest.mark.parametrize(
    "path",
    [
        "annotations/instances_train.json",
        "annotations/train.json",
        "train.json",
        "train/_annotations.coco.json",
    ],
)
def test_files_are_found_where_people_put_them(tmp_path, path, images):
    write(tmp_path, pets(), path, images)
    assert coco.find_splits(tmp_path) == ["train"]
    assert len(open_coco(tmp_path).annotations) == 3


def test_a_file_name_may_have_a_folder(tmp_path):
    content = pets()
    for image in content["images"]:
        image["file_name"] = f"photos/{image['file_name']}"
    write(tmp_path, content, images="photos")
    assert open_coco(tmp_path).annotations[0].image_id == "photos/b.jpg"


def test_other_json_is_no_split(tmp_path):
    write(tmp_path, pets())
    (tmp_path / "package.json").write_text('{"name": "page"}')
    captions = {"images": [], "annotations": [{"caption": "a cat"}]}
    (tmp_path / "annotations/captions_train.json").write_text(json.dumps(captions))
    assert coco.find_splits(tmp_path) == ["train"]


def test_splits_of_different_categories_have_all_of_them(tmp_path):
    write(tmp_path, pets())
    content = pets()
    content["categories"] = [{"id": 1, "name": "bee"}]
    content["annotations"] = [box(3, 1, [0, 0, 9, 9])]
    write(tmp_path, content, "annotations/instances_val.json", "val")
    source = open_coco(tmp_path, "train+val")
    assert source.class_names == ("bee", "cat", "cow", "dog")
    assert [each.labels.tolist() for each in source.annotations] == [
        *([1], [3, 1], []),
        *([], [0], []),
    ]


def test_a_missing_split_names_those_there_are(tmp_path):
    write(tmp_path, pets())
    refuse(tmp_path, r"no .*instances_val\.json or .* splits there: train", split="val")


def test_another_size_than_that_of_the_image_is_warned_of(tmp_path, caplog):
    content = pets()
    content["images"][0]["height"] = 61
    write(tmp_path, content)
    open_coco(tmp_path)
    (message,) = caplog.messages
    assert message.startswith("1 images have another size than their annotation says")
    assert message.endswith("train/b.jpg")


def test_boxes_without_area_are_dropped_with_a_warning(tmp_path, caplog):
    content = pets()
    boxes = [[5, 5, 0, 9], [50, 50, -10, -10], [90, 10, 5, 5]]
    content["annotations"] += [box(4, 2, each) for each in boxes]
    write(tmp_path, content)
    assert len(open_coco(tmp_path).annotations[2].boxes) == 0
    (message,) = caplog.messages
    assert message.endswith(": 3, in train/c.jpg")


NO_NUMBERS = [None, 7, [], [1, 2, 3], [1, 2, 3, None], [1, 2, 3, True], [1, 2, 3, "4"]]


@pytest.mark.parametrize("bbox", [*NO_NUMBERS, [0, 0, 10**400, 1]])
def test_a_bbox_that_is_no_box_is_refused(tmp_path, bbox):
    content = pets()
    content["annotations"][1]["bbox"] = bbox
    write(tmp_path, content)
    refuse(tmp_path, r"train\.json: annotations\[1\]\.bbox is .*; expected \[x, y, wid")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_not_finite_is_refused(tmp_path, number):
    write(tmp_path, json.dumps(pets()).replace("20.5", number))
    refuse(tmp_path, r"train\.json: annotations\[0\]\.bbox is .*(nan|inf)")


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("categories", 1, "id"), 9, r"categories\[1\]: duplicate id 9"),
        (("categories", 1, "id"), None, r"categories\[1\]\.id is None; expected"),
        (("categories", 1, "name"), "dog", r"categories: duplicate class name: dog"),
        (("categories", 1, "name"), " ", r"categories: class 0 is ' '; expected a na"),
        (("categories", 1), 5, r"categories\[1\] is 5; expected an object"),
        (("categories",), [], r"categories: no class names"),
        (("images", 1, "id"), 7, r"images\[1\]: duplicate id 7"),
        (("images", 1, "id"), [1], r"images\[1\]\.id is \[1\]; expected"),
        (("images", 1, "file_name"), None, r"images\[1\]\.file_name is None"),
        (
            ("images", 1, "file_name"),
            "d.jpg",
            r"\.file_name: image 'd\.jpg' is in none",
        ),
        (("images", 1, "file_name"), "b.jpg", r"has image train/b\.jpg more than once"),
        (
            ("images", 1, "height"),
            "60",
            r"images\[1\] has height and width \['60', 80\]",
        ),
        (("annotations", 0, "image_id"), 1, r"annotations\[0\]\.image_id is 1; no im"),
        (("annotations", 0, "category_id"), 1, r"\[0\]\.category_id is 1; no category"),
        (("annotations", 0, "iscrowd"), 2, r"annotations\[0\]\.iscrowd is 2; expected"),
        (("annotations",), {}, r"train\.json: no list 'annotations'"),
    ],
)
def test_a_mistake_names_file_and_field(tmp_path, place, value, message):
    content = pets()
    *path, last = place
    item = content
    for key in path:
        item = item[key]
    item[last] = value
    write(tmp_path, content)
    refuse(tmp_path, message)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null", '{"images": []}'])
def test_a_file_that_is_no_coco_is_refused(tmp_path, text):
    write(tmp_path, text)
    refuse(tmp_path, r"instances_train\.json")


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "{}/secret.jpg", "x/../../secret.jpg"]
)
def test_a_file_name_does_not_lead_out_of_the_folder(tmp_path, name):
    root = tmp_path / "data"
    save_noise(tmp_path / "secret.jpg")
    content = pets()
    content["images"][0]["file_name"] = name.format(tmp_path)
    write(root, content, images=".")
    refuse(root, r"images\[0\]\.file_name: image .*secret\.jpg' (leads out|is in none)")
