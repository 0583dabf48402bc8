"""`hf://` without ever reaching the hub."""

import hashlib

import huggingface_hub
import pytest

from frcnn_jax.weights.files import read_file
from tests.helpers.containers import ARRAYS, assert_same, refusal, write_npz


@pytest.fixture
def hub(monkeypatch):
    """Lets the hub answer with a path or an exception; keeps what it was asked."""
    asked = []

    def answer_with(answer):
        def download(*arguments):
            asked.append(arguments)
            if isinstance(answer, Exception):
                raise answer
            return str(answer)

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
        return asked

    return answer_with


@pytest.mark.parametrize(
    ("source", "asked"),
    [
        ("hf://timm/vgg16.tv_in1k", ("timm/vgg16.tv_in1k", "model.safetensors")),
        ("hf://me/mine/folder/a.npz", ("me/mine", "folder/a.npz")),
    ],
)
def test_address_names_repository_and_file(hub, source, asked, tmp_path):
    calls = hub(write_npz(tmp_path / "blob"))
    assert_same(read_file(source).arrays, ARRAYS)
    assert calls == [asked]


@pytest.mark.parametrize("source", ["hf://", "hf://timm", "hf:///vgg16"])
def test_address_without_owner_or_name_is_refused(hub, source):
    calls = hub(AssertionError())
    assert "expected hf://OWNER/NAME" in refusal(source)
    assert not calls


@pytest.mark.parametrize(
    "error", [OSError("no route to host\nretrying"), ValueError("bad name")]
)
def test_without_a_network_the_way_out_is_named(hub, error):
    hub(error)
    assert "get the file elsewhere" in refusal("hf://timm/vgg16.tv_in1k")


def test_other_content_than_the_hub_says_is_refused(hub, tmp_path):
    digest = hashlib.sha256(b"other").hexdigest()
    hub(write_npz(tmp_path / digest))  # as the hub's cache names its files
    assert f"expected {digest[:8]}" in refusal("hf://timm/vgg16.tv_in1k")


def test_right_content_of_the_cache_is_read(hub, tmp_path):
    path = write_npz(tmp_path / "blob")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    hub(path.rename(tmp_path / digest))
    assert read_file("hf://timm/vgg16.tv_in1k").sha256 == digest
