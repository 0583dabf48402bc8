"""Where weights come from: paths, addresses, names of published detectors."""

import hashlib
import socket

import numpy as np
import pytest

from frcnn_jax import cli
from frcnn_jax.config import PREPROCESSINGS, Resizing
from frcnn_jax.data.records import VOC_CLASS_NAMES
from frcnn_jax.errors import UserError
from frcnn_jax.weights import sources
from frcnn_jax.weights.files import read_file
from frcnn_jax.weights.importing import read_weights
from frcnn_jax.weights.sources import PUBLISHED, SourceFile, find_file
from tests.helpers import containers, foreign
from tests.helpers.containers import FULL_WIDTH, assert_same, refusal
from tests.helpers.file_server import serve

pytestmark = pytest.mark.usefixtures("cache")

DIGEST = hashlib.sha256(b"weights").hexdigest()


@pytest.fixture
def server(source):
    """A server of VGG16's first layer."""
    with serve(source.read_bytes()) as server:
        yield server


@pytest.fixture
def downloads(monkeypatch, tmp_path) -> list:
    """What would be downloaded."""
    asked = []

    def download(*arguments):
        asked.append(arguments)
        return tmp_path / "downloaded"

    monkeypatch.setattr(sources, "download", download)
    return asked


@pytest.mark.parametrize(
    ("source", "url", "sha256"),
    [
        ("https://example.com/a.npz", "https://example.com/a.npz", ""),
        (f"https://example.com/a#sha256={DIGEST}", "https://example.com/a", DIGEST),
        (f"http://a.com/a#SHA256={DIGEST.upper()}", "http://a.com/a", DIGEST),
        (
            "https://download.pytorch.org/models/vgg16-397923af.pth",
            "https://download.pytorch.org/models/vgg16-397923af.pth",
            "397923af",
        ),
    ],
)
def test_address_may_tell_the_sha256(source, url, sha256, downloads, tmp_path):
    expected = SourceFile(tmp_path / "downloaded", sha256, is_download=True)
    assert find_file(source) == expected
    assert downloads == [(url, sha256)]


@pytest.mark.parametrize("fragment", ["sha256=", "sha256=abc", f"md5={DIGEST}", DIGEST])
def test_other_fragment_of_an_address_is_refused(fragment, downloads):
    message = refusal(f"https://example.com/a.npz#{fragment}", find_file)
    assert message.endswith("expected #sha256= and 64 hexadecimal digits")
    assert not downloads


def test_published_detectors_are_downloaded_from_their_publisher(downloads):
    for name in PUBLISHED:
        find_file(name)
    start = "https://chainercv-models.preferred.jp/faster_rcnn_vgg16"
    assert downloads == [
        (f"{start}_voc07_trained_2018_06_01.npz", ""),
        (f"{start}_voc0712_trained_2017_07_21.npz", ""),
    ]


def test_unknown_name_is_refused_with_the_known_ones(downloads):
    message = refusal("chainercv:coco", find_file)
    assert message.endswith("expected one of chainercv:voc07, chainercv:voc0712")
    assert not downloads


def test_folder_with_a_model_is_that_model(tmp_path):
    assert find_file(str(tmp_path)).path == tmp_path
    path = containers.write_safetensors(tmp_path / "model.safetensors")
    assert find_file(str(tmp_path)) == SourceFile(path, "")


def chainercv_detector() -> foreign.Arrays:
    """With three anchor scales and twenty classes, as the published ones have."""
    arrays = foreign.chainercv()
    for name, count in (("rpn/score", 18), ("rpn/loc", 36)):
        shape = arrays[f"{name}/W"].shape
        arrays[f"{name}/W"] = np.ones((count, *shape[1:]), np.float32)
        arrays[f"{name}/b"] = np.ones(count, np.float32)
    for name, count in (("head/score", 21), ("head/cls_loc", 84)):
        arrays[f"{name}/W"] = np.ones((count, 32), np.float32)
        arrays[f"{name}/b"] = np.ones(count, np.float32)
    return arrays


