"""XML files and images in other places than those of PASCAL VOC."""

import pytest

from frcnn_jax.data.sources import voc
from frcnn_jax.errors import UserError
from tests.helpers.pictures import save_noise
from tests.helpers.voc_folder import open_voc, voc_object


def add(root, annotation, image, name="cat"):
    path = root / annotation
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotation>{voc_object(name, 1, 1, 80, 60)}</annotation>")
    save_noise(root / image)


def ids(root, split):
    return [each.image_id for each in open_voc(root, split).annotations]


@pytest.fixture
def side_by_side(tmp_path):
    for stem in ("a", "b", "my photo", "d.v2"):
        add(tmp_path, f"{stem}.xml", f"{stem}.jpg")
    return tmp_path


def test_xml_and_images_may_lie_side_by_side(side_by_side):
    assert voc.find_splits(side_by_side) == ["all"]
    assert ids(side_by_side, "all") == ["a", "b", "d.v2", "my photo"]
    source = open_voc(side_by_side, "all")
    assert source.read_image(0).shape == (60, 80, 3)
    assert source.annotations[0].boxes.tolist() == [[0, 0, 60, 80]]


@pytest.mark.parametrize("suffix", ["", ".jpg", ".xml"])
def test_a_list_names_the_images_of_a_split(side_by_side, suffix):
    names = [f"{stem}{suffix}\n" for stem in ("my photo", "d.v2", "a")]
    (side_by_side / "train.txt").write_text("".join(names))
    (side_by_side / "readme.txt").write_text("Photos of cats.\n")
    (side_by_side / "license.txt").write_bytes(b"\xa9 2026\n")
    assert voc.find_splits(side_by_side) == ["train", "all"]
    assert ids(side_by_side, "train") == ["my photo", "d.v2", "a"]


def test_a_fraction_is_a_split(side_by_side):
    train, test = ids(side_by_side, "all[:50%]"), ids(side_by_side, "all[50%:]")
    assert len(train) == len(test) == 2
    assert sorted(train + test) == ids(side_by_side, "all")


def test_another_seed_chooses_other_images(side_by_side):
    parts = {
        tuple(
            a.image_id for a in open_voc(side_by_side, "all[:50%]", **seed).annotations
        )
        for seed in ({"split_seed": seed} for seed in range(9))
    }
    assert len(parts) > 1


def test_a_folder_of_xml_and_images_is_a_split(tmp_path):
    for split in ("train", "valid"):
        for stem in "ab":
            add(tmp_path, f"{split}/{stem}.xml", f"{split}/{stem}.png", split)
    assert voc.find_splits(tmp_path) == ["train", "valid", "all"]
    assert ids(tmp_path, "train") == ["train/a", "train/b"]
    assert len(ids(tmp_path, "all")) == 4
    assert open_voc(tmp_path, "train").class_names == ("train", "valid")


def test_xml_and_images_may_have_folders_of_any_usual_name(tmp_path):
    add(tmp_path, "annotations/a.xml", "images/a.png")
    assert ids(tmp_path, "all") == ["a"]


def test_xml_and_images_of_a_split_may_have_folders_within(tmp_path):
    add(tmp_path, "annotations/train/a.xml", "images/train/a.png")
    assert voc.find_splits(tmp_path) == ["train", "all"]
    assert ids(tmp_path, "train") == ["train/a"]


def test_several_folders_without_a_list_are_no_data_set(tmp_path):
    add(tmp_path, "VOC2007/Annotations/a.xml", "VOC2007/JPEGImages/a.jpg")
    assert voc.find_splits(tmp_path) == []
    assert ids(tmp_path, "VOC2007/all") == ["VOC2007/a"]
    with pytest.raises(UserError, match=r"splits there: none, as there is no XML file"):
        open_voc(tmp_path, "all")


def test_hidden_files_are_no_annotations(side_by_side):
    (side_by_side / "._a.xml").write_bytes(b"\0\5\x16")
    assert len(ids(side_by_side, "all")) == 4


def test_an_xml_file_without_an_image_is_refused(side_by_side):
    (side_by_side / "b.jpg").unlink()
    with pytest.raises(UserError, match=r"b\.xml: image 'b' is in none of"):
        open_voc(side_by_side, "all")
