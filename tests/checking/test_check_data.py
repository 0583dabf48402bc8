"""`frcnn check-data`: what it prints, writes and exits with."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from frcnn_jax import cli
from frcnn_jax.detector import Detector
from frcnn_jax.models.parameters import random_params
from tests.checking.data import cat, good_photos, picture
from tests.helpers import tiny
from tests.helpers.voc_folder import voc_object
from tests.report.test_page import Page

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def photos(tmp_path):
    return good_photos(tmp_path / "photos")


def arguments(photos):
    sizes = "--data.shorter-side 60 --data.longer-side 80 --data.canvases 64 96 96 64"
    return [
        *("--config", str(CONFIGS / "bccd_vgg16.py"), "--data.root", str(photos.root)),
        *(*sizes.split(), "--model.anchor-scales", "1", "2"),
    ]


def check(capsys, *given) -> tuple[int, str, str]:
    """Runs the command; returns its exit code, output and errors."""
    code = 0
    try:
        cli.main(["check-data", *map(str, given)])
    except SystemExit as stop:
        code = stop.code
    return code, *capsys.readouterr()


def test_good_data_are_described_and_exit_with_0(photos, capsys):
    code, output, errors = check(capsys, *arguments(photos))
    assert (code, errors) == (0, "")
    assert re.search(r"images +2 +2 +4 ", output)
    assert re.search(r"cat +2 +2 +2 ", output)
    assert re.search(r"64x96 +100%, padding 21.9% +100%", output)
    assert re.search(r"all +\d+\.\d +\d+\.\d ", output)
    assert output.endswith("no mistakes\n")


def test_every_mistake_is_a_line_and_the_exit_code_is_1(photos, capsys):
    photos.put("a", *[cat(10, 10, 10, 10)] * 12, seed=0)
    code, output, errors = check(capsys, *arguments(photos))
    assert (code, errors) == (1, "")
    assert output.count(f"({photos.annotation('a')})") == 12
    assert output.endswith("12 mistakes\n")


def test_notes_are_cut_short_and_exit_with_0(photos, capsys):
    names = [f"more{number}" for number in range(15)]
    for name in names:
        photos.put(name, cat(), seed=0)
    photos.split("train", ["a", "b", *names])
    code, output, _ = check(capsys, *arguments(photos))
    assert code == 0
    assert output.count("has the same pixels as a (train)") == 10
    assert "and 5 more: --json lists all" in output


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "expected --config PATH or --work-dir RUN"),
        ("--config nowhere.py", "nowhere.py"),
        ("--config CONFIG --nonsense 1", "--nonsense"),
        ("--config CONFIG --data.root /nowhere", "/nowhere"),
        ("--config CONFIG --json /nowhere/a.json", "there is no folder /nowhere"),
        ("--config CONFIG --json a --html a", "a: both --json and --html, expected"),
        ("--config CONFIG --html /nowhere/a.html", "there is no folder /nowhere"),
        ("--work-dir /nowhere", "/nowhere/config.json"),
        ("--config CONFIG --data.root /absent --work-dir /nowhere", "/nowhere"),
    ],
)
def test_mistake_of_the_user_is_one_line_and_code_2(given, message, capsys):
    given = given.replace("CONFIG", str(CONFIGS / "bccd_vgg16.py"))
    code, output, errors = check(capsys, *given.split())
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert message in errors


def test_json_has_everything(photos, tmp_path, capsys):
    photos.put("a", cat(), cat(10, 10, 10, 10), seed=0)
    picture(1).save(photos.image("d", ".png"))
    path = tmp_path / "check.json"
    assert check(capsys, *arguments(photos), "--json", path)[0] == 1
    content = json.loads(path.read_text())
    assert content["is_wrong"]
    assert content["splits"]["train"]["per_class"]["cat"]["num_objects"] == 2
    assert content["anchors"]["compared"][0]["scales"] == [1, 2]
    box, shared = content["problems"]
    assert (box["kind"], box["box"]) == ("dropped box", [9, 9, 10, 10])
    assert box["image"]["annotation"] == str(photos.annotation("a"))
    assert (shared["kind"], shared["is_wrong"]) == ("shared image", True)
    ids = [shared[name]["image_id"] for name in ("image", "other")]
    assert ids == ["d", "b"]


def test_page_shows_problems_and_loads_nothing(photos, tmp_path, capsys):
    photos.put("a", cat(), cat(10, 10, 10, 10), cat(50, 10, 1e8, 1e8), seed=0)
    photos.put("b", *[cat()] * 70, seed=1)
    picture(2).save(photos.image("d", ".png"))
    photos.image("c", ".png").write_bytes(b"")
    photos.put("e", voc_object("&lt;b&gt;", 1, 1, 9, 9), seed=2)
    path = tmp_path / "check.html"
    assert check(capsys, *arguments(photos), "--html", path)[0] == 1
    text = path.read_text()
    page = Page(text)
    assert not page.open
    assert {"mistakes", "notes", "images", "classes", "anchors"} <= set(page.ids)
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert all(each.startswith("data:") for each in page.loads)
    assert "<script" not in text
    assert "<b>" not in text
    # Two boxes, an image of too many objects, and a pair that looks alike.
    assert text.count('<img src="data:image/jpeg') == 2 + 1 + 2
    assert f"cannot read image {photos.image('c', '.png')}" in text


def test_page_of_broken_images_only_is_written(photos, tmp_path, capsys):
    for name in "abcd":
        photos.image(name, ".png").write_bytes(b"")
    path = tmp_path / "check.html"
    assert check(capsys, *arguments(photos), "--html", path)[0] == 1
    assert not Page(path.read_text()).open


def test_drawn_shapes_can_be_checked(capsys):
    given = ["--config", CONFIGS / "shapes.py", "--data.num-train-images", 20]
    code, output, _ = check(capsys, *given, "--data.num-test-images", 5)
    assert code == 0
    assert re.search(r"images +20 +5 +25 ", output)


def test_jax_is_not_needed(photos, tmp_path):
    path = tmp_path / "check.html"
    given = ["check-data", *arguments(photos), "--html", str(path)]
    code = (
        f"import sys\nfrom frcnn_jax.cli import main\nmain({given})\n"
        "assert not {'jax', 'flax', 'grain'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_labels_that_a_detector_disputes_are_listed_and_shown(
    tmp_path, capsys, monkeypatch
):
    # Random parameters find nothing.
    monkeypatch.setattr("frcnn_jax.checking.suspects._MOSTLY_FOUND", 0.0)
    detector = Detector(tiny.SPEC, random_params(tiny.MODEL, tiny.NUM_CLASSES, 0))
    model, page, data = (tmp_path / name for name in ("m.safetensors", "a.html", "j"))
    detector.save(model)
    given = ["--config", CONFIGS / "shapes.py", "--data.shapes-size", 56, 64]
    given += ["--data.num-train-images", 4, "--data.num-test-images", 3]
    given += ["--work-dir", model, "--html", page, "--json", data]
    code, output, _ = check(capsys, *given)
    assert code == 0
    suspects = json.loads(data.read_text())["suspects"]
    assert suspects
    assert {each["split"] for each in suspects} == {"train", "test"}
    first = suspects[0]
    assert f"suspect: {first['kind']} (train)" in output
    assert f"{first['image_id']}: {first['text']}" in output
    assert f"{first['image_id']}: {first['text']}" in page.read_text()
    assert "suspects" in Page(page.read_text()).ids


def test_a_detector_of_other_classes_is_refused(photos, tmp_path, capsys):
    detector = Detector(tiny.SPEC, random_params(tiny.MODEL, tiny.NUM_CLASSES, 0))
    detector.save(tmp_path / "m.safetensors")
    given = [*arguments(photos), "--work-dir", tmp_path / "m.safetensors"]
    code, output, errors = check(capsys, *given)
    assert (code, output) == (2, "")
    assert "its classes are ellipse, " in errors
    assert "those of the data set cat, dog" in errors
