"""A detector in ONNX finds the same objects by ONNX Runtime."""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from frcnn_jax import cli, ops
from frcnn_jax.config import Resizing
from frcnn_jax.data import transforms
from frcnn_jax.data.sources import open_source
from frcnn_jax.detector import Detector
from frcnn_jax.errors import UserError
from frcnn_jax.export import export_onnx, load_exported
from frcnn_jax.export.onnx import as_on_cpu
from frcnn_jax.models.parameters import flatten, random_params
from tests.helpers import containers, tiny

REASON = "needs jax2onnx: the extra onnx, in an environment of its own"
# So large that no two proposals have the same cells: their scores would tie.
RESIZING = Resizing(shorter_side=96, longer_side=128, canvases=((96, 128), (128, 96)))


@pytest.fixture(scope="module", params=["max", "align"])
def detector(request) -> Detector:
    model = dataclasses.replace(tiny.MODEL, pooling=request.param)
    spec = dataclasses.replace(tiny.SPEC, model=model, resizing=RESIZING)
    return Detector(spec, random_params(model, tiny.NUM_CLASSES, 0))


@pytest.fixture(scope="module")
def folder(detector, tmp_path_factory) -> Path:
    pytest.importorskip("jax2onnx", reason=REASON)
    saved = tmp_path_factory.mktemp("saved") / "detector.safetensors"
    detector.save(saved)
    folder = tmp_path_factory.mktemp("onnx")
    cli.main(["export", str(saved), str(folder), "--format", "onnx"])
    return folder


def run(folder: Path, picture: np.ndarray) -> dict[str, np.ndarray]:
    """Detects by ONNX Runtime; returns what is no padding."""
    import onnxruntime

    resized, _, scale = transforms.resize(
        picture, np.zeros((0, 4), np.float32), shorter_side=96, longer_side=128
    )
    index = transforms.choose_canvas(resized.shape[:2], RESIZING.canvases)
    canvas = RESIZING.canvases[index]
    session = onnxruntime.InferenceSession(
        folder / f"{canvas[0]}x{canvas[1]}.onnx", providers=["CPUExecutionProvider"]
    )
    arguments = {
        "images": transforms.pad_to(resized, canvas)[None],
        "image_sizes": np.array([resized.shape[:2]], np.float32),
        "scales": scale[None],
    }
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(None, arguments), strict=True))
    return {name: array[found["mask"]] for name, array in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize("size", [(60, 80), (200, 150), (40, 128), (128, 96)])
def test_onnx_runtime_finds_the_same(detector, folder, size):
    data = dataclasses.replace(tiny.DATA, shapes_size=size, num_test_images=1)
    picture = open_source(data, "test").read_image(0)
    expected, found = tiny.detect_all(detector, picture), run(folder, picture)
    assert len(expected) > 0
    np.testing.assert_array_equal(found["labels"], expected.labels)
    np.testing.assert_allclose(found["boxes"], expected.yxyx, rtol=0, atol=0.01)
    np.testing.assert_allclose(found["scores"], expected.scores, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_onnx_functions_share_the_parameters_in_a_file_of_ours(detector, folder):
    for file in folder.glob("*.onnx"):
        assert file.stat().st_size < 2_000_000
    file = folder / "parameters.safetensors"
    for again in Detector.load(file), Detector.load(folder):
        assert again.spec == detector.spec
        containers.assert_same(flatten(again.params), flatten(detector.params))


@pytest.mark.slow
def test_onnx_description_has_what_a_program_needs(folder):
    description = json.loads((folder / "detector.json").read_text())
    assert description["language"] == "ONNX"
    assert list(description["arguments"]) == ["images", "image_sizes", "scales"]
    with pytest.raises(UserError, match="holds ONNX, expected StableHLO"):
        load_exported(folder)


def test_no_choice_between_platforms_is_left_to_the_converter():
    def select(boxes, scores):
        return ops.nms(boxes, scores, iou_threshold=0.5, max_outputs=3)

    arguments = jnp.array([[0.0, 0, 9, 9], [0, 1, 9, 9], [5, 5, 8, 8]]), jnp.arange(3.0)
    traced = jax.make_jaxpr(select)(*arguments)
    assert "platform_index" in str(traced)
    on_cpu = as_on_cpu(traced)
    assert "platform_index" not in str(jax.make_jaxpr(on_cpu)(*arguments))
    indices, mask = on_cpu(*arguments)
    assert indices[mask].tolist() == [2, 1]


def test_missing_converter_is_named_and_nothing_written(
    detector, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(UserError, match=r"needs jax2onnx: .*frcnn_jax\[onnx\]"):
        export_onnx(detector, tmp_path / "export")
    assert list(tmp_path.iterdir()) == []
