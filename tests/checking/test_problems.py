"""What is a mistake, what is merely a note, and where each is reported to be."""

import json
import re

import pytest

from frcnn_jax.checking.check import check
from frcnn_jax.checking.page import write_page
from frcnn_jax.config.loading import load_config, override_config
from frcnn_jax.errors import UserError
from frcnn_jax.init_config import write_config
from tests.checking.data import cat, good_photos, picture
from tests.helpers.voc_folder import voc_size


@pytest.fixture
def photos(tmp_path):
    return good_photos(tmp_path / "photos")


def the_problem(photos, **fields):
    """The only problem that there is, as what it is and as a line."""
    (problem,) = check(photos.config(**fields)).problems
    image_id = problem.image.image_id if problem.image else None
    return (problem.kind, problem.is_wrong, problem.split, image_id), str(problem)


def test_good_data_have_no_problem(photos):
    checked = check(photos.config())
    assert not checked.is_wrong
    assert checked.problems == []


@pytest.mark.parametrize("end", [0, 20, -500])
def test_every_broken_image_is_a_mistake_with_its_path(photos, end):
    for name in "ac":
        path = photos.image(name, ".png")
        path.write_bytes(path.read_bytes()[:end])
    checked = check(photos.config())
    for name, split, problem in zip(
        "ac", ("train", "test"), checked.problems, strict=True
    ):
        assert (problem.kind, problem.split) == ("broken image", split)
        assert problem.is_wrong
        assert f"cannot read image {photos.image(name, '.png')}: " in str(problem)
    assert [each["num_images"] for each in checked.statistics.values()] == [1, 1]
    assert [each["num_broken"] for each in checked.statistics.values()] == [1, 1]


def test_a_broken_image_that_training_leaves_out_is_only_noted(photos):
    photos.image("a", ".png").write_bytes(b"")
    what, line = the_problem(photos, skip_broken=True, limit=1)
    assert what == ("skipped image", False, "train", "a")
    assert f"cannot read image {photos.image('a', '.png')}: " in line
    checked = check(photos.config(skip_broken=True, limit=1))
    assert checked.statistics["train"]["num_images"] == 1


def test_canvases_are_counted_with_the_room_that_augmentation_needs(photos):
    config = photos.config(canvases=((64, 96), (96, 96)), rotation_probability=0.5)
    counts = {
        split: [row["num_images"] for row in each["canvases"].values()]
        for split, each in check(config).statistics.items()
    }
    assert counts == {"train": [0, 2], "test": [2, 0]}


def test_a_data_set_of_broken_images_only_is_checked(photos):
    for name in "abcd":
        photos.image(name, ".png").write_bytes(b"")
    checked = check(photos.config())
    assert [problem.kind for problem in checked.problems] == ["broken image"] * 4
    assert checked.anchors == []
    checked = check(photos.config(skip_broken=True))
    mistakes = [str(problem) for problem in checked.problems if problem.is_wrong]
    assert mistakes == [
        f"{split}: has no readable image" for split in ("train", "test")
    ]


@pytest.mark.parametrize(
    ("box", "kind", "reason"),
    [
        ((10, 10, 10, 10), "dropped box", "is 1 x 1 pixels .* expected more than 1"),
        ((30, 10, 20, 40), "dropped box", "is 31 x -9 pixels"),
        ((90, 10, 120, 40), "dropped box", "lies outside of the image of 60 x 80"),
        ((50, 10, 95, 40), "clipped box", "reaches 15 pixels outside of the image"),
    ],
)
def test_a_bad_box_is_a_mistake_with_file_class_box_and_reason(
    photos, box, kind, reason
):
    photos.put("a", cat(), cat(*box), seed=0)
    what, line = the_problem(photos)
    assert what == (kind, True, "train", "a")
    assert str(photos.annotation("a")) in line
    assert "box of cat" in line
    assert f"x {box[0] - 1} to {box[2]}, y {box[1] - 1} to {box[3]}" in line
    assert re.search(reason, line)


