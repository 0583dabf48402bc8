"""The cache of resized images: the same bits, bounded, whole after any kill."""

import dataclasses
import hashlib
import io
import itertools
import logging
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

from frcnn_jax.config import DataConfig
from frcnn_jax.data import image_cache, transforms
from frcnn_jax.data.image_cache import open_cache
from frcnn_jax.data.images import EncodedImage
from frcnn_jax.data.loader import evaluation_batches
from frcnn_jax.data.sources import open_source
from frcnn_jax.errors import UserError
from tests.helpers.batches import train_batches
from tests.helpers.voc_folder import VOCFolder

SIZE = (30, 40)
NUM_BYTES = 30 * 40 * 3 + 4
NUM_IMAGES = 8

# Prints a digest of two epochs.
READ = """
import sys
from tests.data import test_image_cache
config = test_image_cache.make_config(sys.argv[1], sys.argv[2], float(sys.argv[3]))
print(test_image_cache.digest(config))
"""

# Is killed while it writes an image, after what is named has been called.
KILLED = """
import os, pathlib, signal, sys
from frcnn_jax.data import image_cache
from tests.data import test_image_cache

module, name = {"replace": (os, "replace")}.get(sys.argv[2], (image_cache, sys.argv[2]))
original = getattr(module, name)

def last_call(*arguments):
    if sys.argv[3] == "after":
        original(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(module, name, last_call)
cache = image_cache.ImageCache(pathlib.Path(sys.argv[1]), 10**9)
cache.resize(test_image_cache.encoded(0), test_image_cache.SIZE)
"""


def encoded(seed: int, size=(20, 25)) -> EncodedImage:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG")
    return EncodedImage(stream.getvalue(), f"image {seed}")


def expected(image: EncodedImage, size=SIZE) -> np.ndarray:
    decoded = image.decode()
    return transforms.resize_part(decoded, (0, 0, decoded.height, decoded.width), size)


def make_config(root, cache, gigabytes=1.0, **fields) -> DataConfig:
    return DataConfig(
        root=str(root),
        train_split="all",
        class_names=("x",),
        shorter_side=48,
        longer_side=64,
        canvases=((64, 64),),
        image_cache=str(cache),
        image_cache_gigabytes=gigabytes,
        **fields,
    )


def digest(config: DataConfig) -> str:
    source = open_source(config, "all")
    digest = hashlib.sha256()
    batches = train_batches(source, config, batch_size=2, seed=0)
    for batch in itertools.islice(batches, NUM_IMAGES):
        for array in batch:
            digest.update(array.tobytes())
    batches.close()
    return digest.hexdigest()


def files(folder: Path) -> list[Path]:
    names = ("total", "unfinished")
    return sorted(path for path in folder.iterdir() if path.name not in names)


def num_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in files(folder))


@pytest.fixture
def cache(tmp_path):
    return open_cache(make_config("", tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    folder = VOCFolder(tmp_path / "data")
    names = [f"image{index}" for index in range(NUM_IMAGES)]
    for index, name in enumerate(names):
        folder.add(name, size=(40 + index, 60))
    folder.split("all", names)
    return tmp_path / "data"


def test_cached_image_has_the_bits_of_the_first_reading(cache, monkeypatch):
    image = encoded(0)
    first = cache.resize(image, SIZE)
    np.testing.assert_array_equal(first, expected(image))
    monkeypatch.setattr(EncodedImage, "decode", lambda _: pytest.fail("decodes"))
    cached = cache.resize(image, SIZE)
    assert cached.dtype == np.uint8
    np.testing.assert_array_equal(cached, first)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_with_a_cache_are_those_without(root, tmp_path, num_workers):
    plain = make_config(root, "")
    config = make_config(root, tmp_path / "cache", num_workers=num_workers)
    assert digest(config) == digest(config) == digest(plain)
    assert len(files(tmp_path / "cache")) == NUM_IMAGES
    source = open_source(config, "all")
    with_cache, without = (
        list(evaluation_batches(source, each, batch_size=3)) for each in (config, plain)
    )
    for batch, other in zip(with_cache, without, strict=True):
        np.testing.assert_array_equal(batch.images, other.images)


def test_other_content_size_or_version_is_another_image(cache, monkeypatch):
    images = [encoded(0), encoded(1), encoded(0, size=(25, 20))]
    for image in images:
        for size in ((30, 40), (40, 30), (3, 400)):
            pixels = cache.resize(image, size)
            np.testing.assert_array_equal(pixels, expected(image, size))
    assert len(files(cache.folder)) == 9
    monkeypatch.setattr(PIL, "__version__", "0.1")
    cache.resize(images[0], SIZE)
    assert len(files(cache.folder)) == 10
    monkeypatch.setattr(image_cache, "_VERSION", 0)
    cache.resize(images[0], SIZE)
    assert len(files(cache.folder)) == 11


def test_replaced_image_is_read_anew(root, tmp_path):
    config = make_config(root, tmp_path / "cache")
    before = digest(config)
    (root / "JPEGImages" / "image0.jpg").write_bytes(encoded(9, size=(40, 60)).content)
    assert digest(config) == digest(make_config(root, "")) != before


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:3],
        lambda content: content[:-1],
        lambda content: content + b"x",
        lambda content: bytes([content[0] ^ 1]) + content[1:],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: bytes(len(content)),
    ],
)
def test_damaged_file_is_made_again(cache, damage):
    image = encoded(0)
    cache.resize(image, SIZE)
    (path,) = files(cache.folder)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    np.testing.assert_array_equal(cache.resize(image, SIZE), expected(image))
    assert path.read_bytes() == whole


