"""Damaged and hostile data sets of every format but VOC, which has a file of its own.

The cases are the same in every run; `pytest -m slow` tries more of them.
"""

import contextlib
import copy
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import strategies as st

from frcnn_jax.config import DataConfig
from frcnn_jax.config.loading import load_config
from frcnn_jax.data.loader import choose_canvases
from frcnn_jax.data.sources import open_source
from frcnn_jax.errors import UserError
from frcnn_jax.init_config import write_config
from tests.helpers import fuzz
from tests.helpers.fuzz import IMAGE_IDS, NUMBERS, SECRET, SIZE, TEXTS

HEIGHT, WIDTH = SIZE

JSON_VALUES = st.one_of(
    NUMBERS,
    fuzz.NAMES,
    st.sampled_from(
        [None, True, 10**400, 1e300, -1, 0, 1, 2, [], {}, [1, 2, 3, 4], {"id": 1}]
    ),
    st.lists(NUMBERS, min_size=4, max_size=4),
)
COCO = {
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    "images": [
        {"id": n, "file_name": f"{image_id}.jpg", "height": HEIGHT, "width": WIDTH}
        for n, image_id in enumerate(IMAGE_IDS)
    ],
    "annotations": [
        {"image_id": n, "category_id": c, "bbox": [n, c, 7, 8], "iscrowd": 0}
        for n in range(3)
        for c in (1, 2)
    ],
}
COCO_PLACES = [
    (name, index, *key)
    for name, items in COCO.items()
    for index in range(2)
    for key in [(), *((key,) for key in items[0])]
]
YAML = "train: images/train\nnames: [cat, dog]\n"


def write_coco(root, places=()):
    content = copy.deepcopy(COCO)
    for (*path, last), value in places:
        item = content
        # An earlier change may have replaced what this one would change.
        with contextlib.suppress(TypeError, KeyError, IndexError):
            for key in path:
                item = item[key]
            item[last] = copy.deepcopy(value)  # a later change may be inside of it
    write(root, "train.json", json.dumps(content))


def write_yolo(root, rows=None, description=YAML):
    rows = [["0", 0.5, 0.5, 0.25, 0.125]] if rows is None else rows
    for image_id in IMAGE_IDS[:2]:
        lines = "".join(f"{' '.join(map(str, row))}\n" for row in rows)
        write(root, f"labels/train/{image_id}.txt", lines)
    write(root, "data.yaml", description)


def write_csv(root, rows=(), header="filename,class,xmin,ymin,xmax,ymax"):
    good = [[f"{image_id}.jpg", "cat", 1, 2, 9, 8] for image_id in IMAGE_IDS]
    lines = [header, *(",".join(map(str, row)) for row in (*good, *rows))]
    write(root, "train.csv", "\n".join(lines))


def write_csv_without_names(root, rows=()):
    good = [[f"{image_id}.jpg", 1, 2, 9, 8, "cat"] for image_id in IMAGE_IDS]
    text = "\n".join(",".join(map(str, row)) for row in (*rows, *good))
    write(root, "train.csv", text)


def write(root, name, text):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))


class Format(NamedTuple):
    source: str
    write: Callable[..., None]
    arguments: st.SearchStrategy  # for `write`, by name
    files: tuple[str, ...]  # of annotations


