"""`frcnn predict`: what it writes, what it goes on after, what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from frcnn_jax import cli
from frcnn_jax.data.sources import open_source
from frcnn_jax.detector import Detector
from frcnn_jax.errors import UserError
from frcnn_jax.models.parameters import random_params
from frcnn_jax.predict import find_images
from tests.helpers import tiny

THRESHOLD = 0.14  # of its random parameters' scores some are above, some below


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(tiny.SPEC, random_params(tiny.MODEL, tiny.NUM_CLASSES, 0))


@pytest.fixture(scope="module")
def model(detector, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("model") / "detector.safetensors"
    detector.save(path)
    return str(path)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three images, one of them in a subfolder, and a text."""
    source = open_source(tiny.DATA, "test")
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for index, name in enumerate(("a.png", "b.PNG", "more/a.png")):
        image = Image.fromarray(source.read_image(index))
        image.save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    return tmp_path / "photos"


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))


def predict(*arguments) -> int:
    """Runs the command; returns its exit code."""
    try:
        cli.main(["predict", *map(str, arguments)])
    except SystemExit as stop:
        return stop.code
    return 0


def rows(out: Path) -> list[dict]:
    lines = (out / "predictions.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_every_image_of_a_folder_has_a_row_and_a_picture(
    model, detector, folder, tmp_path
):
    out = tmp_path / "out"
    options = ("--out", out, "--score-threshold", THRESHOLD, "--batch-size", 2)
    assert predict(model, folder, *options) == 0
    paths = [folder / name for name in ("a.png", "b.PNG", "more/a.png")]
    for row, path in zip(rows(out), paths, strict=True):
        found = detector(path, score_threshold=THRESHOLD)
        assert (row["path"], row["model"]) == (str(path), model)
        assert row["score_threshold"] == THRESHOLD
        assert [each["label"] for each in row["detections"]] == found.labels.tolist()
        boxes = [each["xyxy"] for each in row["detections"]]
        np.testing.assert_allclose(np.reshape(boxes, (-1, 4)), found.xyxy, atol=1e-3)
    names = sorted(path.name for path in (out / "pictures").iterdir())
    assert names == ["a-2.jpg", "a.jpg", "b.jpg"]
    assert Image.open(out / "pictures" / "a.jpg").width == 640  # enlarged


def test_pictures_of_earlier_calls_are_mentioned(model, folder, tmp_path, capsys):
    for name, is_mentioned in (("a.png", False), ("a.png", False), ("b.PNG", True)):
        assert predict(model, folder / name, "--out", tmp_path / "out") == 0
        printed = capsys.readouterr().out
        assert ("out/pictures, too: 1\n" in printed) == is_mentioned


def test_empty_images_have_rows_and_the_best_score_is_printed(
    model, detector, folder, tmp_path, capsys
):
    assert predict(model, folder, "--out", tmp_path, "--score-threshold", "0.99") == 0
    assert [row["detections"] for row in rows(tmp_path)] == [[], [], []]
    best = max(
        detector(folder / name, score_threshold=0.0).scores[0]
        for name in ("a.png", "b.PNG", "more/a.png")
    )
    printed = capsys.readouterr().out
    assert (
        f"no detection passes the threshold; the best one scores {best:.3f}" in printed
    )


def test_broken_image_is_named_at_the_end_and_the_rest_is_done(
    model, folder, tmp_path, capsys
):
    (folder / "aa.png").write_bytes((folder / "a.png").read_bytes()[:100])
    (folder / "empty.jpg").touch()
    options = ("--out", tmp_path / "out", "--no-pictures")
    assert predict(model, folder, *options) == 1
    assert len(rows(tmp_path / "out")) == 3
    assert not (tmp_path / "out" / "pictures").exists()
    errors = capsys.readouterr().err.splitlines()
    assert [("aa.png" in line, "empty.jpg" in line) for line in errors[-2:]] == [
        (True, False),
        (False, True),
    ]


def test_only_the_classes_that_are_asked_for_are_kept(model, folder, tmp_path):
    options = ("--score-threshold", THRESHOLD, "--no-pictures")
    predict(model, folder, "--out", tmp_path / "all", *options)
    names = {
        each["name"] for row in rows(tmp_path / "all") for each in row["detections"]
    }
    kept = sorted(names)[:1]
    predict(model, folder, "--out", tmp_path / "some", "--classes", *kept, *options)
    for row, some in zip(rows(tmp_path / "all"), rows(tmp_path / "some"), strict=True):
        expected = [each for each in row["detections"] if each["name"] in kept]
        assert some["detections"] == expected


