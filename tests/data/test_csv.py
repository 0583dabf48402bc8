"""Reading data sets in CSV, and refusing broken ones."""

import numpy as np
import pytest

from frcnn_jax.config import DataConfig
from frcnn_jax.data.records import Source
from frcnn_jax.data.sources import csv_file, open_source
from frcnn_jax.errors import UserError
from tests.helpers.pictures import save_noise

HEADER = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
ROWS = "b.jpg,80,60,dog,10,20.5,40,45.5\na.jpg,80,60,cat,0,0,80,60\n"
MORE_ROWS = "b.jpg,80,60,cat,1,2,3,4\nc.jpg,80,60,,,,,\n"
WITHOUT_NAMES = "b.jpg,10,20.5,40,45.5,dog\na.jpg,0,0,80,60,cat\nb.jpg,1,2,3,4,cat\n"


def write(root, text, path="train.csv"):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.fixture
def pets(tmp_path):
    """Three images: a dog and a cat, a cat, no object."""
    for name in "abc":
        save_noise(tmp_path / f"images/{name}.jpg")
    write(tmp_path, HEADER + ROWS + MORE_ROWS)
    return tmp_path


def open_csv(root, split="train", **options):
    return open_source(DataConfig(source="csv", root=str(root), **options), split)


def refuse(root, message, **options):
    with pytest.raises(UserError, match=message) as error:
        open_csv(root, **options)
    assert "\n" not in str(error.value)


def assert_pets(source):
    b, a, c = source.annotations
    assert [each.image_id[-5:] for each in (b, a, c)] == ["b.jpg", "a.jpg", "c.jpg"]
    np.testing.assert_array_equal(b.boxes, [[20.5, 10, 45.5, 40], [2, 1, 4, 3]])
    np.testing.assert_array_equal(a.boxes, [[0, 0, 60, 80]])
    np.testing.assert_array_equal(b.labels, [1, 0])
    assert c.boxes.shape == (0, 4)
    assert source.class_names == ("cat", "dog")


def test_coordinates_are_taken_as_they_are(pets):
    source = open_csv(pets)
    assert isinstance(source, Source)
    assert_pets(source)
    assert source.annotations[0].boxes.dtype == np.float32
    assert source.read_image(0).shape == (60, 80, 3)


def test_six_columns_need_no_names(pets):
    write(pets, WITHOUT_NAMES + "c.jpg,,,,,\n")
    assert_pets(open_csv(pets))


def test_the_first_row_without_names_may_be_an_image_without_objects(pets):
    write(pets, f"c.jpg,,,,,\n{WITHOUT_NAMES}")
    assert len(open_csv(pets).annotations) == 3


@pytest.mark.parametrize(
    "header",
    [
        "image_path,width,height,label,x1,y1,x2,y2",
        "Image_ID, Width, Height, Category, X_Min, Y_Min, X_Max, Y_Max",
        '"path","width","height","class_name","left","top","right","bottom"',
        "\ufefffilename,width,height,class,xmin,ymin,xmax,ymax",
    ],
)
def test_columns_have_their_usual_names(pets, header):
    write(pets, f"{header}\n{ROWS}{MORE_ROWS}")
    assert_pets(open_csv(pets))


def test_columns_may_be_in_any_order_and_others_are_ignored(pets):
    rows = "x,0,dog,10,40,20.5,45.5,b.jpg\n,1,cat,0,80,0,60,a.jpg\n"
    write(pets, f"note,,class,xmin,xmax,ymin,ymax,path\n{rows}")
    b, a = open_csv(pets).annotations
    np.testing.assert_array_equal(b.boxes, [[20.5, 10, 45.5, 40]])
    np.testing.assert_array_equal(a.boxes, [[0, 0, 60, 80]])


@pytest.mark.parametrize("images", ["train", "images/train", "images", "."])
@pytest.mark.parametrize(
    "path",
    [
        "train.csv",
        "train_labels.csv",
        "train/_annotations.csv",
        "annotations/train.csv",
    ],
)
def test_files_are_found_where_people_put_them(tmp_path, path, images):
    for name in "abc":
        save_noise(tmp_path / images / f"{name}.jpg")
    write(tmp_path, HEADER + ROWS + MORE_ROWS, path)
    assert csv_file.find_splits(tmp_path) == ["train"]
    assert_pets(open_csv(tmp_path))


def test_classes_are_those_of_all_splits_so_that_labels_agree(pets):
    write(pets, HEADER + "a.jpg,80,60,ant,0,0,9,9\n", "test.csv")
    write(pets, "id,price\n1,2\n", "prices.csv")
    assert csv_file.find_splits(pets) == ["test", "train"]
    for split in ("train", "test"):
        assert open_csv(pets, split).class_names == ("ant", "cat", "dog")


@pytest.mark.parametrize("header", ["", "name,id\n"])
def test_a_file_of_classes_decides_the_labels(pets, header):
    write(pets, f"{header}dog,0\ncow,1\ncat,2\n", "classes.csv")
    source = open_csv(pets)
    assert source.class_names == ("dog", "cow", "cat")
    np.testing.assert_array_equal(source.annotations[0].labels, [0, 2])