def test_one_pixel_outside_is_no_mistake_but_noted(photos):
    photos.put("a", cat(0, 0, 81, 61), seed=0)
    checked = check(photos.config())
    assert checked.problems == []
    assert any("one pixel outside" in note for note in checked.notes)


def test_another_size_than_the_annotation_states_is_a_mistake(photos):
    photos.put("a", voc_size(30, 40), cat(), seed=0)
    what, line = the_problem(photos)
    assert what == ("other size", True, "train", "a")
    assert "is annotated as 30x40 pixels, but has 60x80" in line


def test_objects_that_have_no_room_are_a_mistake_and_counted(photos):
    photos.put("c", *[cat()] * 5, seed=2)
    what, line = the_problem(photos, max_objects=3)
    assert what == ("too many objects", True, "test", "c")
    assert "has 5 objects, but max_objects is 3" in line
    lost = check(photos.config(max_objects=3)).statistics["test"]
    assert lost["num_beyond_max_objects"] == 2


def test_an_image_that_fits_no_canvas_is_a_mistake(photos):
    photos.put("a", cat(), seed=0, size=(90, 60))
    what, line = the_problem(photos, canvases=((60, 80),))
    assert what == ("no canvas", True, "train", "a")
    assert "has 80x53 pixels after resizing, too many for any canvas" in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"scale_range": (0.5, 1.5)},
            "90x120 pixels after resizing (with scale_range)",
        ),
        (
            {"rotation_probability": 0.5},
            "80x80 pixels after resizing (with rotation_probability)",
        ),
        (
            {"rotation_probability": 0.5, "scale_range": (0.5, 1.5)},
            "120x120 pixels after resizing (with scale_range and rotation_probability)",
        ),
    ],
    ids=["scaled", "rotated", "both"],
)
def test_training_images_that_fit_no_canvas_when_augmented_are_mistakes(
    options, words, photos
):
    config = photos.config(canvases=((60, 80),), **options)
    problems = check(config).problems
    assert {(each.kind, each.split) for each in problems} == {("no canvas", "train")}
    assert f"has {words}" in str(problems[0]).replace("data.", "")


def test_an_image_that_is_trained_on_and_evaluated_on_is_a_mistake(photos):
    picture(0).save(photos.image("d", ".png"), compress_level=1)
    what, line = the_problem(photos)
    assert what == ("shared image", True, "test", "d")
    assert "has the same pixels as a (train)" in line


def test_an_image_that_is_twice_in_a_split_is_noted(photos):
    picture(0).save(photos.image("b", ".png"))
    what, line = the_problem(photos)
    assert what == ("repeated image", False, "train", "b")
    assert "has the same pixels as a (train)" in line


def test_an_image_that_looks_like_one_of_another_split_is_noted(photos):
    picture(1).point(lambda value: 0.9 * value).save(photos.image("c", ".png"))
    what, line = the_problem(photos)
    assert what == ("similar image", False, "test", "c")
    assert "looks like b (train)" in line


def test_a_split_that_is_trained_on_and_evaluated_on_is_a_mistake(photos):
    what, line = the_problem(photos, test_split="train", limit=2)
    assert what == ("shared image", True, "train", None)
    assert "the split is used for train and test" in line


def test_images_that_the_config_does_not_use_are_checked_but_only_noted(photos):
    photos.put("e", cat(10, 10, 10, 10), seed=5)
    what, line = the_problem(photos)
    assert what == ("dropped box", False, "unused", "e")
    assert str(photos.annotation("e")) in line
    assert check(photos.config(limit=2)).problems == []


def test_the_images_of_the_validation_split_are_used(photos):
    photos.put("e", cat(10, 10, 10, 10), seed=5)
    photos.split("val", ["e"])
    what, _ = the_problem(photos, validation_split="val")
    assert what == ("dropped box", True, "val", "e")


