"""What was found in an image: selected, drawn, and in the forms that others read."""

import json
import sys

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from frcnn_jax.detections import Detections
from frcnn_jax.errors import UserError

IMAGE = np.full((480, 640, 3), 128, np.uint8)


@pytest.fixture
def found() -> Detections:
    return Detections(
        yxyx=np.array([[50, 100, 250, 400], [300, 10.1, 400, 90.3]], np.float32),
        scores=np.array([0.9, 1 / 3], np.float32),
        labels=np.array([1, 0], np.int32),
        class_names=("cat", "dog"),
        image_size=(480, 640),
        path="pets/a.jpg",
    )


def test_mask_indices_slice_and_index_select(found):
    assert found[found.scores > 0.5].names == ["dog"]
    assert found[[1, 0]].names == ["cat", "dog"]
    assert found[:0].names == []
    assert found[1].names == ["cat"]
    assert [one.names for one in found] == [["dog"], ["cat"]]
    assert found[1].path == found.path
    with pytest.raises(IndexError):
        found[np.array([True])]


def test_json_has_names_scores_and_corners_in_the_order_x_y(found):
    assert json.loads(found.to_json()) == {
        "path": "pets/a.jpg",
        "image_size": [480, 640],
        "detections": [
            {"label": 1, "name": "dog", "score": 0.9, "xyxy": [100, 50, 400, 250]},
            {
                "label": 0,
                "name": "cat",
                "score": 0.33333334,
                "xyxy": [10.1, 300, 90.3, 400],
            },
        ],
    }


def test_json_of_no_detections_is_an_empty_list(found):
    assert found[:0].to_dict()["detections"] == []


def test_json_keeps_every_bit(found):
    rows = json.loads(found.to_json())["detections"]
    np.testing.assert_array_equal(
        np.array([row["xyxy"] for row in rows], np.float32), found.xyxy
    )
    np.testing.assert_array_equal(
        np.array([row["score"] for row in rows], np.float32), found.scores
    )


def test_coco_evaluation_reads_the_results(found):
    ground_truth = COCO()
    ground_truth.dataset = {
        "info": {},
        "images": [{"id": 7, "height": 480, "width": 640}],
        "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}],
        "annotations": [],
    }
    ground_truth.createIndex()
    results = ground_truth.loadRes(found.to_coco(7, (17, 18)))
    first = results.anns[1]
    assert (first["category_id"], first["bbox"]) == (18, [100, 50, 300, 200])
    assert first["area"] == 60_000
    with pytest.raises(ValueError, match="expected one for each of 2 classes"):
        found.to_coco(7, (17,))


@pytest.mark.filterwarnings("ignore:OpenCV:UserWarning")
@pytest.mark.parametrize("count", [2, 0])
def test_supervision_gets_the_same_boxes(found, count):
    theirs = found[:count].to_supervision()
    assert len(theirs) == count
    np.testing.assert_array_equal(theirs.xyxy, found.xyxy[:count])
    np.testing.assert_array_equal(theirs.confidence, found.scores[:count])
    np.testing.assert_array_equal(theirs.class_id, found.labels[:count])
    assert list(theirs["class_name"]) == found.names[:count]


def test_missing_supervision_is_named(found, monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UserError, match="pip install supervision"):
        found.to_supervision()


def test_drawing_changes_the_edges_of_the_boxes_only(found):
    drawn = np.asarray(found.draw(IMAGE)).astype(int)
    changed = (drawn != IMAGE).any(axis=2)
    assert changed[50:250, 100].all()
    assert changed[249, 100:400].all()
    assert not changed[100:200, 150:350].any()  # inside
    assert not changed[:20, 450:].any()  # far outside


def test_picture_is_read_again_from_its_path(found, tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    here = Detections(**vars(found) | {"path": str(tmp_path / "a.png")})
    here.save(tmp_path / "drawn.png")
    drawn = np.asarray(Image.open(tmp_path / "drawn.png"))
    np.testing.assert_array_equal(drawn, np.asarray(found.draw(IMAGE)))


def test_drawing_refuses_another_or_no_image(found):
    with pytest.raises(ValueError, match=r"\(10, 20\) pixels .* expected \(480, 640\)"):
        found.draw(np.zeros((10, 20, 3), np.uint8))
    nowhere = Detections(**vars(found) | {"path": None})
    with pytest.raises(ValueError, match="no path, expected an image"):
        nowhere.draw()


def test_picture_that_cannot_be_written_is_refused(found, tmp_path):
    with pytest.raises(UserError, match=r"drawn\.nonsense: expected a picture"):
        found.save(tmp_path / "drawn.nonsense", IMAGE)
    with pytest.raises(UserError, match=r"cannot write .*none/drawn\.png"):
        found.save(tmp_path / "none" / "drawn.png", IMAGE)
