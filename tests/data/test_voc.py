"""Reading folders in VOC format, and refusing broken ones."""

import logging

import numpy as np
import pytest
from PIL import ExifTags, Image

from frcnn_jax.data.records import Source
from frcnn_jax.errors import UserError
from tests.helpers.voc_folder import VOCFolder, open_voc, voc_size


@pytest.fixture
def pets(voc_folder, voc_object):
    """Three images: a dog and a difficult cat, no object, a cow in another split."""
    difficult = "<difficult>1</difficult>"
    voc_folder.add(
        "b",
        [
            voc_object("dog", 1, 1, 80, 60, "<difficult>0</difficult>"),
            voc_object("cat", 11, 21, 30, 25.5, difficult),
        ],
    )
    voc_folder.add("a", size=(30, 40))
    voc_folder.add("c", [voc_object("cow", 2, 3, 4, 5)])
    voc_folder.split("train", ["b", "a"])
    voc_folder.split("test", ["c"])
    return voc_folder


def test_minima_lose_one_and_maxima_stay(pets):
    annotation = open_voc(pets.root, "train").annotations[0]
    np.testing.assert_array_equal(
        annotation.boxes, [[0, 0, 60, 80], [20, 10, 25.5, 30]]
    )
    assert annotation.boxes.dtype == np.float32


def test_a_source_keeps_the_order_of_the_split_file(pets):
    source = open_voc(pets.root, "train")
    assert isinstance(source, Source)
    assert [item.image_id for item in source.annotations] == ["b", "a"]
    assert [item.image_size for item in source.annotations] == [(60, 80), (30, 40)]
    assert [source.read_image(index).shape for index in (0, 1)] == [
        (60, 80, 3),
        (30, 40, 3),
    ]


def test_classes_come_from_all_splits_so_that_labels_agree(pets):
    train, test = (open_voc(pets.root, split) for split in ("train", "test"))
    assert train.class_names == test.class_names == ("cat", "cow", "dog")
    np.testing.assert_array_equal(train.annotations[0].labels, [2, 0])
    np.testing.assert_array_equal(test.annotations[0].labels, [1])
    assert train.annotations[0].labels.dtype == np.int32


def test_given_classes_decide_the_labels(pets):
    source = open_voc(pets.root, "train", class_names=("dog", "cat"))
    assert source.class_names == ("dog", "cat")
    np.testing.assert_array_equal(source.annotations[0].labels, [0, 1])


def test_difficult_is_read_and_optional(pets):
    assert open_voc(pets.root, "train").annotations[0].difficult.tolist() == [
        False,
        True,
    ]
    assert open_voc(pets.root, "test").annotations[0].difficult.tolist() == [False]


def test_an_image_without_objects_is_valid(pets):
    annotation = open_voc(pets.root, "train").annotations[1]
    assert annotation.boxes.shape == (0, 4)
    assert annotation.labels.shape == annotation.difficult.shape == (0,)


def test_a_second_column_and_blank_lines_of_a_split_are_ignored(pets):
    pets.split("dog_train", ["b  1", "", "a -1"])
    source = open_voc(pets.root, "dog_train")
    assert [item.image_id for item in source.annotations] == ["b", "a"]


def test_other_suffixes_are_accepted(voc_folder, voc_object):
    for image_id, suffix in [
        ("a", ".png"),
        ("b", ".jpeg"),
        ("c", ".JPG"),
        ("d", ".ppm"),
    ]:
        voc_folder.add(image_id, [voc_object("x", 1, 1, 9, 9)], suffix=suffix)
    voc_folder.split("all", ["a", "b", "c", "d"])
    source = open_voc(voc_folder.root, "all")
    assert all(source.read_image(index).shape == (60, 80, 3) for index in range(4))


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA", "1"])
def test_images_of_any_mode_are_read_as_rgb(pets, mode):
    suffix = ".jpg" if mode == "CMYK" else ".png"
    pets.image("b").unlink()
    Image.new("RGB", (80, 60), "red").convert(mode).save(pets.image("b", suffix))
    image = open_voc(pets.root, "train").read_image(0)
    assert (image.shape, image.dtype) == ((60, 80, 3), np.uint8)
    if mode in ("CMYK", "P", "RGBA"):
        np.testing.assert_allclose(image[30, 40], [255, 0, 0], atol=3)


