"""Reading data sets in YOLO format, and refusing broken ones."""

import numpy as np
import pytest
from PIL import ExifTags, Image

from frcnn_jax.config import DataConfig
from frcnn_jax.data.records import Source
from frcnn_jax.data.sources import open_source, yolo
from frcnn_jax.errors import UserError
from tests.helpers.pictures import save_noise

NAMES = "names: [cat, dog]\n"


def write(root, path, text=""):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.fixture
def pets(tmp_path):
    """Image a with a cat and a dog, b without a file of labels."""
    for name in "ab":
        save_noise(tmp_path / f"images/train/{name}.jpg")
    write(tmp_path, "labels/train/a.txt", "0 0.5 0.5 1 1\n\n1 0.25 .5 0.125 0.2\n")
    write(tmp_path, "data.yaml", f"train: images/train\n{NAMES}")
    return tmp_path


def open_yolo(root, split="train", **options):
    return open_source(DataConfig(source="yolo", root=str(root), **options), split)


def image_ids(root, split="train"):
    return [each.image_id for each in open_yolo(root, split).annotations]


def refuse(root, message, split="train"):
    with pytest.raises(UserError, match=message) as error:
        open_yolo(root, split)
    assert "\n" not in str(error.value)


def test_fractions_become_pixels(pets):
    source = open_yolo(pets)
    assert isinstance(source, Source)
    assert source.class_names == ("cat", "dog")
    a, b = source.annotations
    np.testing.assert_array_equal(a.boxes, [[0, 0, 60, 80], [24, 15, 36, 25]])
    np.testing.assert_array_equal(a.labels, [0, 1])
    assert a.boxes.dtype == np.float32
    assert b.boxes.shape == (0, 4)
    assert source.read_image(1).shape == (60, 80, 3)


def test_fractions_are_those_of_the_upright_image(pets):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (60, 40)).save(pets / "images/train/a.jpg", exif=exif)
    annotation = open_yolo(pets).annotations[0]
    assert annotation.image_size == (60, 40)
    np.testing.assert_array_equal(annotation.boxes[0], [0, 0, 60, 40])


def test_a_polygon_becomes_the_box_around_it(pets):
    write(pets, "labels/train/a.txt", "1 0.5 0.25 0.75 0.5 0.125 0.75 0.5 0.5\n")
    annotation = open_yolo(pets).annotations[0]
    np.testing.assert_array_equal(annotation.boxes, [[15, 10, 45, 60]])


def test_rounding_may_lead_out_of_the_image_a_little(pets, caplog):
    write(pets, "labels/train/a.txt", "0 0.5 0.5 1.000001 1.002\n")
    annotation = open_yolo(pets).annotations[0]
    np.testing.assert_array_equal(annotation.boxes, [[0, 0, 60, 80]])
    assert not caplog.records


@pytest.mark.parametrize(
    "names",
    [
        "names:\n  0: cat\n  1: dog\n",
        "names:\n- cat\n- dog\nnc: 2\n",
        "names: {1: dog, 0: cat}\nnc: 2\n",
    ],
)
def test_names_are_a_list_or_numbered(pets, names):
    write(pets, "data.yaml", f"train: images/train\n{names}")
    assert open_yolo(pets).class_names == ("cat", "dog")


def test_names_are_never_read_as_something_else(pets):
    write(pets, "data.yaml", "train: images/train\nnames: [no, 1.0, 2026-01-01]\n")
    assert open_yolo(pets).class_names == ("no", "1.0", "2026-01-01")


@pytest.mark.parametrize(
    ("images", "labels", "train"),
    [
        ("images/train", "labels/train", "images/train"),
        ("train/images", "train/labels", "../train/images"),  # Roboflow
        ("images/train", "labels/train", "{}/images/train"),
        ("photos", "photos", "photos"),
        ("images/train", "images/train", "[images/train]"),
    ],
)
@pytest.mark.parametrize("base", ["", "path: .\n", "path: /content/pets\n"])
def test_images_and_labels_are_found_where_people_put_them(
    tmp_path, images, labels, train, base
):
    save_noise(tmp_path / images / "a.png")
    write(tmp_path, f"{labels}/a.txt", "1 0.5 0.5 0.5 0.5")
    write(tmp_path, "data.yaml", f"{base}train: {train.format(tmp_path)}\n{NAMES}")
    (annotation,) = open_yolo(tmp_path).annotations
    assert annotation.image_id == f"{images}/a.png"
    assert annotation.labels.tolist() == [1]