def test_splits_with_other_classes_are_a_mistake(tmp_path):
    for seed, (split, name) in enumerate([("train", "cat"), ("test", "dog")]):
        folder = tmp_path / split
        folder.mkdir()
        picture(seed).save(folder / "a.png")
        content = {
            "images": [{"id": 0, "file_name": "a.png"}],
            "categories": [{"id": 1, "name": name}],
            "annotations": [
                {"image_id": 0, "category_id": 1, "bbox": [1, 2, 30, 40]},
            ],
        }
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
    config = load_config("configs/voc07_vgg16.py")
    arguments = ["--data.source", "coco", "--data.root", str(tmp_path)]
    arguments += ["--data.train-split", "train", "--data.class-names", "None"]
    checked = check(override_config(config, arguments, ""))
    (problem,) = checked.problems
    assert (problem.kind, problem.is_wrong) == ("other classes", True)
    assert str(problem) == "test: has the classes dog, not cat"


def test_a_data_set_without_classes_is_a_mistake(tmp_path):
    for seed, split in enumerate(("train", "test")):
        picture(seed).save(tmp_path / f"{split}.png")
        (tmp_path / f"{split}.csv").write_text(f"{split}.png,,,,,\n")
    config = load_config("configs/voc07_vgg16.py")
    arguments = ["--data.source", "csv", "--data.root", str(tmp_path)]
    arguments += ["--data.train-split", "train", "--data.class-names", "None"]
    config = override_config(config, arguments, "")
    write_page(check(config), tmp_path / "page.html")
    kinds = [each.kind for each in check(config).problems]
    assert kinds == ["no classes"] * 2


def test_a_training_split_without_objects_is_a_mistake(tmp_path):
    for seed, split in enumerate(("train", "test")):
        picture(seed).save(tmp_path / f"{split}.png")
    (tmp_path / "train.csv").write_text("train.png,,,,,\n")
    (tmp_path / "test.csv").write_text("test.png,1,1,9,9,cat\n")
    config = load_config("configs/voc07_vgg16.py")
    arguments = ["--data.source", "csv", "--data.root", str(tmp_path)]
    arguments += ["--data.train-split", "train", "--data.class-names", "cat"]
    (problem,) = check(override_config(config, arguments, "")).problems
    assert (problem.kind, problem.is_wrong) == ("no objects", True)
    assert str(problem) == "train: has no objects to learn from"


def test_a_malformed_annotation_is_one_line_of_a_user_error(photos):
    photos.annotation("b").write_text("<annotation>")
    with pytest.raises(UserError, match=r"b\.xml"):
        check(photos.config())


def test_classes_that_the_config_does_not_have_are_refused(photos):
    with pytest.raises(UserError, match="class 'dog', expected one of"):
        check(photos.config(class_names=("cat",)))


def test_bccd_has_two_boxes_of_a_pixel_and_one_scene_twice(data_root):
    config = load_config("configs/bccd_vgg16.py")
    root = ["--data.root", str(data_root / "BCCD")]
    checked = check(override_config(config, root, ""))
    listed = [
        (each.kind, each.is_wrong, each.image.image_id) for each in checked.problems
    ]
    assert listed == [
        ("dropped box", True, "BloodImage_00343"),
        ("dropped box", False, "BloodImage_00338"),
        ("similar image", False, "BloodImage_00037"),
    ]
    assert all("is 1 x 1 pixels" in str(each) for each in checked.problems[:2])
    counts = [
        {name: row["num_objects"] for name, row in each["per_class"].items()}
        for each in checked.statistics.values()
    ]
    totals = {name: sum(each[name] for each in counts) for name in counts[0]}
    assert totals == {"Platelets": 361, "RBC": 4153, "WBC": 372}


def test_coco128_has_ten_crowds_and_two_images_without_objects(data_root, tmp_path):
    write_config(data_root / "coco128", tmp_path / "config.py")
    checked = check(load_config(tmp_path / "config.py"))
    assert not checked.is_wrong
    splits = checked.statistics.values()
    names = ("num_images", "num_difficult", "num_empty")
    assert [sum(each[name] for each in splits) for name in names] == [128, 10, 2]