FRACTIONS = st.one_of(st.floats(-0.1, 1.1), NUMBERS)
PATHS = st.builds("{}{}".format, fuzz.NAMES, st.sampled_from(["", ".jpg"]))
CSV_ROWS = st.lists(st.tuples(PATHS, TEXTS, *[NUMBERS] * 4), max_size=2)
FORMATS = {
    "coco": Format(
        "coco",
        write_coco,
        st.fixed_dictionaries(
            {
                "places": st.lists(
                    st.tuples(st.sampled_from(COCO_PLACES), JSON_VALUES), max_size=3
                )
            }
        ),
        ("train.json",),
    ),
    "yolo": Format(
        "yolo",
        write_yolo,
        st.fixed_dictionaries(
            {},
            optional={
                "rows": st.lists(st.lists(FRACTIONS, max_size=9), max_size=2),
                "description": st.builds(
                    "path: {}\ntrain: {}\nnames: [{}, {}]\n".format,
                    fuzz.NAMES,
                    st.one_of(st.just("images/train"), fuzz.NAMES),
                    *[TEXTS] * 2,
                ),
            },
        ),
        ("data.yaml", "labels/train/a.txt", "labels/train/b.txt"),
    ),
    "csv": Format(
        "csv",
        write_csv,
        st.fixed_dictionaries(
            {"rows": CSV_ROWS},
            optional={
                "header": st.lists(
                    st.sampled_from(
                        [
                            "filename",
                            "class",
                            "xmin",
                            "ymin",
                            "xmax",
                            "ymax",
                            "width",
                            "",
                        ]
                    ),
                    max_size=8,
                ).map(",".join)
            },
        ),
        ("train.csv",),
    ),
    "csv without names": Format(
        "csv",
        write_csv_without_names,
        st.fixed_dictionaries(
            {
                "rows": st.lists(
                    st.tuples(PATHS, *[st.one_of(st.just(""), NUMBERS)] * 4, TEXTS),
                    max_size=2,
                )
            }
        ),
        ("train.csv",),
    ),
}
DOCUMENTS = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=200).map(str.encode),
    st.sampled_from(
        [
            b"[" * 100_000,
            b'{"a":' * 100_000,
            b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nnames: [*c, *c]",
            b"!!python/object/apply:os.system ['true']",
            b"names: [cat]\ntrain: &a [*a]",
            b"9" * 100_000,
            b"0 " + b"0.5 " * 100_000,
            b'"' + b"x" * 200_000,
            b"\xff\xfe",
        ]
    ),
)


@st.composite
def damages(draw, data_format):
    """What to do to which file."""
    name = draw(st.sampled_from(data_format.files))
    image = f"images/train/{draw(st.sampled_from(IMAGE_IDS))}.jpg"
    return draw(
        st.one_of(
            st.tuples(st.just(fuzz.edit), st.just(name), fuzz.EDITS),
            st.tuples(st.just(fuzz.recode), st.just(name), fuzz.ENCODINGS),
            st.tuples(st.just(Path.write_bytes), st.just(name), DOCUMENTS),
            st.tuples(st.just(fuzz.edit), st.just(image), fuzz.EDITS),
            st.tuples(
                st.just(Path.write_bytes),
                st.just(image),
                st.sampled_from(fuzz.PICTURES),
            ),
            st.tuples(st.just(replace_by_folder), st.sampled_from([name, image])),
        )
    )


def replace_by_folder(path):
    path.unlink()
    path.mkdir()


@st.composite
def cases(draw, data_format):
    return (
        draw(data_format.arguments),
        draw(st.lists(damages(data_format), max_size=2)),
        {
            "class_names": draw(st.sampled_from([None, ("cat", "dog")])),
            "skip_broken": draw(st.booleans()),
        },
    )


def check(data_format, case):
    arguments, damaged, options = case
    with tempfile.TemporaryDirectory() as parent:
        root = Path(parent) / "within" / "data"
        for image in (*IMAGE_IDS, f"../../../{SECRET}", f"../../../../{SECRET}"):
            path = root / f"images/train/{image}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(fuzz.PICTURES[0])
        write(root.parent, f"{SECRET}.txt", "0 0.5 0.5 0.5 0.5")
        data_format.write(root, **arguments)
        for damage, name, *rest in damaged:
            try:
                damage(root / name, *rest)
            except OSError:  # of a file that an earlier case has removed
                continue
        config = DataConfig(source=data_format.source, root=str(root), **options)
        fuzz.check(
            root,
            lambda: open_source(config, "train"),
            skip_broken=options["skip_broken"],
        )
        check_init_config(root, Path(parent) / "config.py")
        fuzz.check_data(config, "train")


def check_init_config(root, output):
    """Writes a config for the folder, which must open it, or is refused in one line."""
    try:
        write_config(root, output)
    except UserError as error:
        fuzz.assert_one_line(error)
        return
    data = load_config(output).data
    for split in (data.train_split, data.test_split):
        choose_canvases(open_source(data, split), data)


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_folder_is_read_well_or_refused_in_one_line(name):
    run(name, 60)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_a_thousand_damaged_folders_are_read_well_or_refused(name):
    run(name, 1000)


def run(name, num_cases):
    data_format = FORMATS[name]

    @fuzz.fuzz(num_cases, cases(data_format))
    def check_case(case):
        check(data_format, case)

    check_case()