def test_a_base_may_be_a_folder_within(tmp_path):
    save_noise(tmp_path / "pets/images/train/a.png")
    write(tmp_path, "pets/labels/train/a.txt", "1 0.5 0.5 0.5 0.5")
    write(tmp_path, "data.yaml", f"path: pets\ntrain: images/train\n{NAMES}")
    assert image_ids(tmp_path) == ["pets/images/train/a.png"]


@pytest.mark.parametrize("line", ["images/train/b.jpg", "./images/train/b.jpg"])
def test_a_split_may_be_a_list_of_images(pets, line):
    write(pets, "lists/train.txt", f"\n{line}\nimages/train/a.jpg\n")
    write(pets, "data.yaml", f"train: lists/train.txt\n{NAMES}")
    assert image_ids(pets) == ["images/train/b.jpg", "images/train/a.jpg"]


def test_an_image_that_is_listed_twice_is_refused(pets):
    write(pets, "data.yaml", f"train: [images/train, images]\n{NAMES}")
    refuse(pets, r"split 'train' of .* has image images/train/a\.jpg more than once")


def test_a_split_may_be_several_folders(pets):
    save_noise(pets / "images/more/c.jpg")
    write(pets, "data.yaml", f"train: [images/train, images/more]\n{NAMES}")
    assert [name[-5:] for name in image_ids(pets)] == ["a.jpg", "b.jpg", "c.jpg"]


@pytest.mark.parametrize("names", ["classes.txt", "labels/classes.txt", "obj.names"])
def test_a_list_of_names_will_do_instead_of_a_description(pets, names):
    (pets / "data.yaml").unlink()
    save_noise(pets / "images/val/c.jpg")
    write(pets, "labels/val/c.txt", "0 0.5 0.5 0.5 0.5")
    write(pets, names, "cat\ndog\n\n")
    assert yolo.find_splits(pets) == ["train", "val", "all"]
    assert open_yolo(pets).class_names == ("cat", "dog")
    assert image_ids(pets, "val") == ["images/val/c.jpg"]
    assert len(image_ids(pets, "all")) == 3


def test_images_and_labels_may_lie_side_by_side(tmp_path):
    save_noise(tmp_path / "my photo.jpg")
    write(tmp_path, "my photo.txt", "0 0.5 0.5 0.5 0.5")
    write(tmp_path, "classes.txt", "cat")
    assert yolo.find_splits(tmp_path) == ["all"]
    assert image_ids(tmp_path, "all") == ["my photo.jpg"]


def test_an_image_with_several_paths_is_taken_once_with_its_labels(pets):
    (pets / "images/train").rename(pets / "pool")
    (pets / "images/train").symlink_to(pets / "pool")
    save_noise(pets / "images/more/c.jpg")
    (pets / "images/more/again").symlink_to(pets / "pool")
    write(pets, "data.yaml", f"train: [images/more, images/train]\n{NAMES}")
    for split in ("train", "all"):
        a = "images/train/a.jpg"
        objects = {
            each.image_id: len(each.boxes)
            for each in open_yolo(pets, split).annotations
        }
        assert len(objects) == 3
        assert objects[a] == 2


def test_splits_are_those_of_the_description(pets):
    write(pets, "data.yaml", f"train: images/train\nval: images/val\ntest:\n{NAMES}")
    assert yolo.find_splits(pets) == ["train", "all"]
    refuse(pets, r"data\.yaml: val: 'images/val' is in none of", "val")
    refuse(pets, r"data\.yaml: no split 'test'; splits there: train, val, all", "test")


