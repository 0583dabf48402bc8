"""An exported detector finds the same objects without frcnn_jax, or says why not."""

import dataclasses
import errno
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from frcnn_jax import cli
from frcnn_jax.config import PREPROCESSINGS, DetectorSpec, ModelConfig, Resizing
from frcnn_jax.data.sources import open_source
from frcnn_jax.detector import Detector
from frcnn_jax.errors import UserError
from frcnn_jax.export import export_stablehlo, load_exported
from frcnn_jax.models.parameters import flatten, random_params
from tests.helpers import containers, tiny

EXAMPLE = Path(__file__).parents[2] / "examples" / "serve_stablehlo.py"
RESIZING = Resizing(shorter_side=48, longer_side=64, canvases=((48, 64), (64, 48)))
SPEC = dataclasses.replace(tiny.SPEC, resizing=RESIZING)
# Smaller, larger, and of a shape that leaves most of the canvas empty.
SIZES = [(30, 40), (120, 81), (30, 90), (64, 48)]

# Runs a script that can import nothing but jax, Pillow and what jax itself needs.
ISOLATED = """
import runpy, sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder

allowed = {"jax", "jaxlib", "flatbuffers", "ml_dtypes", "numpy", "opt_einsum", "scipy"}
allowed |= {"PIL", *sys.stdlib_module_names}

class AllowedFinder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        library = name.partition(".")[0]
        if library in allowed or library.startswith("_sysconfigdata"):
            return super().find_spec(name, path, target)
        return None

sys.meta_path[:] = [BuiltinImporter, FrozenImporter, AllowedFinder]
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_isolated(*arguments) -> list:
    """Returns the lines of JSON that a script prints."""
    done = subprocess.run(
        [sys.executable, "-c", ISOLATED, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def rows(detector: Detector, picture: Path) -> list:
    """What the example prints, by frcnn_jax."""
    found = tiny.detect_all(detector, picture)
    return [
        [str(picture), name, score.item(), box.tolist()]
        for name, score, box in zip(found.names, found.scores, found.yxyx, strict=True)
    ]


def draw(folder: Path, sizes) -> list[Path]:
    """Writes a drawn picture of each size (height, width)."""
    pictures = []
    for height, width in sizes:
        size = (height, width)
        data = dataclasses.replace(tiny.DATA, shapes_size=size, num_test_images=1)
        picture = folder / f"{height}x{width}.png"
        Image.fromarray(open_source(data, "test").read_image(0)).save(picture)
        pictures.append(picture)
    return pictures


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(SPEC, random_params(tiny.MODEL, tiny.NUM_CLASSES, 0))


@pytest.fixture(scope="module")
def whole(detector, tmp_path_factory) -> Path:
    """An export that no test changes."""
    folder = tmp_path_factory.mktemp("export")
    export_stablehlo(detector, folder)
    return folder


def copied(whole: Path, folder: Path) -> Path:
    """A copy of an export, to damage."""
    return Path(shutil.copytree(whole, folder / "export"))


def describe(folder: Path, **changes) -> None:
    """Changes fields of an export's description."""
    file = folder / "detector.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def describe_functions(folder: Path, **changes) -> None:
    """Changes fields of all functions in an export's description."""
    functions = json.loads((folder / "detector.json").read_text())["functions"]
    describe(folder, functions=[function | changes for function in functions])


def refusal(folder: Path) -> str:
    """The one line with which an export is refused."""
    with pytest.raises(UserError) as error:
        load_exported(folder)
    message = str(error.value)
    assert message.startswith(str(folder))
    assert "\n" not in message
    return message


@pytest.mark.slow
def test_example_without_frcnn_jax_finds_the_same_to_the_bit(detector, whole, tmp_path):
    pictures = draw(tmp_path, SIZES)
    expected = [row for picture in pictures for row in rows(detector, picture)]
    assert {row[0] for row in expected} == set(map(str, pictures))
    assert run_isolated(EXAMPLE, whole, *pictures) == expected


def test_isolated_script_cannot_import_frcnn_jax(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import importlib.util, json\n"
        "names = ['frcnn_jax', 'flax', 'safetensors', 'jax']\n"
        "print(json.dumps([bool(importlib.util.find_spec(name)) for name in names]))\n"
    )
    assert run_isolated(script) == [[False, False, False, True]]


def test_batch_of_any_size_gives_what_single_images_give(whole):
    exported = load_exported(whole)
    detect = jax.jit(exported.functions[48, 64].call)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 48, 64, 3), np.uint8)
    sizes = np.array([[48, 64], [40, 60], [33, 17]], np.float32)
    scales = np.array([[1.0, 1.0], [0.5, 0.25], [2.0, 2.0]], np.float32)
    batch = jax.device_get(detect(exported.parameters, images, sizes, scales))
    assert batch["mask"].any(axis=1).all()
    for index in range(3):
        one = slice(index, index + 1)
        single = detect(exported.parameters, images[one], sizes[one], scales[one])
        np.testing.assert_array_equal(batch["labels"][one], single["labels"])
        np.testing.assert_array_equal(batch["mask"][one], single["mask"])
        np.testing.assert_allclose(batch["scores"][one], single["scores"], atol=1e-5)
        np.testing.assert_allclose(batch["boxes"][one], single["boxes"], atol=1e-3)


def test_one_file_serves_all_platforms_and_holds_no_parameters(whole):
    exported = load_exported(whole)
    assert set(exported.functions) == set(RESIZING.canvases)
    for canvas, function in exported.functions.items():
        assert function.platforms == ("cpu", "cuda", "tpu")
        file = whole / f"{canvas[0]}x{canvas[1]}.stablehlo"
        assert file.stat().st_size < 200_000