@pytest.fixture
def turned(pets, voc_object):
    """Image b is 60 pixels high and 80 wide, and stored as 80 x 60."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (60, 80)).save(pets.image("b"), exif=exif)
    return pets


def test_boxes_refer_to_the_upright_picture(turned):
    source = open_voc(turned.root, "train")
    assert source.annotations[0].image_size == (60, 80)
    assert source.read_image(0).shape == (60, 80, 3)
    np.testing.assert_array_equal(source.annotations[0].boxes[0], [0, 0, 60, 80])


@pytest.mark.parametrize("sides", [(60, 80), (0, 0), ("", ""), (80.0, 60.0), (7, 8)])
def test_a_size_that_is_upright_or_unknown_is_accepted(turned, voc_object, sides):
    box = voc_object("dog", 1, 1, 80, 60)
    turned.annotation("b").write_text(
        f"<annotation>{voc_size(*sides)}{box}</annotation>"
    )
    assert open_voc(turned.root, "train").annotations[0].image_size == (60, 80)


def test_a_size_of_the_pixels_before_they_are_turned_is_refused(turned, voc_object):
    box = voc_object("dog", 1, 1, 60, 80)
    turned.annotation("b").write_text(
        f"<annotation>{voc_size(80, 60)}{box}</annotation>"
    )
    message = r"b\.xml: has the size 80x60 .* expected 60x80 as of .*b\.jpg after"
    refuse(turned.root, message)


def test_a_box_that_is_empty_in_the_file_is_dropped_with_a_warning(
    voc_folder, voc_object, caplog
):
    objects = [(5, 5, 5, 5), (5, 5, 4, 9), (5, 5, 6, 6), (0, 0, 80, 60)]
    voc_folder.add("a", [voc_object("x", *corners) for corners in objects])
    voc_folder.split("all", ["a"])
    (annotation,) = open_voc(voc_folder.root, "all").annotations
    np.testing.assert_array_equal(annotation.boxes, [[4, 4, 6, 6], [0, 0, 60, 80]])
    (record,) = caplog.records
    assert record.getMessage().endswith(": 2, in a")


def refuse(root, message, split="train", **options):
    with pytest.raises(UserError, match=message) as error:
        open_voc(root, split, **options)
    assert "\n" not in str(error.value)


def test_a_missing_root_is_refused(tmp_path):
    refuse(tmp_path / "nowhere", r"nowhere is not a folder")


def test_a_missing_split_names_its_file_and_the_splits_there_are(pets):
    refuse(pets.root, r"Main/valid\.txt or .* splits there: test, train, all", "valid")


def test_an_empty_split_is_refused(pets):
    refuse(pets.root, r"split .none. of .* has no images", pets.split("none", []).stem)


def test_an_image_listed_twice_is_refused(pets):
    pets.split("train", ["a", "b", "a"])
    refuse(pets.root, r"split .train. .* has image a more than once")


@pytest.mark.parametrize("name", ["./a", "a/.", "./a/"])
def test_other_names_of_an_image_are_the_same_image(pets, name):
    pets.split("train", ["a", name])
    refuse(pets.root, r"split .train. .* has image a more than once")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_split_is_utf_8_with_or_without_a_mark(voc_folder, voc_object, encoding):
    voc_folder.add("écu", [voc_object("x", 1, 1, 9, 9)])
    voc_folder.split("all", []).write_bytes("écu\r\n".encode(encoding))
    (annotation,) = open_voc(voc_folder.root, "all").annotations
    assert annotation.image_id == "écu"


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_split_in_another_encoding_is_refused(pets, encoding):
    pets.split("all", []).write_bytes("écu".encode(encoding))
    refuse(pets.root, r"/all\.txt: cannot be read: 'utf-8' codec .*byte", "all")


@pytest.mark.parametrize("name", ["../b", "x/../../b", "..", "/b", "//b"])
def test_a_split_does_not_lead_out_of_the_folder(pets, voc_object, name):
    pets.add("b", [voc_object("dog", 1, 1, 9, 9)])
    outside = pets.root / "b.jpg"
    pets.image("b").rename(outside)
    name = name.replace("/b", f"{outside.parent}/b") if name[0] == "/" else name
    pets.split("train", [name])
    refuse(pets.root, r"train\.txt line 1: no XML file of image '.*b?'")


@pytest.mark.parametrize("name", ["\0", "x" * 300])
def test_a_name_that_no_file_can_have_is_refused(pets, name):
    pets.split("train", [name])
    refuse(pets.root, r"train\.txt line 1: no XML file of image")


def test_images_may_lie_in_folders_within(voc_folder, voc_object):
    for folder in (voc_folder.image("x"), voc_folder.annotation("x")):
        folder.with_name("day").mkdir()
    voc_folder.add("day/1", [voc_object("x", 1, 1, 9, 9)])
    voc_folder.split("all", ["day/1"])
    (annotation,) = open_voc(voc_folder.root, "all").annotations
    assert annotation.image_id == "day/1"


def test_a_missing_annotation_is_refused(pets):
    pets.annotation("a").unlink()
    refuse(pets.root, r"train\.txt line 2: no XML file of image .a.")


def test_a_missing_image_is_refused(pets):
    pets.image("a").unlink()
    refuse(pets.root, r"train\.txt line 2: image .a. is in none of JPEGImages,")
    refuse(
        pets.root,
        r"train\.txt line 2: image .a. is in none of JPEGImages,",
        skip_broken=True,
    )


def test_an_unknown_class_is_refused(pets):
    message = r"image b has .* class 'dog', expected .* data\.class_names, cat, cow;"
    refuse(pets.root, message, class_names=("cat", "cow"))


def test_a_folder_without_any_object_is_refused(voc_folder):
    voc_folder.add("a")
    voc_folder.split("train", ["a"])
    refuse(
        voc_folder.root,
        r"voc has no labeled objects; expected some, or data\.class_names",
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<annotation><object>", r"b\.xml: .*"),
        ("", r"b\.xml: .*"),
        ("<annotation><object/></annotation>", r"b\.xml: an <object> has no <name>"),
    ],
)
def test_a_malformed_annotation_is_refused(pets, content, message):
    pets.annotation("b").write_text(content)
    refuse(pets.root, message)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_an_annotation_is_read_in_the_encoding_that_it_declares(
    pets, voc_object, encoding
):
    declared = encoding.removesuffix("-sig")
    box = voc_object("écu", 1, 1, 9, 9)
    content = (
        f"<?xml version='1.0' encoding='{declared}'?><annotation>{box}</annotation>"
    )
    pets.annotation("b").write_bytes(content.encode(encoding))
    assert "écu" in open_voc(pets.root, "train").class_names


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [("", "latin-1"), ("utf-8", "latin-1"), ("klingon", "utf-8"), ("gb18030", "utf-8")],
)
def test_an_annotation_in_another_encoding_is_refused(
    pets, voc_object, declared, encoding
):
    box = voc_object("écu", 1, 1, 9, 9)
    head = f"<?xml version='1.0' encoding='{declared}'?>" if declared else ""
    pets.annotation("b").write_bytes(
        f"{head}<annotation>{box}</annotation>".encode(encoding)
    )
    refuse(pets.root, r"cannot read annotation .*/b\.xml: .")


@pytest.mark.parametrize(
    "definition",
    [
        '<!DOCTYPE a [<!ENTITY x "dog">]>',
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE a SYSTEM "file:///nowhere.dtd">',
    ],
)
def test_an_annotation_may_not_define_entities(pets, voc_object, definition):
    box = voc_object("&x;", 1, 1, 9, 9)
    pets.annotation("b").write_text(f"{definition}<annotation>{box}</annotation>")
    refuse(pets.root, r"b\.xml: has a <!DOCTYPE>, expected none")


def test_white_space_within_a_class_name_is_one_space(pets, voc_object):
    pets.add("b", [voc_object("\n traffic\t\n light ", 1, 1, 9, 9)])
    assert "traffic light" in open_voc(pets.root, "train").class_names


@pytest.mark.parametrize("value", ["", "ten", "nan", "inf", "1e39", "-1e9"])
def test_a_corner_that_is_no_number_names_file_field_and_value(pets, voc_object, value):
    pets.add("b", [voc_object("dog", 1, 1, value, 9)])
    refuse(pets.root, rf"b\.xml: <bndbox/xmax> is '{value}'; expected a number")


def test_a_missing_corner_names_file_and_field(pets, voc_object):
    content = voc_object("dog", 1, 1, 5, 9).replace("<ymin>1</ymin>", "")
    pets.add("b", [content])
    refuse(pets.root, r"b\.xml: <bndbox/ymin> is None; expected a number")


def test_a_difficult_flag_other_than_0_or_1_is_refused(pets, voc_object):
    pets.add("b", [voc_object("dog", 1, 1, 5, 9, "<difficult>yes</difficult>")])
    refuse(pets.root, r"b\.xml: <difficult> is 'yes'; expected 0 or 1")


def test_a_file_that_is_no_image_is_refused_at_once(pets):
    pets.image("a").write_text("not an image")
    refuse(pets.root, r"cannot read image .*/a\.jpg")


def test_a_truncated_image_raises_with_its_path_when_read(pets):
    pets.truncate("b")
    source = open_voc(pets.root, "train")
    with pytest.raises(UserError, match=r"cannot read image .*/b\.jpg: .*truncated"):
        source.read_image(0)


def test_skip_broken_leaves_out_broken_images_and_names_them(pets, caplog):
    pets.truncate("b")
    source = open_voc(pets.root, "train", skip_broken=True)
    assert [item.image_id for item in source.annotations] == ["a"]
    assert source.read_image(0).shape == (30, 40, 3)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "left out 1 broken images: b"


def test_skip_broken_says_nothing_when_all_is_well(pets, caplog):
    assert len(open_voc(pets.root, "train", skip_broken=True).annotations) == 2
    assert not caplog.records


@pytest.fixture
def years(tmp_path, voc_object):
    """Two folders with an image of the same name, and classes of their own."""
    root = tmp_path / "devkit"
    first, second = VOCFolder(root / "VOC2007"), VOCFolder(root / "VOC2012")
    first.add("1", [voc_object("cat", 1, 1, 9, 9)], size=(10, 20))
    first.add("2", [voc_object("dog", 1, 1, 9, 9)], size=(30, 40))
    first.split("trainval", ["2", "1"])
    first.split("test", ["1"])
    second.add("1", [voc_object("ant", 1, 1, 9, 9)], size=(50, 60))
    second.split("trainval", ["1"])
    return root


def test_parts_of_several_folders_follow_each_other_with_unique_ids(years):
    source = open_voc(years, "VOC2007/trainval+VOC2012/trainval")
    ids = [annotation.image_id for annotation in source.annotations]
    assert ids == ["VOC2007/2", "VOC2007/1", "VOC2012/1"]
    sizes = [annotation.image_size for annotation in source.annotations]
    assert sizes == [(30, 40), (10, 20), (50, 60)]
    assert [source.read_image(index).shape[:2] for index in range(3)] == sizes


def test_classes_are_those_of_all_folders_of_the_split(years):
    source = open_voc(years, "VOC2007/trainval+VOC2012/trainval")
    assert source.class_names == ("ant", "cat", "dog")
    assert [int(a.labels[0]) for a in source.annotations] == [2, 1, 0]
    assert open_voc(years, "VOC2007/test").class_names == ("cat", "dog")


def test_given_classes_decide_the_labels_of_all_folders(years):
    names = ("dog", "cat", "ant")
    split = "VOC2007/trainval+VOC2012/trainval"
    source = open_voc(years, split, class_names=names)
    assert source.class_names == names
    assert [int(a.labels[0]) for a in source.annotations] == [0, 1, 2]


def test_parts_of_one_folder_keep_plain_ids(pets):
    source = open_voc(pets.root, "train+test")
    assert [a.image_id for a in source.annotations] == ["b", "a", "c"]


def test_broken_images_of_several_folders_are_told_apart(years, caplog):
    VOCFolder(years / "VOC2012", exist_ok=True).truncate("1")
    split = "VOC2007/trainval+VOC2012/trainval"
    source = open_voc(years, split, skip_broken=True)
    assert len(source.annotations) == 2
    assert caplog.messages == ["left out 1 broken images: VOC2012/1"]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("VOC2007/trainval+VOC2007/test", "has image VOC2007/1 more than once"),
        ("VOC2007/trainval+VOC2010/test", r"VOC2010 is not a folder"),
        (
            "VOC2007/trainval+VOC2012/test",
            r"no .*test\.txt .*2012; splits there: trainval",
        ),
        ("trainval", r"no .*Main/trainval\.txt .*devkit; splits there: none"),
        ("VOC2007/trainval+", r"no .*/\.txt"),
    ],
)
def test_a_wrong_part_of_a_split_is_refused(years, split, message):
    refuse(years, message, split)


def test_bccd_reports_and_drops_exactly_its_two_empty_boxes(data_root, caplog):
    sources = [open_voc(data_root / "BCCD", split) for split in ("trainval", "test")]
    (record,) = caplog.records
    assert record.getMessage().endswith(": 2, in BloodImage_00338, BloodImage_00343")
    assert sources[0].class_names == sources[1].class_names
    assert sources[0].class_names == ("Platelets", "RBC", "WBC")
    counts = [sum(len(a.boxes) for a in source.annotations) for source in sources]
    assert sum(counts) == 4155 + 372 + 361 - 2


def test_voc2007_loads_without_a_warning(data_root, caplog):
    source = open_voc(data_root / "VOC2007", "trainval")
    assert not caplog.records
    assert (len(source.annotations), len(source.class_names)) == (839, 20)
    for index in (0, 838):
        size = source.annotations[index].image_size
        assert source.read_image(index).shape == (*size, 3)