def test_hidden_files_and_others_are_no_images(pets):
    write(pets, "images/train/._a.jpg")
    write(pets, "images/train/notes.txt")
    assert len(image_ids(pets)) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 .5 .5 .5 .5", r"a\.txt line 1: class is 2; expected 0 to 1"),
        ("-1 .5 .5 .5 .5", r"a\.txt line 1: class is '-1'; expected a whole number"),
        ("0.5 .5 .5 .5 .5", r"a\.txt line 1: class is '0\.5'; expected a whole number"),
        ("cat .5 .5 .5 .5", r"a\.txt line 1: class is 'cat'; expected a number"),
        ("0 .5 .5 .5", r"a\.txt line 1: 3 numbers after the class; expected x, y"),
        ("0 .5 .5 .5 .5 .9", r"a\.txt line 1: 5 numbers after the class"),
        ("0 .5 .5 .5 .5 .5 .5 .5", r"a\.txt line 1: 7 numbers after the class"),
        ("0", r"a\.txt line 1: 0 numbers after the class"),
        ("0 40 30 80 60", r"a\.txt line 1: a coordinate is 40\.0; expected fractions"),
        ("0 .5 .5 -.5 .5", r"a\.txt line 1: a coordinate is -0\.5; expected fractions"),
        ("0 .5 .5 nan .5", r"a\.txt line 1: a coordinate is 'nan'; expected a number"),
        ("0 .5 .5 inf .5", r"a\.txt line 1: a coordinate is 'inf'; expected a number"),
        ("0 .5 .5 x .5", r"a\.txt line 1: a coordinate is 'x'; expected a number"),
        ("9" * 5000 + " .5 .5 .5 .5", r"a\.txt line 1: class is .*; expected a number"),
    ],
)
def test_a_wrong_line_is_named(pets, line, message):
    write(pets, "labels/train/a.txt", f"{line}\n")
    refuse(pets, message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a", r"cannot read .*data\.yaml: "),
        ("names: [a, a]", r"data\.yaml: names: duplicate class name: a"),
        ("names: [a, '']", r"data\.yaml: names: class 1 is ''; expected a name"),
        ("names: [a, [b]]", r"data\.yaml: names: class 1 is \['b'\]; expected a name"),
        ("names: []", r"data\.yaml: names: no class names"),
        ("names: {1: a, 2: b}", r"data\.yaml: names of \['1', '2'\]; expected 0, 1, 2"),
        ("names: {0: a, 1: b, 1: c}", r"cannot read .*data\.yaml: found a key twice"),
        ("names: cat", r"data\.yaml: names is 'cat'; expected class names"),
        ("nc: 2", r"data\.yaml: names is None; expected class names"),
        ("nc: 3\nnames: [a, b]", r"data\.yaml: nc is '3', names has 2"),
        (
            "names: [a]\ntrain: {a: b}",
            r"data\.yaml: train is {'a': 'b'}; expected a fo",
        ),
        ("names: [a]\nkpt_shape: [2, 3]", r"data\.yaml: kpt_shape; expected boxes"),
        ("just text", r"data\.yaml: 'just text'; expected names"),
        ("", r"data\.yaml: None; expected names"),
        (
            "a: &a [*a]\nnames: *a",
            r"cannot read .*data\.yaml: found unconstru",
        ),
        ("!!python/object/apply:os.system ['true']", r"data\.yaml"),
        ("[" * 5000, r"cannot read .*data\.yaml"),
    ],
)
def test_a_wrong_description_is_refused(pets, text, message):
    write(pets, "data.yaml", text)
    refuse(pets, message)


def test_a_split_without_any_labels_is_refused(pets):
    (pets / "labels/train/a.txt").unlink()
    refuse(pets, r"no label files for split 'train' in ")


def test_names_without_labels_are_no_data_set(pets):
    (pets / "labels/train/a.txt").unlink()
    assert yolo.find_splits(pets) == []


def test_a_folder_without_names_is_refused(pets):
    (pets / "data.yaml").unlink()
    refuse(pets, r"no data\.yaml .* with class names in .* no classes\.txt")
    assert yolo.find_splits(pets) == []


@pytest.mark.parametrize("place", ["../secret", "{}/secret", "../../secret", "/"])
def test_a_description_does_not_lead_out_of_the_folder(tmp_path, place):
    save_noise(tmp_path / "secret/a.jpg")
    write(tmp_path, "secret/a.txt", "0 0.5 0.5 0.5 0.5")
    train = place.format(tmp_path)
    write(tmp_path / "data", "data.yaml", f"train: {train}\n{NAMES}")
    refuse(tmp_path / "data", r"data\.yaml: train: .* (leads out of|is in none of)")


@pytest.mark.parametrize("base", ["..", "{}"])
def test_a_base_does_not_lead_out_of_the_folder(tmp_path, base):
    save_noise(tmp_path / "secret/a.jpg")
    write(tmp_path, "secret/a.txt", "0 0.5 0.5 0.5 0.5")
    text = f"path: {base.format(tmp_path)}\ntrain: secret\n{NAMES}"
    write(tmp_path / "data", "data.yaml", text)
    refuse(tmp_path / "data", r"data\.yaml: train: 'secret' is in none of")


def test_a_list_does_not_lead_out_of_the_folder(tmp_path):
    save_noise(tmp_path / "secret.jpg")
    write(tmp_path, "data/train.txt", "../secret.jpg\n")
    write(tmp_path, "data/data.yaml", f"train: train.txt\n{NAMES}")
    refuse(tmp_path / "data", r"train\.txt line 1: image '\.\./secret\.jpg' leads out")
