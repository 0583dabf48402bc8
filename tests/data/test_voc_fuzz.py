"""Damaged and hostile VOC folders: good records or one clear line, never a traceback.

The cases are the same in every run; `pytest -m slow` tries more of them.
"""

import tempfile
from pathlib import Path

import pytest
from hypothesis import strategies as st

from frcnn_jax.config import DataConfig
from tests.helpers import fuzz
from tests.helpers.fuzz import IMAGE_IDS, NUMBERS, SECRET, SIZE, TEXTS
from tests.helpers.voc_folder import VOCFolder, open_voc, voc_object, voc_size

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


def edit_annotation(folder, image_id, edits):
    fuzz.edit(folder.annotation(image_id), edits)


def edit_image(folder, image_id, edits):
    fuzz.edit(folder.image(image_id), edits)


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
    fuzz.recode(folder.annotation(image_id), encoding)


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
    case(edit_annotation, fuzz.EDITS),
    case(edit_image, fuzz.EDITS),
    case(replace_annotation, DOCUMENTS),
    case(replace_image, st.sampled_from(fuzz.PICTURES)),
    case(
        write_object,
        TEXTS,
        st.tuples(*[NUMBERS] * 4),
        st.sampled_from(["0", "1", "", "2", " 1 "]),
        st.one_of(st.just(SIZE), st.tuples(NUMBERS, NUMBERS)),
    ),
    case(encode_annotation, fuzz.ENCODINGS),
    case(encode_split, fuzz.ENCODINGS),
    case(write_split, st.lists(fuzz.NAMES, max_size=4)),
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


def check(cases, options):
    with tempfile.TemporaryDirectory() as parent:
        folder = write_folder(Path(parent))
        for mutate, *arguments in cases:
            try:
                mutate(folder, *arguments)
            except OSError:  # of a file that an earlier case has removed
                continue
        fuzz.check(
            folder.root,
            lambda: open_voc(folder.root, "all", **options),
            skip_broken=options["skip_broken"],
        )
        config = DataConfig(source="voc", root=str(folder.root), **options)
        fuzz.check_data(config, "all")


INPUTS = (st.lists(CASES, min_size=1, max_size=4), OPTIONS)


@fuzz.fuzz(100, *INPUTS)
def test_a_damaged_folder_is_read_well_or_refused_in_one_line(cases, options):
    check(cases, options)


@pytest.mark.slow
@fuzz.fuzz(1000, *INPUTS)
def test_a_thousand_damaged_folders_are_read_well_or_refused(cases, options):
    check(cases, options)