def test_full_cache_keeps_what_it_has_and_reads_the_rest(cache, caplog):
    image_cache._warn_once.cache_clear()
    cache = dataclasses.replace(cache, max_bytes=3 * NUM_BYTES + 1)
    for _ in range(2):
        for seed in range(5):
            image = encoded(seed)
            np.testing.assert_array_equal(cache.resize(image, SIZE), expected(image))
            assert num_bytes(cache.folder) <= cache.max_bytes
    assert len(files(cache.folder)) == 3
    (message,) = caplog.messages
    assert message.startswith(f"{cache.folder} is full; ")


def test_empty_cache_keeps_nothing(cache):
    cache = dataclasses.replace(cache, max_bytes=0)
    np.testing.assert_array_equal(
        cache.resize(encoded(0), SIZE), cache.resize(encoded(0), SIZE)
    )
    assert not files(cache.folder)


@pytest.mark.parametrize("text", ["", "x", "-5", "\0" * 20])
def test_lost_total_is_counted_again(cache, text):
    cache = dataclasses.replace(cache, max_bytes=3 * NUM_BYTES + 100)
    for seed in range(2):
        cache.resize(encoded(seed), SIZE)
    (cache.folder / "total").write_text(text)
    for seed in range(5):
        cache.resize(encoded(seed), SIZE)
    assert len(files(cache.folder)) == 3


def start(code: str, *arguments: object) -> subprocess.Popen:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_processes_at_once_share_a_cache_and_keep_its_bound(root, tmp_path):
    cache = tmp_path / "cache"
    bound = 5 * 64 * 64 * 3  # Room for some of the images.
    processes = [start(READ, root, cache, bound / 10**9) for _ in range(2)]
    outputs = {process.communicate()[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs == {digest(make_config(root, ""))}
    assert 3 <= len(files(cache)) < NUM_IMAGES
    assert num_bytes(cache) <= bound
    assert int((cache / "total").read_text()) == num_bytes(cache)


@pytest.mark.parametrize(
    "moment",
    [
        ("_replace_total", "before"),
        ("_replace_total", "after"),
        ("_checksum", "before"),  # The pixels are written, perhaps in part.
        ("replace", "before"),
        ("replace", "after"),
    ],
)
def test_kill_amid_writing_leaves_a_whole_image_or_none(cache, moment):
    process = start(KILLED, cache.folder, *moment)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert len(files(cache.folder)) == (moment == ("replace", "after"))
    assert int((cache.folder / "total").read_text() or 0) >= num_bytes(cache.folder)
    for seed in range(3):
        image = encoded(seed)
        np.testing.assert_array_equal(cache.resize(image, SIZE), expected(image))
    assert {path.stat().st_size for path in files(cache.folder)} == {NUM_BYTES}
    assert len(files(cache.folder)) == 3


def test_full_disk_is_one_warning_and_training_goes_on(cache, monkeypatch, caplog):
    def fail(*_):
        raise OSError(28, "No space left on device")

    image_cache._warn_once.cache_clear()
    monkeypatch.setattr(image_cache, "_replace_total", fail)
    with caplog.at_level(logging.WARNING):
        for seed in range(3):
            image = encoded(seed)
            np.testing.assert_array_equal(cache.resize(image, SIZE), expected(image))
    (record,) = caplog.records
    assert "cannot write to" in record.message
    assert "No space left on device" in record.message


def test_broken_image_is_named_and_not_kept(cache):
    image = EncodedImage(encoded(0).content[:200], "pets/a.jpg")
    with pytest.raises(UserError, match=r"cannot read image pets/a\.jpg"):
        cache.resize(image, SIZE)
    assert not files(cache.folder)


def test_folder_that_cannot_be_written_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*file") as error:
        open_cache(make_config("", tmp_path / "file" / "cache"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("fields", [{"scale_range": (0.5, 1.0)}, {"min_crop": 0.5}])
def test_cache_of_images_that_never_come_again_is_refused(fields):
    with pytest.raises(UserError, match=r"data\.image_cache is 'there', expected none"):
        make_config("", "there", **fields)


def test_drawn_images_need_no_cache(tmp_path):
    config = dataclasses.replace(
        make_config("", tmp_path / "cache"), source="shapes", class_names=None
    )
    source = open_source(config, "test")
    assert list(evaluation_batches(source, config, batch_size=64))
    assert not files(tmp_path / "cache")
