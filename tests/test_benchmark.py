"""`frcnn benchmark`: a row for each canvas and batch size."""

import dataclasses

import pytest

from frcnn_jax.benchmark import benchmark
from frcnn_jax.config import Resizing
from frcnn_jax.detector import Detector
from frcnn_jax.errors import UserError
from frcnn_jax.models.parameters import random_params
from tests.helpers import tiny

CANVASES = ((40, 64), (64, 40))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    resizing = Resizing(shorter_side=40, longer_side=64, canvases=CANVASES)
    spec = dataclasses.replace(tiny.SPEC, resizing=resizing)
    path = tmp_path_factory.mktemp("model") / "detector.safetensors"
    Detector(spec, random_params(tiny.MODEL, tiny.NUM_CLASSES, 0)).save(path)
    return str(path)


@pytest.mark.slow
def test_every_canvas_and_batch_size_is_timed_and_printed(model, capsys):
    timings = benchmark(model, "latest", batch_sizes=[1, 2], repeats=3)
    measured = [(timing.canvas, timing.batch_size) for timing in timings]
    assert measured == [(canvas, size) for canvas in CANVASES for size in (1, 2)]
    for timing in timings:
        assert len(timing.seconds) == 3
        assert min(timing.seconds) > 0.0
        assert timing.memory > 2**20
    table = capsys.readouterr().out
    assert table.count("40 x 64") == table.count("64 x 40") == 2


@pytest.mark.parametrize(("sizes", "repeats"), [([1, 0], 1), ([1], 0)])
def test_impossible_option_is_refused(model, sizes, repeats):
    with pytest.raises(UserError, match="is 0, expected a positive number"):
        benchmark(model, "latest", batch_sizes=sizes, repeats=repeats)