def test_coco_file_is_a_data_set_of_the_same_boxes(model, folder, tmp_path):
    options = ("--score-threshold", THRESHOLD, "--coco", tmp_path / "new" / "coco.json")
    predict(model, folder, "--out", tmp_path, *options)
    coco = COCO(str(tmp_path / "new" / "coco.json"))
    for row, image in zip(rows(tmp_path), coco.loadImgs(coco.getImgIds()), strict=True):
        assert image["file_name"] == row["path"]
        annotations = coco.loadAnns(coco.getAnnIds([image["id"]]))
        for annotation, each in zip(annotations, row["detections"], strict=True):
            (category,) = coco.loadCats([annotation["category_id"]])
            assert (category["name"], annotation["score"]) == (
                each["name"],
                each["score"],
            )
            x, y, width, height = annotation["bbox"]
            corners = [x, y, x + width, y + height]
            np.testing.assert_allclose(corners, each["xyxy"], rtol=1e-5)


def test_files_patterns_and_folders_give_each_image_once(folder, tmp_path):
    patterns = [folder / "b.PNG", f"{folder}/*.png", f"{folder}/**/*.png", folder]
    found = find_images([str(each) for each in patterns], outside=tmp_path / "out")
    assert [str(path.relative_to(folder)) for path in found] == [
        "b.PNG",
        "a.png",
        "more/a.png",
    ]


def test_name_with_brackets_is_a_file_first(folder, tmp_path):
    path = (folder / "a.png").rename(folder / "a[1].png")
    assert find_images([str(path)], outside=tmp_path / "out") == [path]


def test_earlier_results_are_no_images(folder):
    (folder / "out" / "pictures").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "out" / "pictures" / "a.jpg")
    names = [
        path.name
        for path in find_images([str(folder)], outside=folder / "out" / "pictures")
    ]
    assert names == ["a.png", "b.PNG", "a.png"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.jpg", "no such file, folder or pattern: .*none.jpg"),
        ("*.webp", r"no such file, folder or pattern: .*\*.webp"),
        ("empty", "no image in .*empty"),
    ],
)
def test_pattern_without_an_image_is_refused(folder, name, message, tmp_path):
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        find_images([str(folder / name)], outside=tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--score-threshold", "2"), "score_threshold is 2.0"),
        (("--max-detections", "0"), "max_detections is 0"),
        (("--batch-size", "0"), "batch_size is 0"),
        (("--classes", "unicorn"), "--classes unicorn: the detector has"),
    ],
)
def test_mistake_is_one_line_and_leaves_nothing(
    model, folder, tmp_path, capsys, arguments, message
):
    assert predict(model, folder, "--out", tmp_path / "out", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_output_that_cannot_be_written_is_one_line(model, folder, tmp_path, capsys):
    (tmp_path / "out").write_text("a file")
    assert predict(model, folder, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "cannot write" in error
    assert error.count("\n") == 1


def test_other_classes_do_not_take_the_places_of_those_kept(
    model, detector, folder, tmp_path
):
    found = detector(folder / "a.png", score_threshold=0.0)
    rarer = next(name for name in found.names if name != found.names[0])
    options = ("--classes", rarer, "--max-detections", 1, "--score-threshold", 0)
    assert predict(model, folder / "a.png", "--out", tmp_path / "out", *options) == 0
    (row,) = rows(tmp_path / "out")
    (kept,) = row["detections"]
    assert kept["score"] == pytest.approx(found.scores[found.names.index(rarer)])


def test_one_image_by_several_paths_is_one_image(folder):
    patterns = [folder / "a.png", folder / "more" / ".." / "a.png", folder / "*.png"]
    assert find_images([str(p) for p in patterns], folder / "out") == [folder / "a.png"]


def test_folder_in_the_way_of_the_coco_file_is_found_at_once(
    model, folder, tmp_path, capsys
):
    options = ("--out", tmp_path / "out", "--coco", folder)
    assert predict(model, folder, *options) == 2
    assert f"{folder}: is a folder, expected a file" in capsys.readouterr().err
    assert not (tmp_path / "out" / "predictions.jsonl").exists()


def test_empty_name_is_not_the_current_folder(tmp_path):
    with pytest.raises(UserError, match="an image is ''"):
        find_images([""], tmp_path)
