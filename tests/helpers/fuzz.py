"""Damaged and hostile inputs, and what must come of them: good records or one line."""

import dataclasses
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from frcnn_jax.checking.check import check as check_config
from frcnn_jax.checking.pictures import show_problems
from frcnn_jax.config import Config, DataConfig
from frcnn_jax.data.loader import choose_canvases
from frcnn_jax.data.records import Annotation, Source
from frcnn_jax.data.sources import open_source
from frcnn_jax.errors import UserError

IMAGE_IDS = ("a", "b", "c")
SIZE = (12, 20)  # (height, width) of these images
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
NAMES = st.one_of(
    st.sampled_from(
        [*IMAGE_IDS, "./a", "a 1", "A", "~", "\0", "x" * 300, "a\x85b", "\ufeffa"]
    ),
    st.sampled_from(["..", ".", "../../secret", "a/../../../secret", "/etc/passwd"]),
    st.text(max_size=10),
)
ENCODINGS = st.sampled_from(["utf-8-sig", "utf-16", "utf-16-be", "utf-32", "cp037"])
EDITS = st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=3)), max_size=5)


def encode(
    file_format: str,
    size: tuple[int, int] = SIZE,
    mode: str = "RGB",
    orientation: int = 1,
) -> bytes:
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


def edit(path: Path, edits: Sequence[tuple[float, bytes]]) -> None:
    """Overwrites some bytes, inserts others, and cuts a file off."""
    content = bytearray(path.read_bytes())
    for place, new in edits:
        start = int(place * len(content))
        if new:
            content[start : start + len(new) - 1] = new
        else:
            del content[start:]
    path.write_bytes(content)


def recode(path: Path, encoding: str) -> None:
    """Writes a text in another encoding."""
    text = path.read_bytes().decode("utf-8", "replace")
    path.write_bytes(text.encode(encoding, "replace"))


def check(root: Path, open_folder: Callable[[], Source], *, skip_broken: bool) -> None:
    """Opens a data set: it must be good, or refused in one line that names it."""
    try:
        source = open_folder()
    except UserError as error:
        assert_one_line_naming(error, root)
        return
    assert SECRET not in source.class_names
    for index, annotation in enumerate(source.annotations):
        assert_good(annotation, len(source.class_names))
        try:
            pixels = source.read_image(index)
        except UserError as error:
            assert not skip_broken
            assert_one_line_naming(error, root)
        else:
            assert pixels.shape == (*annotation.image_size, 3)


def check_data(config: DataConfig, split: str) -> None:
    """Checks a split as `frcnn check-data` does: training opens what has no mistake."""
    config = dataclasses.replace(config, train_split=split, test_split=split)
    try:
        checked = check_config(Config(data=config))
    except UserError as error:
        assert_one_line(error)
        return
    json.dumps(checked.to_dict(), allow_nan=False)
    for is_wrong in (True, False):
        show_problems(checked, is_wrong=is_wrong)
    assert not any("\n" in str(problem) for problem in checked.problems)
    kinds = {problem.kind for problem in checked.problems if problem.is_wrong}
    if kinds == {"shared image"}:  # since the split is used twice
        source = open_source(config, split)
        choose_canvases(source, config)
        for index in range(len(source.annotations)):
            source.read_image(index)


def assert_one_line(error: UserError) -> None:
    assert "\n" not in str(error)


def assert_one_line_naming(error: UserError, root: Path) -> None:
    assert_one_line(error)
    # Class names are those of the config, or not.
    assert str(root) in str(error) or "data.class_names" in str(error)


def assert_good(annotation: Annotation, num_classes: int) -> None:
    boxes, limit = annotation.boxes, annotation.image_size * 2
    assert boxes.dtype == np.float32
    assert ((boxes >= 0) & (boxes <= limit)).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert ((annotation.labels >= 0) & (annotation.labels < num_classes)).all()
    assert len(boxes) == len(annotation.labels) == len(annotation.difficult)


def fuzz(num_cases: int, *strategies: Any) -> Callable[[Any], Any]:
    """Runs a test on so many cases, drawn by its name alone."""
    profile = settings(
        max_examples=num_cases,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.function_scoped_fixture,
        ],
    )
    return lambda test: profile(given(*strategies)(test))