def test_another_size_than_that_of_the_image_is_warned_of(pets, caplog):
    write(pets, HEADER + "a.jpg,60,80,cat,0,0,9,9\n")
    open_csv(pets)
    (message,) = caplog.messages
    assert message.startswith("1 images have another size than their annotation says")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a.jpg,80,60,cat,0,0,9\n", r"train\.csv line 4: 7 columns; expected 8"),
        ("a.jpg,80,60,cat,0,0,9,9,9\n", r"train\.csv line 4: 9 columns; expected 8"),
        ("a.jpg,80,60,cat,0,,9,9\n", r"train\.csv line 4: ymin is ''; expected a num"),
        ("a.jpg,80,60,cat,0,ten,9,9\n", r"train\.csv line 4: ymin is 'ten'; expected"),
        ("a.jpg,80,60,cat,0,nan,9,9\n", r"train\.csv line 4: ymin is 'nan'; expected"),
        ("a.jpg,80,60,cat,0,1_0,9,9\n", r"train\.csv line 4: ymin is '1_0'; expected"),
        ("a.jpg,80,60,cat,0,0,1e300,9\n", r"train\.csv line 4: xmax is '1e300'; expec"),
        ("a.jpg,80,60,,0,0,9,9\n", r"train\.csv line 4: no class"),
        (",80,60,cat,0,0,9,9\n", r"train\.csv line 4: no path of an image"),
        ("d.jpg,80,60,cat,0,0,9,9\n", r"train\.csv line 4: image 'd\.jpg' is in none"),
        ("a.jpg,80,6.5,cat,0,0,9,9\n", r"line 4: height is '6\.5'; expected a whole"),
        ("a.jpg,80,,cat,0,0,9,9\n", r"train\.csv line 4: height is ''; expected a num"),
        ("a.jpg,8,6,cat,0,0,9,9\n", r"line 4: height and width are \(6, 8\), expected"),
        ('a.jpg,80,60,"cat,0,0,9,9\n', r"train\.csv line 4: unexpected end of data"),
        ("a.jpg,80,60,cat,0,0,9,\0\n", r"train\.csv line 4: .*(ymax|NUL)"),
        (f"{'x' * 200_000},80,60,cat,0,0,9,9\n", r"train\.csv line 4: field larger"),
        (f"{'x' * 300},80,60,cat,0,0,9,9\n", r"train\.csv line 4: image 'xx.*is in no"),
    ],
)
def test_a_wrong_line_is_named(pets, rows, message):
    write(pets, HEADER + ROWS + rows)
    refuse(pets, message)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "filename,class,xmin,ymin,xmax\na.jpg,cat,0,0,9\n",
        "filename,class,xmin,ymin,width,height,note\n",
        "filename,class,xmin,ymin,xmax,ymax,xmax\n",
        "a.jpg;cat;0;0;9;9\n",
        "a.jpg,0,0,9,9\n",
    ],
)
def test_a_first_line_without_the_columns_is_refused(pets, text):
    write(pets, text)
    refuse(pets, r"train\.csv line 1: columns .*; expected path, class, ymin")


def test_fractions_are_refused(pets):
    write(pets, HEADER + "a.jpg,80,60,cat,0,0.25,0.5,1\n")
    refuse(pets, r"train\.csv line 2: no box leaves the first pixel.* not fractions")


def test_a_file_that_is_not_utf_8_is_refused(pets):
    (pets / "train.csv").write_bytes(HEADER.encode() + "ä.jpg".encode("latin1"))
    refuse(pets, r"train\.csv: cannot be read: 'utf-8' codec")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat,0\ndog,0\n", r"classes\.csv line 2: duplicate id 0"),
        ("cat,0\ncat,1\n", r"classes\.csv: duplicate class name: cat"),
        ("cat,zero\n", r"classes\.csv line 1: id is 'zero'; expected a number"),
        ("cat\n", r"classes\.csv line 1: \['cat'\]; expected a class name and its id"),
        ("cat,0\n", r"train\.csv line 2: unknown class 'dog'; expected one of cat"),
        ("", r"classes\.csv: no class names"),
        (",0\n", r"classes\.csv: class 0 is ''; expected a name"),
    ],
)
def test_a_wrong_file_of_classes_is_refused(pets, text, message):
    write(pets, text, "classes.csv")
    refuse(pets, message)


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "{}/secret.jpg", "x/../../secret.jpg"]
)
def test_a_path_does_not_lead_out_of_the_folder(tmp_path, name):
    save_noise(tmp_path / "secret.jpg")
    write(tmp_path / "data", f"{name.format(tmp_path)},0,0,9,9,cat\n")
    refuse(tmp_path / "data", r"line 1: image .*secret\.jpg' (leads out|is in none)")


def test_an_absolute_path_within_the_folder_is_fine(pets):
    write(pets, f"{pets}/images/a.jpg,0,0,9,9,cat\n")
    assert open_csv(pets).annotations[0].image_id == "images/a.jpg"