def test_published_detector_is_used_as_its_project_does(tmp_path, monkeypatch):
    """As in chainercv's faster_rcnn.py, faster_rcnn_vgg.py and proposal_creator.py."""
    path = tmp_path / "weights.npz"
    containers.write_npz(path, chainercv_detector())
    with serve(path.read_bytes()) as server:
        monkeypatch.setitem(PUBLISHED, "chainercv:voc07", server.url)
        weights = read_weights("chainercv:voc07")
    assert weights.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (weights.source, weights.unknown) == ("chainercv:voc07", ())
    spec, model = weights.spec, weights.spec.model
    assert spec.class_names == VOC_CLASS_NAMES
    assert model.preprocessing == PREPROCESSINGS["chainercv"]
    assert model.anchor_scales == (8.0, 16.0, 32.0)
    assert model.anchor_ratios == (0.5, 1.0, 2.0)
    assert model.losses.delta_std == (0.1, 0.1, 0.2, 0.2)
    assert (model.pooling, model.rounding) == ("max", "round")
    proposals, detection = model.proposals, model.detection
    assert (proposals.pre_nms_test, proposals.post_nms_test) == (6000, 300)
    assert (proposals.iou_threshold, proposals.min_size) == (0.7, 16.0)
    assert proposals.rank_by == "logit"
    assert (detection.iou_threshold, detection.score_threshold) == (0.3, 0.05)
    assert (spec.resizing.shorter_side, spec.resizing.longer_side) == (600, 1000)
    assert spec.resizing == Resizing()


def test_other_projects_rank_proposals_by_probability(read):
    weights = read(foreign.chenyuntc(), anchor_scales=(1.0, 2.0))
    assert weights.spec.model.proposals.rank_by == "probability"


def test_names_of_voc_are_in_the_order_of_chainercv():
    """Its datasets/voc/voc_utils.py: voc_bbox_label_names."""
    names = "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog "
    names += "horse motorbike person pottedplant sheep sofa train tvmonitor"
    assert " ".join(VOC_CLASS_NAMES) == names


def test_address_is_imported_with_its_sha256(server, output, capsys):
    cli.main(["import-weights", server.url, str(output)])
    digest = hashlib.sha256(server.content).hexdigest()
    report = capsys.readouterr().out
    assert report.startswith(f"{server.url}: torchvision VGG16, SHA-256 {digest}\n")
    arrays = read_weights(str(output)).arrays
    assert arrays["backbone.conv1_1.bias"].tobytes() == bytes(4 * 64)


def test_cached_file_is_read_without_the_server(source):
    with serve(source.read_bytes()) as server:
        first = read_file(server.url)
    assert_same(read_file(server.url).arrays, first.arrays)
    assert_same(first.arrays, FULL_WIDTH)


def test_cached_file_is_checked_each_time(server, cache):
    url = f"{server.url}#sha256={hashlib.sha256(server.content).hexdigest()}"
    read_file(url)
    (path,) = cache.glob("*.npz")
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    message = refusal(url)
    assert "its SHA-256 begins with" in message
    assert message.endswith(f"(downloaded to {path})")


@pytest.mark.parametrize("content", [b"<!DOCTYPE html>", b"PK\x03\x04 cut"])
def test_download_that_is_no_weight_file_is_named_with_its_place(content, cache):
    with serve(content) as server:
        server.sends_length = False
        message = refusal(server.url)
    (path,) = cache.glob("*.npz")
    assert message.endswith(f"(downloaded to {path})")


def no_server() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/a.npz"


@pytest.mark.parametrize("command", ["import-weights", "export-weights"])
def test_mistakes_with_addresses_end_with_one_line(
    command, server, output, cache, mistake
):
    def refused(source: str) -> str:
        return mistake(command, source, output)

    assert "chainercv:voc07" in refused("chainercv:coco")
    assert "64 hexadecimal" in refused(f"{server.url}#sha256=1")
    assert "expected https://" in refused("http://example.com/a.npz")
    assert "Connection refused" in refused(no_server())
    assert "expected " + 64 * "0" in refused(f"{server.url}#sha256={64 * '0'}")
    server.status = 404
    assert "HTTP Error 404: " in refused(server.url)
    server.status, server.cut_after = 200, 10
    assert "the connection broke (after 10 of" in refused(server.url)
    for path in cache.iterdir():
        path.unlink()
    cache.rmdir()
    cache.write_text("no folder")
    assert f"cannot write {cache}: " in refused(server.url)


def test_path_that_looks_like_nothing_known_is_a_path():
    with pytest.raises(UserError, match="ftp://a/b: No such file"):
        read_file("ftp://a/b")