def test_description_has_what_a_program_needs(whole):
    description = json.loads((whole / "detector.json").read_text())
    spec = DetectorSpec.from_dict(description["detector"], where="detector.json")
    assert spec == SPEC
    assert list(description["arguments"])[1:] == ["images", "image_sizes", "scales"]
    assert sorted(description["results"]) == ["boxes", "labels", "mask", "scores"]
    assert description["written_by"]["jax"] == jax.__version__


def test_detector_loads_the_parameters_whatever_the_age_of_the_functions(
    detector, whole, tmp_path
):
    folder = copied(whole, tmp_path)
    for file in folder.glob("*.stablehlo"):
        file.unlink()
    again = Detector.load(folder)
    assert again.spec == SPEC
    containers.assert_same(flatten(again.params), flatten(detector.params))


def test_command_exports_a_run_and_refuses_to_do_so_twice(
    detector, whole, tmp_path, capsys
):
    saved, folder = tmp_path / "detector.safetensors", tmp_path / "export"
    detector.save(saved)
    cli.main(["export", str(saved), str(folder)])
    assert f"wrote {folder}" in capsys.readouterr().out
    contents = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert set(contents) == {file.name for file in whole.iterdir()}
    with pytest.raises(SystemExit) as stop:
        cli.main(["export", str(saved), str(folder)])
    assert stop.value.code == 2
    assert "expected a new or empty folder" in capsys.readouterr().err
    assert contents == {file.name: file.read_bytes() for file in folder.iterdir()}


def test_export_that_fails_leaves_nothing(detector, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", fail)
    folder = tmp_path / "export"
    with pytest.raises(UserError, match=f"cannot write {folder}: No space left"):
        export_stablehlo(detector, folder)
    assert list(tmp_path.iterdir()) == []


def test_export_into_a_missing_folder_is_refused(detector, tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        export_stablehlo(detector, tmp_path / "missing" / "export")


def test_function_of_a_newer_calling_convention_is_refused(whole, tmp_path):
    folder = copied(whole, tmp_path)
    describe(folder, requires={"calling_convention": 99}, written_by={"jax": "9.0"})
    message = refusal(folder)
    assert f"written by jax 9.0, cannot be read by jax {jax.__version__}" in message
    assert "calling convention 99" in message
    assert "export the detector again" in message


def test_function_that_jax_cannot_read_is_refused(whole, tmp_path, monkeypatch):
    def expired(_):
        raise ValueError("older than the 6-month backward-compatibility window\nHelp")

    monkeypatch.setattr(jax.export, "deserialize", expired)
    assert "(older than the 6-month" in refusal(copied(whole, tmp_path))


def test_function_of_nonsense_is_refused(whole, tmp_path):
    folder = copied(whole, tmp_path)
    for file in folder.glob("*.stablehlo"):
        file.write_bytes(b"nonsense")
    describe_functions(folder, sha256=hashlib.sha256(b"nonsense").hexdigest())
    assert "cannot be read by jax" in refusal(folder)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("48x64.stablehlo", "damaged, its SHA-256 is not that of detector.json"),
        ("parameters.npz", "damaged"),
        ("detector.json", "expected a folder of frcnn export"),
    ],
)
@pytest.mark.parametrize("is_missing", [False, True], ids=["truncated", "missing"])
def test_damaged_file_is_refused(file, expected, is_missing, whole, tmp_path):
    folder = copied(whole, tmp_path)
    content = (folder / file).read_bytes()
    if is_missing:
        (folder / file).unlink()
        expected = "No such file"
    else:
        (folder / file).write_bytes(content[: len(content) // 2])
    message = refusal(folder)
    assert message.startswith(str(folder / file))
    assert expected in message


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"format": "something"}, "format is 'something'"),
        ({"format_version": 2}, "format_version is 2, expected 1"),
        ({"platforms": 3}, "platforms"),
        ({"nonsense": 3}, "nonsense"),
        ({"detector": {}}, "detector"),
    ],
    ids=["format", "version", "type", "unknown", "detector"],
)
def test_description_of_something_else_is_refused(changes, expected, whole, tmp_path):
    folder = copied(whole, tmp_path)
    describe(folder, **changes)
    assert expected in refusal(folder)


def test_parameters_of_another_detector_are_refused(detector, whole, tmp_path):
    folder = copied(whole, tmp_path)
    arrays = flatten(detector.params)
    del arrays["rpn.score.kernel"]
    containers.write_npz(folder / "parameters.npz", arrays)
    assert "no rpn.score.kernel" in refusal(folder)


@pytest.mark.slow
def test_full_width_export_finds_the_same_to_the_bit(tmp_path):
    preprocessing = dataclasses.asdict(PREPROCESSINGS["torchvision"])
    model = ModelConfig(head_channels=256, **preprocessing)
    spec = DetectorSpec(
        model=model,
        class_names=tiny.SPEC.class_names,
        resizing=Resizing(shorter_side=240, longer_side=320, canvases=((240, 320),)),
    )
    detector = Detector(spec, random_params(model, tiny.NUM_CLASSES, 0))
    export_stablehlo(detector, tmp_path / "export")
    pictures = draw(tmp_path, [(240, 320)])
    expected = rows(detector, pictures[0])
    assert len(expected) > 50
    assert run_isolated(EXAMPLE, tmp_path / "export", *pictures) == expected
