"""Finds weight files: by path, by address, or by the name of a published detector.

What is downloaded stays in a cache: the hub's files in huggingface_hub's, all others in
that of `download`.
"""

import logging
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from frcnn_jax.errors import UserError, first_line
from frcnn_jax.files import expand_home
from frcnn_jax.weights.download import download

HUB = "hf://"
HUB_FILE = "model.safetensors"

# From chainer/chainercv: links/model/faster_rcnn/faster_rcnn_vgg.py.
_CHAINERCV = "https://chainercv-models.preferred.jp/faster_rcnn_vgg16"

# Detectors by name, at their publishers' addresses: we redistribute no file.
PUBLISHED = {
    "chainercv:voc07": f"{_CHAINERCV}_voc07_trained_2018_06_01.npz",
    "chainercv:voc0712": f"{_CHAINERCV}_voc0712_trained_2017_07_21.npz",
}

# How the SHA-256 of published files begins: torchvision's VGG16, and the Caffe VGG16
# that jcjohnson/pytorch-vgg converted.
_SHA256 = {"vgg16-397923af.pth": "397923af", "vgg16-00b39a1b.pth": "00b39a1b"}


class SourceFile(NamedTuple):
    """Where a weight file is, and what is known about it."""

    path: Path
    sha256: str  # how its SHA-256 begins; empty if unknown
    is_download: bool = False  # from the web, in the cache of `download`


def find_file(source: str) -> SourceFile:
    """Finds a weight file, and downloads it if need be.

    Args:
      source: a path; `https://...`, with `#sha256=...` if that is known; a name of
        `PUBLISHED`; or `hf://OWNER/NAME[/FILE]` on the Hugging Face hub. Where no file
        is named, there and in a folder, it is `model.safetensors`.

    Raises:
      UserError: if it cannot be downloaded or is not such a source. A path need not
        exist.
    """
    if source.startswith("chainercv:") and source not in PUBLISHED:
        raise UserError(f"{source}: expected one of {', '.join(PUBLISHED)}")
    source = PUBLISHED.get(source, source)
    if source.startswith(("https://", "http://")):
        return _find_on_web(source)
    is_on_hub = source.startswith(HUB)
    path = download_from_hub(source) if is_on_hub else expand_home(source)
    if is_repository(path):
        path /= HUB_FILE
    # The hub's cache names large files by their SHA-256.
    blob = os.path.basename(os.path.realpath(path))
    is_digest = re.fullmatch("[0-9a-f]{64}", blob)
    return SourceFile(path, blob if is_digest else _SHA256.get(path.name, ""))


def is_repository(path: Path) -> bool:
    """Returns whether a path is a folder like a repository of the hub.

    A run directory does not count, even if weights were exported into it.
    """
    return (path / HUB_FILE).is_file() and not (path / "checkpoints").is_dir()


def download_from_hub(source: str, **options: Any) -> Path:
    """Downloads a file from the Hugging Face hub, unless it is in the hub's cache.

    Args:
      source: `hf://OWNER/NAME[/FILE]`.
      **options: of `huggingface_hub.hf_hub_download`.

    Raises:
      UserError: if it cannot be downloaded.
    """
    from huggingface_hub import hf_hub_download  # here: it takes 0.1 s to import

    match = re.fullmatch(r"hf://([^/]+/[^/]+)(?:/(.+))?", source)
    if match is None:
        raise UserError(f"{source}: expected hf://OWNER/NAME or hf://OWNER/NAME/FILE")
    # It logs every attempt to reach the hub; our error says it once.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        return Path(hf_hub_download(match[1], match[2] or HUB_FILE, **options))
    # OSError, and ValueError for a name that cannot be; HTTP clients have more.
    except Exception as error:
        raise UserError(
            f"{source}: cannot be downloaded ({first_line(error)}); without a "
            "network, get the file elsewhere and give its path"
        ) from None


def _find_on_web(source: str) -> SourceFile:
    url, _, fragment = source.partition("#")
    match = re.fullmatch("(?:sha256=([0-9a-f]{64}))?", fragment.lower())
    if match is None:
        raise UserError(f"{source}: expected #sha256= and 64 hexadecimal digits")
    sha256 = match[1] or _SHA256.get(url.rpartition("/")[2], "")
    return SourceFile(download(url, sha256), sha256, is_download=True)
