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
from frcnn_jax.data.sources import open_source
from frcnn_jax.detector import Detector, make_detect_step
from frcnn_jax.evaluation import evaluate, voc
from frcnn_jax.models.faster_rcnn import image_keys
from frcnn_jax.models.parameters import abstract_detector, random_params
from frcnn_jax.weights.checkpoints import BEST_METRIC
from tests.helpers import tiny
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
    figures = evaluate.make_validate(graphdef, source, config, mesh)(params)

    step = make_detect_step(graphdef, mesh)
    found = evaluate._run_over_split(step, params, source, config, mesh)
    detections = [evaluate._to_image_detections(each) for each in found]
    expected = voc.average_precisions(detections, source.annotations, 6)
    assert figures.pop(BEST_METRIC) == expected.voc07_map

    @jax.jit
    def losses(params, batch):
        keys = image_keys(jax.random.key(5), batch.indices)
        return tiny.losses(nnx.merge(graphdef, params), keys, batch)[0]

    batches = evaluate.evaluation_batches(source, config.data, batch_size=3)
    per_batch = [losses(params, jax.tree.map(jnp.asarray, each)) for each in batches]
    rows = jax.tree.map(lambda *x: np.concatenate(x), *per_batch)
    columns = rows._asdict() | {"loss": rows.total}
    expected = {f"validation_{name}": x.mean() for name, x in columns.items()}
    assert figures == pytest.approx(expected, rel=1e-5)


def test_figures_table_and_pictures_are_written(tmp_path, capsys):
    detector = Detector(
        tiny.SPEC, random_params(tiny.MODEL, tiny.NUM_CLASSES, 0), "random"
    )
    source = open_source(tiny.DATA, "test")
    evaluation = evaluate.evaluate(detector, source, tiny.CONFIG, tmp_path)
    assert json.loads((tmp_path / "evaluation.json").read_text()) == evaluation
    figures = {"voc07_map", "area_map", "coco", "per_class"}
    assert set(evaluation) == {*figures, "fingerprints"}
    assert tuple(evaluation["per_class"]) == source.class_names
    names = [f"{Path(each.image_id).name}.png" for each in source.annotations]
    pictures = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert pictures == sorted(names[: evaluate.NUM_PICTURES])
    table = capsys.readouterr().out
    assert all(name in table for name in (*source.class_names, "all", "COCO AP"))
