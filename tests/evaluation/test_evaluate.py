"""Evaluation: one pass over a split, in order; its figures and its files."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from frcnn_jax import distributed, ops
from frcnn_jax.config import Config, DataConfig
from frcnn_jax.data.loader import evaluation_batches
from frcnn_jax.data.records import ImageDetections
from frcnn_jax.data.sources import open_source
from frcnn_jax.detector import Detector, make_detect_step
from frcnn_jax.errors import UserError
from frcnn_jax.evaluation import evaluate, evaluated_split, report, voc
from frcnn_jax.evaluation.matching import box_iou
from frcnn_jax.models.faster_rcnn import image_keys
from frcnn_jax.models.parameters import abstract_detector, random_params
from frcnn_jax.weights.checkpoints import BEST_METRIC
from tests.helpers import splits, tiny
from tests.helpers.run_files import FIGURES
from tests.helpers.sized import SizedSource

SIZES = [(16, 32), (32, 16), (16, 32), (32, 16), (16, 16), (32, 16), (16, 32)]
CONFIG = Config(
    batch_size=2,
    data=DataConfig(
        shorter_side=16,
        longer_side=32,
        canvases=((32, 16), (16, 16), (16, 32)),
        max_objects=1,
    ),
)

NOTHING = ImageDetections(
    np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32)
)


def detect_brightness(params, batch):
    """Finds one object in each image, with the brightest pixel as its score."""
    scores = jnp.asarray(batch.images).max(axis=(1, 2, 3))[:, None]
    boxes = jnp.concatenate([batch.image_sizes, batch.image_sizes], 1)[:, None]
    mask = jnp.ones(scores.shape, bool)
    found = ops.Detections(boxes, scores, jnp.zeros(scores.shape, int), mask)
    return found, batch.indices, batch.image_mask


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_results_come_in_the_order_of_the_source(batch_size):
    source, mesh = SizedSource(SIZES), distributed.make_mesh()
    config = dataclasses.replace(CONFIG, batch_size=batch_size)
    found = evaluate._run_over_split(detect_brightness, {}, source, config, mesh)
    # The images of this source are as bright as their index + 1.
    assert [int(image.scores[0]) for image in found] == [1, 2, 3, 4, 5, 6, 7]
    for image, size in zip(found, SIZES, strict=True):
        np.testing.assert_array_equal(image.boxes, [[*size, *size]])


@pytest.mark.slow
def test_one_pass_gives_the_losses_and_the_detections():
    graphdef, _ = abstract_detector(tiny.MODEL, tiny.NUM_CLASSES)
    params = random_params(tiny.MODEL, tiny.NUM_CLASSES, 0)
    source, mesh = open_source(tiny.DATA, "test"), distributed.make_mesh()
    config = dataclasses.replace(tiny.CONFIG, seed=5)
    figures, pictures = evaluate.make_validate(graphdef, source, config, mesh)(params)
    assert len(pictures) == evaluate.NUM_VALIDATION_PICTURES
    assert {max(picture.size) for picture in pictures.values()} == {640}

    step = make_detect_step(graphdef, mesh)
    found = evaluate._run_over_split(step, params, source, config, mesh)
    detections = [evaluate._to_image_detections(each) for each in found]
    expected = voc.average_precisions(detections, source.annotations, 6)
    assert figures.pop(BEST_METRIC) == expected.voc07_map

    @jax.jit
    def losses(params, batch):
        keys = image_keys(jax.random.key(5), batch.indices)
        return tiny.losses(nnx.merge(graphdef, params), keys, batch)[0]

    batches = evaluation_batches(source, config.data, batch_size=3)
    per_batch = [losses(params, jax.tree.map(jnp.asarray, each)) for each in batches]
    rows = jax.tree.map(lambda *x: np.concatenate(x), *per_batch)
    columns = rows._asdict() | {"loss": rows.total}
    expected = {f"validation_{name}": x.mean() for name, x in columns.items()}
    assert figures == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_validation_losses_are_without_dropout():
    source, mesh = open_source(tiny.DATA, "test"), distributed.make_mesh()
    figures = []
    for dropout in (0.0, 0.5):
        model = dataclasses.replace(tiny.MODEL, dropout=dropout)
        graphdef, _ = abstract_detector(model, tiny.NUM_CLASSES)
        validate = evaluate.make_validate(graphdef, source, tiny.CONFIG, mesh)
        params = random_params(tiny.MODEL, tiny.NUM_CLASSES, 0)
        figures.append(validate(params).figures)
    assert figures[0] == figures[1]


def test_images_of_one_name_have_a_picture_each(tmp_path):
    source = SizedSource([(16, 16), (16, 16)])
    source.annotations = [
        dataclasses.replace(each, image_id=f"camera{index}/1.jpg")
        for index, each in enumerate(source.annotations)
    ]
    evaluate._draw_pictures([NOTHING, NOTHING], source, tmp_path / "pictures")
    pictures = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert pictures == {"1.jpg.png", "1.jpg-2.png"}


@pytest.fixture
def evaluate_as(monkeypatch, tmp_path):
    """Evaluates nothing, as a split and a step; returns the files it writes."""
    detector, source = Detector(tiny.SPEC, {}, "a.pth"), SizedSource(SIZES)
    evaluated = splits.evaluated(
        [NOTHING] * len(SIZES), source.annotations, source.class_names
    )
    monkeypatch.setattr(evaluate, "_detect", lambda *_: evaluated)

    def run(**options) -> tuple[dict, set[str]]:
        before = {path.name for path in tmp_path.iterdir()}
        result = evaluate.evaluate(detector, source, CONFIG, tmp_path, **options)
        return result, {path.name for path in tmp_path.iterdir()} - before

    return run


def test_evaluation_says_what_was_evaluated(evaluate_as):
    evaluation, _ = evaluate_as()
    assert evaluation["split"] == CONFIG.data.test_split == "test"
    assert evaluation["num_images"] == len(SIZES)
    assert (evaluation["step"], evaluation["detector"]) == (None, "a.pth")
    assert evaluation["detection"] == {
        "score_threshold": 0.05,
        "iou_threshold": 0.3,
        "max_detections": 5,
    }
    evaluation, _ = evaluate_as(split="train", step=60)
    assert evaluation["split"] == "train"
    assert (evaluation["step"], evaluation["detector"]) == (60, "checkpoints/60")


def test_nothing_is_evaluated_where_the_figures_cannot_be_written(
    evaluate_as, tmp_path, monkeypatch
):
    (tmp_path / "evaluation.json").mkdir()
    monkeypatch.delattr(evaluate, "_detect")
    with pytest.raises(UserError, match=r"evaluation\.json: is a folder"):
        evaluate_as()


@pytest.mark.parametrize(
    ("split", "step", "suffix"),
    [
        ("test", 100, ""),
        (None, 100, ""),
        ("train", 100, "-train"),
        ("test", 60, "-step60"),
        ("train", 60, "-train-step60"),
        ("test", None, "-pretrained"),
        ("A/train+B/train", 100, "-A%2Ftrain+B%2Ftrain"),
    ],
)
def test_only_the_test_split_at_the_last_step_takes_the_plain_names(
    split, step, suffix, evaluate_as, tmp_path
):
    for saved in ("60", "100"):
        (tmp_path / "checkpoints" / saved).mkdir(parents=True)
    _, files = evaluate_as(split=split, step=step)
    names = {f"evaluation{suffix}.json", f"evaluation{suffix}.npz"}
    assert files == names | {f"pictures{suffix}"}


def test_detector_of_no_run_takes_the_plain_names_in_a_directory_of_its_own(
    evaluate_as,
):
    _, files = evaluate_as(split="test", step=None)
    assert files == {"evaluation.json", "evaluation.npz", "pictures"}


@pytest.mark.slow
def test_figures_table_and_pictures_are_written(tmp_path, capsys):
    detector = Detector(
        tiny.SPEC, random_params(tiny.MODEL, tiny.NUM_CLASSES, 0), "random"
    )
    source = open_source(tiny.DATA, "test")
    evaluation = evaluate.evaluate(detector, source, tiny.CONFIG, tmp_path)
    assert json.loads((tmp_path / "evaluation.json").read_text()) == evaluation
    assert {*FIGURES, "fingerprints"} < set(evaluation)
    assert tuple(evaluation["per_class"]) == source.class_names

    split = evaluated_split.load(tmp_path / "evaluation.npz")
    assert report.to_json(split).items() <= evaluation.items()
    found = detector(source.read_image(0), score_threshold=0.05, max_detections=5)
    np.testing.assert_allclose(split.detections[0].boxes, found.yxyx, atol=1e-3)
    np.testing.assert_allclose(split.detections[0].scores, found.scores, atol=1e-5)

    names = [f"{Path(each.image_id).name}.png" for each in source.annotations]
    pictures = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert pictures == sorted(names[: evaluate.NUM_PICTURES])
    assert_fits_proposals(detector, source, split)
    table = capsys.readouterr().out
    assert all(name in table for name in (*source.class_names, "all", "COCO AP"))


def assert_fits_proposals(detector, source, split):
    """Compares with the anchors and proposals of the first image."""
    graphdef, _ = abstract_detector(detector.spec.model, tiny.NUM_CLASSES)
    model = nnx.merge(graphdef, detector.params)
    batch = next(evaluation_batches(source, tiny.CONFIG.data, batch_size=1))
    outputs = jax.jit(lambda *inputs: model(*inputs))(
        batch.images, batch.image_sizes, batch.scales
    )
    proposals = model.propose(outputs)
    boxes = batch.boxes[0][batch.box_mask[0]]
    found = np.asarray(proposals.boxes[0])[np.asarray(proposals.mask[0])]
    assert len(found) <= 10  # as many as the config keeps
    num_objects = len(boxes)
    np.testing.assert_allclose(
        split.proposal_iou[-1, :num_objects],
        box_iou(found, boxes).max(axis=0),
        atol=1e-3,
    )
    anchors = ops.grid_anchors((3, 4), ops.base_anchors((1.0, 2.0)))  # of 56 x 64
    inside = np.asarray(
        (anchors[:, :2] >= 0).all(1) & (anchors[:, 2] <= 56) & (anchors[:, 3] <= 64)
    )
    iou = box_iou(np.asarray(anchors)[inside], boxes).max(axis=0)
    np.testing.assert_allclose(split.anchor_iou[:num_objects], iou, atol=1e-5)
    np.testing.assert_allclose(split.scale_iou[:, :2].max(1), split.anchor_iou)
