"""A trained detector: what it loads, what it finds, what it refuses."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy
from PIL import Image

import frcnn_jax
from frcnn_jax import ops
from frcnn_jax.config import DetectionConfig, Resizing
from frcnn_jax.config.detector_spec import make_spec
from frcnn_jax.data import transforms
from frcnn_jax.data.loader import evaluation_batches
from frcnn_jax.data.sources import open_source
from frcnn_jax.detections import Detections
from frcnn_jax.detector import Detector, detect_in_original_pixels
from frcnn_jax.errors import UserError
from frcnn_jax.evaluation import evaluate
from frcnn_jax.models.parameters import flatten, random_params
from frcnn_jax.training import checkpoint
from frcnn_jax.training.step import init_state
from frcnn_jax.weights.checkpoints import BEST_METRIC
from tests.helpers import containers, foreign, tiny

# What the evaluation reports.
ALL = {
    "score_threshold": tiny.MODEL.detection.score_threshold,
    "max_detections": tiny.MODEL.detection.max_detections,
}


@pytest.fixture(scope="module")
def params():
    return random_params(tiny.MODEL, tiny.NUM_CLASSES, 0)


@pytest.fixture(scope="module")
def run(params, tmp_path_factory) -> Path:
    """A run directory with two validated checkpoints; the first one was better.

    The parameters of step 2 are twice those of step 1.
    """
    work_dir = tmp_path_factory.mktemp("run")
    state = init_state(params, optax.sgd(0.1), seed=0, has_ema=False)
    with checkpoint.open_checkpoints(work_dir, max_to_keep=2) as checkpoints:
        for step, value in ((1, 0.5), (2, 0.25)):
            state = state._replace(
                step=jnp.int32(step), params=multiplied(params, float(step))
            )
            metrics = {BEST_METRIC: value}
            checkpoint.save(checkpoints, state, tiny.SPEC, tiny.PROGRESS, metrics)
    return work_dir


@pytest.fixture(scope="module")
def detector(params) -> Detector:
    return Detector(tiny.SPEC, params)


@pytest.fixture(scope="module")
def source():
    return open_source(tiny.DATA, "test")


@pytest.fixture(scope="module")
def picture(source) -> np.ndarray:
    return source.read_image(0)


def multiplied(params, factor: float):
    return {
        module: {
            layer: {kind: factor * array for kind, array in arrays.items()}
            for layer, arrays in layers.items()
        }
        for module, layers in params.items()
    }


def assert_same_parameters(detector: Detector, params) -> None:
    containers.assert_same(flatten(detector.params), flatten(params))


def assert_same_detections(found: Detections, expected: Detections) -> None:
    np.testing.assert_array_equal(found.yxyx, expected.yxyx)
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.class_names == expected.class_names
    assert found.image_size == expected.image_size


def evaluated(detector: Detector, source, batch_size: int, folder: Path):
    """What `evaluate` compares with the ground truth, image by image."""
    config = dataclasses.replace(tiny.CONFIG, batch_size=batch_size)
    compare = evaluate.voc.average_precisions
    with mock.patch.object(evaluate.voc, "average_precisions", wraps=compare) as spy:
        evaluate.evaluate(detector, source, config, folder)
    return spy.call_args.args[0]


def test_run_directory_gives_its_latest_checkpoint(run, params):
    detector = Detector.load(run)
    assert detector.spec == tiny.SPEC
    assert detector.source == str(run / "checkpoints" / "2")
    assert_same_parameters(detector, multiplied(params, 2.0))


@pytest.mark.parametrize("step", [1, "best"])
def test_run_directory_gives_the_step_that_is_asked_for(run, params, step):
    assert_same_parameters(Detector.load(str(run), step), params)


def test_run_directory_may_be_given_relative_to_here(run, params, monkeypatch):
    monkeypatch.chdir(run.parent)
    assert_same_parameters(Detector.load(run.name, 1), params)


def test_one_checkpoint_of_a_run_is_enough(run, params):
    assert_same_parameters(Detector.load(run / "checkpoints" / "1"), params)


def test_moving_average_is_loaded_if_the_run_keeps_one(params, tmp_path):
    state = init_state(params, optax.sgd(0.1), seed=0, has_ema=True)
    tiny.save_checkpoint(tmp_path, state._replace(ema=multiplied(params, 0.5)))
    assert_same_parameters(Detector.load(tmp_path), multiplied(params, 0.5))


def test_saved_detector_is_loaded_bit_for_bit(detector, tmp_path):
    path = tmp_path / "detector.safetensors"
    detector.save(path)
    again = Detector.load(path)
    assert again.spec == detector.spec
    assert again.class_names == tiny.SPEC.class_names
    assert_same_parameters(again, detector.params)


def test_loaded_detector_finds_what_the_saved_one_finds(detector, picture, tmp_path):
    detector.save(tmp_path / "detector.safetensors")
    again = Detector.load(str(tmp_path / "detector.safetensors"))
    assert_same_detections(again(picture, **ALL), detector(picture, **ALL))


def test_path_pil_image_and_array_give_the_same_detections(detector, picture, tmp_path):
    image = Image.fromarray(picture)
    image.save(tmp_path / "picture.png")
    expected = detector(picture, **ALL)
    assert len(expected) > 0
    assert expected.path is None
    assert_same_detections(detector(image, **ALL), expected)
    for path in (tmp_path / "picture.png", str(tmp_path / "picture.png")):
        found = detector(path, **ALL)
        assert_same_detections(found, expected)
        assert found.path == str(path)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1"])
def test_image_of_another_mode_becomes_rgb(detector, picture, mode, tmp_path):
    image = Image.fromarray(picture).convert(mode)
    image.save(tmp_path / "picture.png")
    expected = detector(np.asarray(image.convert("RGB")), **ALL)
    assert_same_detections(detector(image, **ALL), expected)
    assert_same_detections(detector(tmp_path / "picture.png", **ALL), expected)


def test_detections_have_their_fields(detector, picture):
    found = detector(picture, **ALL)
    num_found = len(found)
    assert 0 < num_found <= ALL["max_detections"]
    assert (found.yxyx.dtype, found.yxyx.shape) == (np.float32, (num_found, 4))
    assert (found.scores.dtype, found.scores.shape) == (np.float32, (num_found,))
    assert (found.labels.dtype, found.labels.shape) == (np.int32, (num_found,))
    assert found.image_size == picture.shape[:2]
    assert (np.diff(found.scores) <= 0.0).all()
    assert found.names == [tiny.SPEC.class_names[label] for label in found.labels]
    y_min, x_min, y_max, x_max = found.yxyx.T
    np.testing.assert_array_equal(found.xyxy.T, [x_min, y_min, x_max, y_max])


def test_image_without_detections_gives_empty_arrays(detector, picture):
    found = detector(picture, score_threshold=1.0)
    assert len(found) == 0
    assert found.names == []
    assert found.yxyx.shape == found.xyxy.shape == (0, 4)


def test_detections_are_those_of_the_evaluation_to_the_bit(detector, source, tmp_path):
    per_image = evaluated(detector, source, 1, tmp_path)
    assert len(per_image) == tiny.DATA.num_test_images
    for index, expected in enumerate(per_image):
        found = detector(source.read_image(index), **ALL)
        np.testing.assert_array_equal(found.yxyx, expected.boxes)
        np.testing.assert_array_equal(found.scores, expected.scores)
        np.testing.assert_array_equal(found.labels, expected.labels)


def test_detections_are_those_of_an_evaluation_in_batches(detector, source, tmp_path):
    for index, expected in enumerate(evaluated(detector, source, 2, tmp_path)):
        found = detector(source.read_image(index), **ALL)
        np.testing.assert_allclose(found.yxyx, expected.boxes, atol=1e-3)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
        np.testing.assert_array_equal(found.labels, expected.labels)


@pytest.mark.parametrize("size", [(100, 70), (28, 32)], ids=["larger", "smaller"])
def test_boxes_are_in_pixels_of_an_image_of_any_size(detector, size, tmp_path):
    data = dataclasses.replace(tiny.DATA, shapes_size=size, num_test_images=1)
    source = open_source(data, "test")
    (expected,) = evaluated(detector, source, 1, tmp_path)
    found = detector(source.read_image(0), **ALL)
    assert found.image_size == size
    np.testing.assert_array_equal(found.yxyx, expected.boxes)
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert (found.yxyx >= 0.0).all()
    assert (found.yxyx <= np.float32([*size, *size])).all()
    # A box in pixels of the resized image would not reach this far, or too far.
    assert found.yxyx.max() > 0.5 * max(size)


def test_no_box_reaches_beyond_the_original_image_by_a_rounding():
    sizes = np.random.default_rng(0).integers(1, 5000, (4000, 2))
    resized = [
        transforms.resized_size(size, shorter_side=600, longer_side=1000)
        for size in sizes.tolist()
    ]
    scales = (np.array(resized) / sizes).astype(np.float32)
    resized = np.array(resized, np.float32)
    boxes = np.stack([np.zeros_like(resized), resized], 1).reshape(-1, 1, 4)
    found = ops.Detections(jnp.asarray(boxes), *[None] * 3)
    model = SimpleNamespace(detect=lambda _: found)
    outputs = SimpleNamespace(image_sizes=resized, scales=jnp.asarray(scales))

    clipped = np.asarray(detect_in_original_pixels(model, outputs).boxes)[:, 0]
    quotients = np.asarray(resized / scales)
    assert (quotients > sizes).any()  # else this tests nothing
    np.testing.assert_array_equal(clipped[:, :2], 0.0)
    np.testing.assert_array_equal(clipped[:, 2:], np.minimum(quotients, sizes))


def test_image_is_stretched_as_the_loader_stretches_it(params):
    data = dataclasses.replace(
        tiny.DATA, shapes_size=(40, 90), num_test_images=1, keep_aspect_ratio=False
    )
    source = open_source(data, "test")
    detector = Detector(make_spec(tiny.MODEL, data, tiny.SPEC.class_names), params)
    example = detector._prepare(source.read_image(0)).example
    (expected,) = evaluation_batches(source, data, batch_size=1)
    np.testing.assert_array_equal(example.image_sizes, [56, 64])
    for name in ("images", "image_sizes", "scales"):
        np.testing.assert_array_equal(
            getattr(example, name), getattr(expected, name)[0]
        )


def test_missing_image_is_refused_with_its_path(detector, tmp_path):
    path = tmp_path / "none.jpg"
    with pytest.raises(UserError, match=r"cannot read image .*none\.jpg"):
        detector(path)


def test_file_that_is_no_image_is_refused(detector, tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(UserError, match=r"cannot read image .*text\.jpg"):
        detector(tmp_path / "text.jpg")


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((56, 64, 3), np.float32),
        np.zeros((56, 64), np.uint8),
        np.zeros((56, 64, 4), np.uint8),
        np.zeros((1, 56, 64, 3), np.uint8),
    ],
    ids=["float", "gray", "rgba", "batch"],
)
def test_array_of_another_type_or_shape_is_refused(detector, image):
    with pytest.raises(ValueError, match=r"expected uint8 \(height, width, 3\)"):
        detector(image)


def test_higher_threshold_and_fewer_detections_keep_the_best(detector, picture):
    everything = detector(picture, **ALL)
    middle = float(everything.scores[2])
    better = detector(picture, score_threshold=middle, max_detections=5)
    assert_same_detections(better, everything[everything.scores > middle])
    assert_same_detections(detector(picture, **ALL | {"max_detections": 2}), better)


def test_lower_threshold_and_more_detections_than_trained_for(detector, picture):
    options = {"score_threshold": 0.01, "max_detections": 50}
    model = dataclasses.replace(tiny.SPEC.model, detection=DetectionConfig(**options))
    trained_so = Detector(dataclasses.replace(tiny.SPEC, model=model), detector.params)
    found = detector(picture, **options)
    assert len(found) > ALL["max_detections"]
    assert_same_detections(found, trained_so(picture, **options))


def test_list_gives_a_list_in_its_order(detector, source):
    pictures = [source.read_image(index) for index in range(5)]
    found = detector(pictures, **ALL)
    assert isinstance(found, list)
    for one, image in zip(found, pictures, strict=True):
        assert_same_detections(one, detector(image, **ALL))
    assert detector([]) == []


def test_batches_of_mixed_sizes_keep_the_order(detector):
    upright, flat = (
        [np.random.default_rng(n).integers(0, 256, (*size, 3), np.uint8) for n in seeds]
        for size, seeds in (((64, 40), range(3)), ((40, 64), range(3, 9)))
    )
    two_canvases = ((40, 64), (64, 40))
    resizing = Resizing(shorter_side=40, longer_side=64, canvases=two_canvases)
    detector = Detector(
        dataclasses.replace(tiny.SPEC, resizing=resizing), detector.params
    )
    # One of a rare canvas first, which must neither be lost nor held for ever.
    pictures = [upright[0], *flat, *upright[1:]]
    found = detector(pictures, batch_size=2, **ALL)
    for one, image in zip(found, pictures, strict=True):
        expected = detector(image, **ALL)
        assert one.image_size == image.shape[:2]
        np.testing.assert_array_equal(one.labels, expected.labels)
        np.testing.assert_allclose(one.yxyx, expected.yxyx, atol=1e-3)
        np.testing.assert_allclose(one.scores, expected.scores, atol=1e-5)


def test_stream_reads_no_further_than_it_needs(detector, picture):
    def pictures():
        for number in range(1000):
            read.append(number)
            yield picture

    read = []
    found = detector.stream(pictures(), batch_size=2, **ALL)
    assert read == []
    next(found)
    assert read == [0, 1]


def test_rare_canvas_waits_for_a_few_batches_only(detector):
    flat, upright = np.zeros((40, 64, 3), np.uint8), np.zeros((64, 40, 3), np.uint8)
    resizing = Resizing(shorter_side=40, longer_side=64, canvases=((40, 64), (64, 40)))
    detector = Detector(
        dataclasses.replace(tiny.SPEC, resizing=resizing), detector.params
    )
    num_read = 0

    def pictures():
        nonlocal num_read
        for image in [upright, *[flat] * 100]:
            num_read += 1
            yield image

    assert next(detector.stream(pictures(), batch_size=2)).image_size == (64, 40)
    assert num_read <= 10


def test_nothing_is_compiled_after_the_first_picture_of_a_canvas(
    detector, picture, compilations
):
    detector(picture, **ALL)
    compilations.clear()
    for size in [(56, 64), (30, 31), (200, 180)]:
        detector(np.zeros((*size, 3), np.uint8), **ALL)
    detector([picture] * 3, score_threshold=0.9, max_detections=3)
    assert not compilations


def test_portrait_takes_the_landscape_canvas_on_its_side(params):
    landscape = Resizing(shorter_side=40, longer_side=64, canvases=((40, 64),))
    detector = Detector(dataclasses.replace(tiny.SPEC, resizing=landscape), params)
    image = np.random.default_rng(0).integers(0, 256, (64, 40, 3), np.uint8)
    square = Resizing(shorter_side=40, longer_side=64, canvases=((64, 64),))
    same = Detector(dataclasses.replace(tiny.SPEC, resizing=square), params)
    found, expected = detector(image, **ALL), same(image, **ALL)
    assert found.image_size == (64, 40)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.yxyx, expected.yxyx, atol=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1)])
def test_image_of_a_pixel_or_a_line_has_detections_inside_it(detector, size):
    found = detector(np.zeros((*size, 3), np.uint8), score_threshold=0.0)
    assert found.image_size == size
    assert (found.yxyx <= np.float32([*size, *size])).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score_threshold": 1.5}, "score_threshold is 1.5"),
        ({"score_threshold": float("nan")}, "score_threshold is nan"),
        ({"score_threshold": "0.5"}, "score_threshold is '0.5'"),
        ({"max_detections": 2.5}, r"max_detections is 2\.5, expected a positive whole"),
        ({"max_detections": 0}, "max_detections is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_impossible_option_is_refused(detector, picture, options, message):
    with pytest.raises(UserError, match=message):
        detector(picture, **options)


def test_missing_file_and_empty_folder_are_refused(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        Detector.load(tmp_path / "none.safetensors")
    with pytest.raises(UserError, match="no checkpoint there yet"):
        Detector.load(tmp_path)


def test_step_that_the_run_does_not_have_is_refused(run):
    with pytest.raises(UserError, match="no checkpoint 7, only 1, 2"):
        Detector.load(run, 7)


def test_vgg16_without_a_detector_is_refused(tmp_path):
    path = tmp_path / "vgg16.safetensors"
    containers.write_safetensors(path, foreign.torchvision())
    message = containers.refusal(path, Detector.load)
    assert "is not a detector: it has backbone weights only" in message


def test_detector_of_another_project_needs_class_names(tmp_path):
    path = tmp_path / "foreign.safetensors"
    arrays = foreign.chenyuntc()
    scores = arrays["rpn.score.weight"], arrays["rpn.loc.weight"]
    # Three scales, as that project has by default.
    for name, array in zip(("rpn.score", "rpn.loc"), scores, strict=True):
        weight = np.concatenate([array, array[: len(array) // 2]])
        arrays |= {f"{name}.weight": weight, f"{name}.bias": weight[:, 0, 0, 0]}
    containers.write_safetensors(path, arrays)
    message = containers.refusal(path, Detector.load)
    assert "frcnn import-weights --class-names" in message


def test_file_of_an_earlier_version_is_refused_with_what_to_do(detector, tmp_path):
    path = tmp_path / "detector.safetensors"
    detector.save(path)
    with safetensors.safe_open(path, "numpy") as file:
        metadata = file.metadata()
    del metadata["detector"]
    safetensors.numpy.save_file(flatten(detector.params), path, metadata)
    assert "export the detector again" in containers.refusal(path, Detector.load)


@pytest.mark.parametrize("place", [".", "checkpoints/0"], ids=["run", "checkpoint"])
def test_checkpoint_of_an_earlier_version_is_refused_with_what_to_do(
    place, params, tmp_path
):
    state = init_state(params, optax.sgd(0.1), seed=0, has_ema=False)
    tiny.save_checkpoint(tmp_path, state)
    item = tmp_path / "checkpoints" / "0" / "detector"
    item.rename(item.with_name("preprocessing"))
    with pytest.raises(UserError, match="train again in a new --work-dir") as error:
        Detector.load(tmp_path / place)
    assert "\n" not in str(error.value)


def test_parameters_for_another_number_of_classes_are_refused(detector):
    weights = detector.to_weights()
    spec = dataclasses.replace(weights.spec, class_names=("cat", "dog"))
    weights = dataclasses.replace(weights, spec=spec)
    with pytest.raises(UserError, match=r"no head\.\S+ for 2 classes"):
        Detector.from_weights(weights)


def test_package_offers_the_detector_and_the_functions():
    assert frcnn_jax.Detector is Detector
    assert callable(frcnn_jax.ops.nms)
    assert {"Detector", "ops"} <= set(dir(frcnn_jax))
    with pytest.raises(AttributeError, match="no attribute 'detectors'"):
        _ = frcnn_jax.detectors


def test_weights_in_a_run_directory_do_not_stand_for_its_checkpoints(
    run, params, detector, tmp_path
):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to(run / "checkpoints")
    detector.save(tmp_path / "run" / "model.safetensors")
    loaded = Detector.load(tmp_path / "run", step=2)
    assert_same_parameters(loaded, multiplied(params, 2.0))
    with pytest.raises(UserError, match="is a run directory, expected another"):
        detector.save_pretrained(tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_step_needs_a_run_directory(run, detector, tmp_path):
    detector.save(tmp_path / "detector.safetensors")
    detector.save_pretrained(tmp_path / "folder")
    for source in (
        tmp_path / "detector.safetensors",
        tmp_path / "folder",
        run / "checkpoints" / "1",
    ):
        with pytest.raises(UserError, match="step 1 needs a run directory"):
            Detector.load(source, 1)


@pytest.mark.parametrize("image", [b"bytes", [[0]], 3, (path for path in "ab")])
def test_other_types_are_refused_by_name(image, detector):
    with pytest.raises(TypeError, match=f"of type {type(image).__name__}, expected a"):
        next(detector.stream([image]))


def test_image_without_pixels_is_refused(detector):
    for image in (np.zeros((0, 10, 3), np.uint8), Image.new("RGB", (10, 0))):
        with pytest.raises(ValueError, match=r"has the shape \(0, 10, 3\)"):
            detector(image)


def test_representation_is_short(detector):
    assert len(repr(detector)) < 3000


def test_array_of_jax_is_an_image(detector, picture):
    assert_same_detections(detector(jnp.asarray(picture)), detector(picture))
