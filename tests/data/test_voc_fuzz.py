"""Damaged and hostile VOC folders: good records or one clear line, never a traceback.

The cases are the same in every run; `pytest -m slow` tries more of them.
"""

import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from frcnn_jax.data.sources.voc import VOCSource
from frcnn_jax.errors import UserError
from tests.helpers.voc_folder import VOCFolder, voc_object, voc_size

IMAGE_IDS = ("a", "b", "c")
SIZE = (12, 20)
SECRET = "secret"  # An image outside of the folder, and its class.

NUMBERS = st.one_of(
    st.integers(-5, 30),
    st.floats(-5.0, 30.0),
    st.sampled_from(["nan", "inf", "-inf", "1e400", "1e38", "-1e38", "1e-320", "1_0"]),
    st.sampled_from(["", "ten", " 7 ", "7\n", "0x9", "٣", "<b/>", "&x;", "9" * 5000]),
)
TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["cat", "dog", "", " ", "a\nb", "a\u2028b", "a\x85b", "x" * 300]),
)
BOMB = (
    "<!DOCTYPE a [<!ENTITY x0 'cat'>"
    + "".join(f"<!ENTITY x{n + 1} '{f'&x{n};' * 10}'>" for n in range(9))
    + "]><annotation><object><name>&x9;</name></object></annotation>"
)
DOCUMENTS = st.one_of(
    st.text(max_size=200).map(str.encode),
    st.binary(max_size=200),
    st.sampled_from(
        [
            BOMB.encode(),
            b"<!DOCTYPE a SYSTEM 'file:///etc/passwd'><annotation/>",
            b"<annotation>" + b"<a>" * 10_000 + b"</a>" * 10_000 + b"</annotation>",
            b"<?xml version='1.0' encoding='klingon'?><annotation/>",
            b"<?xml version='1.0' encoding='idna'?><annotation/>",
            b"<?xml version='1.1'?><annotation/>",
        ]
    ),
)
ENCODINGS = st.sampled_from(["utf-8-sig", "utf-16", "utf-16-be", "utf-32", "cp037"])
NAMES = st.one_of(
    st.sampled_from(
        [*IMAGE_IDS, "./a", "a 1", "A", "~", "\0", "x" * 300, "a\x85b", "\ufeffa"]
    ),
    st.sampled_from(["..", ".", "../../secret", "a/../../../secret", "/etc/passwd"]),
    st.text(max_size=10),
)
EDITS = st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=3)), max_size=5)


def encode(file_format, size=SIZE, mode="RGB", orientation=1):
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stream = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(stream, file_format, exif=exif)
    return stream.getvalue()


PICTURES = [
    *(encode("JPEG", mode=mode) for mode in ("RGB", "L", "CMYK")),
    *(encode("PNG", mode=mode) for mode in ("RGB", "P", "1", "LA")),
    *(encode("JPEG", orientation=n) for n in (3, 6, 8, 99)),
    *(encode("PNG", size) for size in ((1, 1), (1, 3000), (3000, 1), SIZE[::-1])),
    *(encode(file_format) for file_format in ("WEBP", "TIFF", "BMP", "GIF", "PPM")),
    b"P5 100000 100000 255\n",
    b"P5 0 5 255\n",
    b"",
]


def edit(path, edits):
    """Overwrites some bytes, inserts others, and cuts a file off."""
    content = bytearray(path.read_bytes())
    for place, new in edits:
        start = int(place * len(content))
        if new:
            content[start : start + len(new) - 1] = new
        else:
            del content[start:]
    path.write_bytes(content)


def edit_annotation(folder, image_id, edits):
    edit(folder.annotation(image_id), edits)


def edit_image(folder, image_id, edits):
    edit(folder.image(image_id), edits)


def replace_annotation(folder, image_id, content):
    folder.annotation(image_id).write_bytes(content)


def replace_image(folder, image_id, content):
    folder.image(image_id).write_bytes(content)


def write_object(folder, image_id, name, corners, difficult, sides):
    flag = f"<difficult>{difficult}</difficult>"
    content = f"{voc_size(*sides)}{voc_object(name, *corners, flag)}"
    path = folder.annotation(image_id)
    path.write_bytes(f"<annotation>{content}</annotation>".encode("utf-8", "replace"))


