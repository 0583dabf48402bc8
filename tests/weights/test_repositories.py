"""Detectors as folders, and on a hub that is a folder of this machine."""

import dataclasses
import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import ModelCard, hub_mixin

from frcnn_jax.detector import Detector
from frcnn_jax.errors import UserError
from frcnn_jax.models.parameters import flatten, random_params
from frcnn_jax.weights import convert
from tests.helpers import containers, tiny

FIGURES = {"voc07_ap": 0.5, "area_ap": None, "num_objects": 3}


@pytest.fixture(scope="module")
def detector() -> Detector:
    params = random_params(tiny.MODEL, tiny.NUM_CLASSES, 0)
    return Detector(tiny.SPEC, params, "/home/me/run/checkpoints/5")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that keeps one repository; what its API is asked besides the files."""
    folder, asked = tmp_path / "hub", []

    class Api:
        def __init__(self, token=None):
            asked.append(("token", token))

        def create_repo(self, repo_id, **options):
            asked.append(("create", repo_id, options))
            return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

        def upload_folder(self, folder_path, repo_id, **options):
            shutil.copytree(folder_path, folder / repo_id)
            return f"https://huggingface.co/{repo_id}/commit/1"

    def download(repo_id=None, filename=None, **options):
        asked.append(("download", repo_id, filename, options))
        path = folder / repo_id / filename
        if not path.exists():
            raise OSError(f"no {filename} in {repo_id}")
        return str(path)

    monkeypatch.setattr(hub_mixin, "HfApi", Api)
    monkeypatch.setattr(hub_mixin, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return asked


def assert_same(detector: Detector, expected: Detector) -> None:
    assert detector.spec == expected.spec
    containers.assert_same(flatten(detector.params), flatten(expected.params))


@pytest.mark.parametrize("load", [Detector.from_pretrained, Detector.load])
def test_folder_gives_the_detector_bit_for_bit(load, detector, tmp_path):
    detector.save_pretrained(tmp_path / "new" / "folder")
    assert_same(load(tmp_path / "new" / "folder"), detector)
    assert_same(load(str(tmp_path / "new" / "folder")), detector)


def test_folder_is_exported(detector, tmp_path):
    detector.save_pretrained(tmp_path / "folder")
    path = tmp_path / "detector.safetensors"
    convert.export(str(tmp_path / "folder"), path, "frcnn_jax")
    assert_same(Detector.load(path), detector)


def test_pushed_detector_comes_back_bit_for_bit(detector, hub):
    url = detector.push_to_hub("me/shapes", private=True, token="secret")
    assert url == "https://huggingface.co/me/shapes/commit/1"
    assert hub[0] == ("token", "secret")
    assert hub[1][:2] == ("create", "me/shapes")
    assert hub[1][2]["private"]
    for again in (
        Detector.load("hf://me/shapes"),
        Detector.load("hf://me/shapes/model.safetensors"),
        Detector.from_pretrained("me/shapes"),
    ):
        assert_same(again, detector)


def test_options_of_the_download_reach_the_hub(detector, hub):
    detector.push_to_hub("me/shapes")
    Detector.from_pretrained("me/shapes", revision="v1", token="secret")
    *_, (_, repository, name, options) = hub
    assert (repository, name) == ("me/shapes", "model.safetensors")
    assert (options["revision"], options["token"]) == ("v1", "secret")


def test_folder_has_weights_config_and_card(detector, tmp_path):
    detector.save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"model.safetensors", "config.json", "README.md"}
    config = json.loads((tmp_path / "config.json").read_text())
    assert config == json.loads(json.dumps(tiny.SPEC.to_dict()))


def test_nothing_tells_where_the_detector_was(detector, tmp_path):
    detector.save_pretrained(tmp_path)
    for path in tmp_path.iterdir():
        assert b"/home/me" not in path.read_bytes()


def test_missing_model_is_refused(hub, tmp_path):
    with pytest.raises(UserError, match="hf://me/none: cannot be downloaded"):
        Detector.load("hf://me/none")
    with pytest.raises(UserError, match="Is a directory"):
        Detector.from_pretrained(tmp_path)


def test_file_that_is_no_detector_is_refused(tmp_path):
    containers.write_safetensors(tmp_path / "model.safetensors", containers.FULL_WIDTH)
    with pytest.raises(UserError, match="is not a detector: it has backbone weights"):
        Detector.from_pretrained(tmp_path)


def test_card_tells_classes_pixels_and_sizes(detector):
    card = detector.generate_model_card(license="cc-by-4.0")
    assert card.data.to_dict() == {
        "library_name": "frcnn_jax",
        "license": "cc-by-4.0",
        "pipeline_tag": "object-detection",
        "tags": ["faster-rcnn", "jax", "vgg16"],
    }
    assert "- Classes: ellipse, rectangle, triangle, cross, ring, star\n" in card.text
    assert "- Pixels: RGB, 0..255, minus 123.675 " in card.text
    assert "shorter side 56 pixels, longer side at most 64\n" in card.text
    assert "- Training data: not known\n" in card.text
    assert card.text.endswith("## Evaluation\n\nNot evaluated.\n")


def test_saved_card_is_the_generated_one(detector, tmp_path):
    detector.save_pretrained(tmp_path, model_card_kwargs={"license": "mit"})
    expected = detector.generate_model_card(license="mit")
    assert ModelCard.load(tmp_path / "README.md").content == str(expected)


def test_card_of_the_user_is_kept(detector, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    detector.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


@pytest.fixture
def run(detector, tmp_path) -> Detector:
    """The detector as loaded from a run that was evaluated."""
    checkpoint = tmp_path / "run" / "checkpoints" / "5"
    (checkpoint / "progress").mkdir(parents=True)
    progress = {"data": {"fingerprint": "aaaa"}, "log": {}}
    (checkpoint / "progress" / "metadata").write_text(json.dumps(progress))
    evaluation = {
        "voc07_map": 0.25,
        "area_map": None,
        "coco": {"AP": 0.125, "AP50": 0.5, "AP75": None},
        "per_class": dict.fromkeys(tiny.SPEC.class_names, FIGURES),
        "fingerprints": {"detector": detector.to_weights().fingerprint, "data": "bbbb"},
    }
    write_evaluation(tmp_path / "run", json.dumps(evaluation))
    return dataclasses.replace(detector, source=str(checkpoint))


def write_evaluation(folder: Path, text: str) -> None:
    (folder / "evaluation.json").write_text(text)


def test_card_has_the_evaluation_of_the_run(run):
    text = run.generate_model_card().text
    assert "- Training data: fingerprint `aaaa`\n" in text
    assert "on data with the fingerprint `bbbb`:" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert table[0] == "| class | objects | VOC07 AP | area AP |"
    assert table[2:-1] == [f"| {name} | 3 | 50.0 | - |" for name in run.class_names]
    assert table[-1] == "| all | 18 | 25.0 | - |"
    assert "\nCOCO AP 12.5, AP50 50.0, AP75 -\n" in text


def test_card_has_the_evaluation_of_another_step_that_is_the_best(run, tmp_path):
    folder = tmp_path / "run"
    (folder / "evaluation.json").rename(folder / "evaluation-step5.json")
    write_evaluation(folder, '{"fingerprints": {"detector": "of the last step"}}')
    assert "Average precision in percent" in run.generate_model_card().text


def test_card_has_the_evaluation_of_the_test_split(run, tmp_path):
    text = (tmp_path / "run" / "evaluation.json").read_text()
    on_train = text.replace("0.25", "0.99")
    (tmp_path / "run" / "evaluation-train.json").write_text(on_train)
    card = run.generate_model_card().text
    assert "| all | 18 | 25.0 | - |" in card


@pytest.mark.parametrize("change", ["params", "spec"])
def test_card_has_no_figures_of_another_detector(change, run):
    other = {
        "params": random_params(tiny.MODEL, tiny.NUM_CLASSES, 1),
        "spec": dataclasses.replace(run.spec, class_names=tuple("abcdef")),
    }
    run = dataclasses.replace(run, **{change: other[change]})
    assert "Not evaluated." in run.generate_model_card().text


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"fingerprints": {}}'])
def test_card_has_no_figures_of_what_is_no_evaluation(text, run, tmp_path):
    write_evaluation(tmp_path / "run", text)
    assert "Not evaluated." in run.generate_model_card().text


def test_detector_stays_frozen(detector, tmp_path):
    detector.save_pretrained(tmp_path)
    for each in (detector, Detector.from_pretrained(tmp_path)):
        with pytest.raises(dataclasses.FrozenInstanceError):
            each.source = "elsewhere"
