"""A box is read exactly, clipped or dropped with a warning, or refused by name."""

import json
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st

from frcnn_jax.config import DataConfig
from frcnn_jax.data.sources import FORMATS, open_source
from frcnn_jax.errors import UserError
from tests.helpers import fuzz
from tests.helpers.fuzz import SIZE
from tests.helpers.pictures import save_noise
from tests.helpers.voc_folder import VOCFolder, voc_object

HEIGHT, WIDTH = SIZE
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*", re.ASCII)

NUMBERS = st.one_of(
    st.integers(-2, 22).map(str),
    st.floats(-3.0, 23.0, width=32).map(repr),
    st.sampled_from(
        ["", "nan", "-inf", "1e400", "1e38", "1_0", "x", " 7 ", "+7", "007"]
    ),
)
FRACTIONS = st.one_of(
    st.floats(-0.05, 1.05).map(repr),
    st.sampled_from(["nan", "1_0", "x", "40", "1e-400"]),
)


def write_voc(root, numbers):
    folder = VOCFolder(root)
    folder.add("a", [voc_object("cat", *numbers)], size=SIZE)
    folder.split("all", ["a"])


def write_coco(root, numbers):
    def parse(text):
        return float(text) if NUMBER.fullmatch(text) else text

    content = {
        "categories": [{"id": 1, "name": "cat"}],
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [
            {"image_id": 1, "category_id": 1, "bbox": list(map(parse, numbers))}
        ],
    }
    save_noise(root / "a.png", SIZE)
    (root / "all.json").write_text(json.dumps(content))


def write_yolo(root, numbers):
    save_noise(root / "a.png", SIZE)
    (root / "a.txt").write_text(f"0 {' '.join(numbers)}\n")
    (root / "classes.txt").write_text("cat\n")


def write_csv(root, numbers):
    save_noise(root / "a.png", SIZE)
    (root / "all.csv").write_text(f"a.png,{','.join(numbers)},cat\n")


WRITERS = {
    "voc": write_voc,
    "coco": write_coco,
    "yolo": write_yolo,
    "csv": write_csv,
}


def box_of(data_format, numbers):
    """Returns the box that the four texts mean, before clipping; None if none."""
    if not all(map(NUMBER.fullmatch, numbers)):
        return None
    a, b, c, d = map(float, numbers)
    if max(map(abs, (a, b, c, d))) >= 1e9:
        return None
    if data_format == "voc":
        return b - 1, a - 1, d, c
    if data_format == "csv":
        return b, a, d, c
    if data_format == "coco":
        return b, a, b + d, a + c
    if not all(-0.01 <= value <= 1.01 for value in (a, b, c, d)):
        return None
    return (
        (b - d / 2) * HEIGHT,
        (a - c / 2) * WIDTH,
        (b + d / 2) * HEIGHT,
        (a + c / 2) * WIDTH,
    )


@pytest.mark.parametrize("data_format", FORMATS)
def test_a_box_is_what_its_numbers_mean_or_is_reported(data_format, caplog):
    numbers = st.tuples(*[FRACTIONS if data_format == "yolo" else NUMBERS] * 4)

    @fuzz.fuzz(200, numbers)
    def check_numbers(numbers):
        caplog.clear()
        check(data_format, numbers, caplog)

    check_numbers()


def check(data_format, numbers, caplog):
    expected = box_of(data_format, numbers)
    with tempfile.TemporaryDirectory() as root:
        WRITERS[data_format](Path(root), numbers)
        config = DataConfig(source=data_format, root=root, class_names=("cat",))
        if expected is None or (data_format != "yolo" and max(expected) <= 1.0):
            message = " is .*; expected" if expected is None else "not fractions"
            with pytest.raises(UserError, match=message):
                open_source(config, "all")
            return
        (annotation,) = open_source(config, "all").annotations
    box = np.array(expected, np.float32)
    clipped = np.clip(box, 0, np.float32([*SIZE, *SIZE]))
    smallest = 1.0 if data_format == "voc" else 0.0
    has_area = (box[2:] - box[:2] > smallest).all() and (
        clipped[2:] > clipped[:2]
    ).all()
    is_far = np.abs(box - clipped).max() > 1.0
    assert annotation.boxes.tolist() == [clipped.tolist()] * bool(has_area)
    warnings = [message.split()[0] for message in caplog.messages]
    assert warnings == (["clipped"] * bool(is_far) if has_area else ["dropped"])