def encode_annotation(folder, image_id, encoding):
    path = folder.annotation(image_id)
    path.write_bytes(
        path.read_bytes().decode("utf-8", "replace").encode(encoding, "replace")
    )


def encode_split(folder, image_id, encoding):
    folder.split("all", []).write_bytes(f"{image_id}\n".encode(encoding))


def write_split(folder, image_id, names):
    lines = "".join(f"{name}\n" for name in (*names, image_id))
    folder.split("all", []).write_bytes(lines.encode("utf-8", "surrogatepass"))


def remove_annotation(folder, image_id):
    folder.annotation(image_id).unlink()
    folder.annotation(image_id).mkdir()


def remove_image(folder, image_id):
    folder.image(image_id).unlink()
    folder.image(image_id, ".png").mkdir()


def case(mutation, *strategies):
    return st.tuples(st.just(mutation), st.sampled_from(IMAGE_IDS), *strategies)


CASES = st.one_of(
    case(edit_annotation, EDITS),
    case(edit_image, EDITS),
    case(replace_annotation, DOCUMENTS),
    case(replace_image, st.sampled_from(PICTURES)),
    case(
        write_object,
        TEXTS,
        st.tuples(*[NUMBERS] * 4),
        st.sampled_from(["0", "1", "", "2", " 1 "]),
        st.one_of(st.just(SIZE), st.tuples(NUMBERS, NUMBERS)),
    ),
    case(encode_annotation, ENCODINGS),
    case(encode_split, ENCODINGS),
    case(write_split, st.lists(NAMES, max_size=4)),
    case(remove_annotation),
    case(remove_image),
)
OPTIONS = st.fixed_dictionaries(
    {
        "class_names": st.sampled_from([None, ("cat", "dog")]),
        "skip_broken": st.booleans(),
    }
)


def write_folder(parent):
    folder = VOCFolder(parent / "devkit" / "voc")
    for image_id in IMAGE_IDS:
        boxes = [voc_object("cat", 1, 1, 20, 12), voc_object("dog", 2, 3, 9, 9)]
        folder.add(image_id, [voc_size(*SIZE), *boxes], size=SIZE)
    folder.split("all", IMAGE_IDS)
    for image_id in (f"../../{SECRET}", f"../../../{SECRET}"):
        folder.add(image_id, [voc_object(SECRET, 1, 1, 9, 9)])
    return folder


def assert_one_line_naming(error, folder):
    assert "\n" not in str(error)
    assert str(folder.root) in str(error)


def check(cases, options):
    with tempfile.TemporaryDirectory() as parent:
        folder = write_folder(Path(parent))
        for mutate, *arguments in cases:
            try:
                mutate(folder, *arguments)
            except OSError:  # of a file that an earlier case has removed
                continue
        try:
            source = VOCSource(folder.root, "all", **options)
        except UserError as error:
            assert_one_line_naming(error, folder)
            return
        assert SECRET not in source.class_names
        for index, annotation in enumerate(source.annotations):
            assert_good(annotation, len(source.class_names))
            try:
                pixels = source.read_image(index)
            except UserError as error:
                assert not options["skip_broken"]
                assert_one_line_naming(error, folder)
            else:
                assert pixels.shape == (*annotation.image_size, 3)


def assert_good(annotation, num_classes):
    boxes, limit = annotation.boxes, annotation.image_size * 2
    assert boxes.dtype == np.float32
    assert ((boxes >= 0) & (boxes <= limit)).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert ((annotation.labels >= 0) & (annotation.labels < num_classes)).all()
    assert len(boxes) == len(annotation.labels) == len(annotation.difficult)


def fuzz(num_cases):
    """Runs a test on so many cases, drawn by its name alone."""
    profile = settings(
        max_examples=num_cases,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    inputs = given(st.lists(CASES, min_size=1, max_size=4), OPTIONS)
    return lambda test: profile(inputs(test))


@fuzz(100)
def test_a_damaged_folder_is_read_well_or_refused_in_one_line(cases, options):
    check(cases, options)


@pytest.mark.slow
@fuzz(1000)
def test_a_thousand_damaged_folders_are_read_well_or_refused(cases, options):
    check(cases, options)
