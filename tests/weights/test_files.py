"""Weight files as they come: what is read, and what is refused in one line."""

import builtins
import contextlib
import hashlib
import io
import json
import struct
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from frcnn_jax.errors import UserError
from frcnn_jax.weights.files import read_file
from tests.helpers.containers import (
    ARRAYS,
    assert_same,
    refusal,
    write_hdf5,
    write_npz,
    write_safetensors,
)

WRITERS = {"npz": write_npz, "safetensors": write_safetensors, "h5": write_hdf5}
every_container = pytest.mark.parametrize("suffix", WRITERS)


@every_container
def test_arrays_are_read_bit_for_bit(suffix, tmp_path):
    path = WRITERS[suffix](tmp_path / f"weights.{suffix}")
    file = read_file(str(path))
    assert_same(file.arrays, ARRAYS)
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@every_container
def test_container_is_recognized_by_content_not_by_name(suffix, tmp_path):
    path = WRITERS[suffix](tmp_path / "weights.pth")
    assert_same(read_file(str(path)).arrays, ARRAYS)


def test_safetensors_of_any_header_length_are_not_taken_for_pytorch(tmp_path):
    # The file begins with the length; pickles begin with 0x80, zip archives with "PK".
    text = json.dumps({"a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}})
    for length in (0x80, 0x0280, int.from_bytes(b"PK", "little")):
        header = text.encode().ljust(length)
        path = tmp_path / "weights"
        path.write_bytes(struct.pack("<Q", length) + header + bytes(4))
        assert set(read_file(str(path)).arrays) == {"a"}


def test_groups_and_folders_become_part_of_the_names(tmp_path):
    arrays = {"extractor/conv1_1/W": np.ones(2, np.float32)}
    for write in (write_npz, write_hdf5):
        assert_same(read_file(str(write(tmp_path / "a", arrays))).arrays, arrays)


@every_container
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_file_is_refused(suffix, share, tmp_path):
    path = WRITERS[suffix](tmp_path / f"weights.{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "damaged" in refusal(path) or "not a weight file" in refusal(path)


@every_container
def test_altered_byte_ends_in_arrays_or_in_a_refusal(suffix, tmp_path):
    path = WRITERS[suffix](tmp_path / f"weights.{suffix}")
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(100):
        altered = bytearray(content)
        altered[rng.integers(len(content))] = rng.integers(256)
        path.write_bytes(altered)
        with contextlib.suppress(UserError):  # and no other exception
            read_file(str(path))


@every_container
@pytest.mark.parametrize("dtype", ["float16", "float64", "int32"])
def test_other_types_are_refused_by_name(suffix, dtype, tmp_path):
    arrays = ARRAYS | {"conv1_1_b": np.zeros(2, dtype)}
    message = refusal(WRITERS[suffix](tmp_path / "weights", arrays))
    assert "conv1_1_b is" in message
    assert "expected" in message


def test_bfloat16_is_refused_by_name(tmp_path):
    header = {"fc6": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}
    text = json.dumps(header).encode()
    path = tmp_path / "weights.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0\0")
    assert "fc6 is BF16" in refusal(path)


@every_container
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(suffix, value, tmp_path):
    arrays = ARRAYS | {"conv1_1_b": np.array([0.0, value], np.float32)}
    message = refusal(WRITERS[suffix](tmp_path / "weights", arrays))
    assert "conv1_1_b has values that are not finite" in message


@pytest.mark.parametrize(
    "content",
    [b"", b"weights", b"<!DOCTYPE html><html>", b"version https://git-lfs", b"{" * 20],
    ids=["empty", "text", "html", "lfs-pointer", "json"],
)
def test_what_is_no_weight_file_is_refused(content, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    refusal(path)


def test_header_that_claims_a_terabyte_is_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(struct.pack("<Q", 2**40) + b"{" + b" " * 100)
    assert "damaged" in refusal(path)


def test_array_that_claims_a_terabyte_is_refused(tmp_path):
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }"
    start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1)
    with zipfile.ZipFile(tmp_path / "weights.npz", "w") as archive:
        archive.writestr("fc6_W.npy", start + header.encode() + b"\n")
    assert "damaged" in refusal(tmp_path / "weights.npz")


NUM_ZEROS = 2**25  # float32, of 128 MiB


def npz_of_zeros(path: Path) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({NUM_ZEROS},), }}\n"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("fc6_W.npy", "w") as member,
    ):
        member.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)))
        member.write(header.encode())
        for _ in range(4 * NUM_ZEROS // 2**20):
            member.write(bytes(2**20))


def torch_zip_of_zeros(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"")
        with archive.open("archive/data/0", "w") as member:
            for _ in range(4 * NUM_ZEROS // 2**20):
                member.write(bytes(2**20))


def hdf5_of_zeros(path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="needs the extra keras")
    with h5py.File(path, "w") as file:
        file.create_dataset("fc6_W", (NUM_ZEROS,), "float32")  # nothing is stored


@pytest.mark.parametrize("write", [npz_of_zeros, torch_zip_of_zeros, hdf5_of_zeros])
def test_small_file_that_would_fill_the_memory_is_refused_unread(write, tmp_path):
    path = tmp_path / "weights"
    write(path)
    assert path.stat().st_size < 2**18
    tracemalloc.start()
    message = refusal(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "cannot be read: its " in message
    assert peak < 2**24


def test_header_of_an_npz_is_refused_before_its_content_is_read(tmp_path):
    arrays = {"fc6_W": np.zeros(2**23, np.float64)}
    path = write_npz(tmp_path / "weights.npz", arrays)
    tracemalloc.start()
    assert "fc6_W is float64, expected float32" in refusal(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**24


def test_compressed_weights_are_read(tmp_path):
    arrays = {"fc6_W": np.zeros((2**12, 2**10), np.float32)}  # 16 MiB in 16 kB
    np.savez_compressed(tmp_path / "weights.npz", **arrays)
    assert_same(read_file(str(tmp_path / "weights.npz")).arrays, arrays)


def test_zip_of_an_unknown_version_is_refused(tmp_path):
    path = write_npz(tmp_path / "weights.npz")
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 6] = 99  # version needed to extract
    path.write_bytes(content)
    assert "damaged" in refusal(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_name_that_is_there_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "weights.npz", "w") as archive:
        for value in (1.0, 2.0):
            member = io.BytesIO()
            np.save(member, np.full(2, value, np.float32))
            archive.writestr("fc6_b.npy", member.getvalue())
    assert "two arrays of one name" in refusal(tmp_path / "weights.npz")


def test_name_that_is_there_twice_in_safetensors_is_refused(tmp_path):
    entry = '"a": {"dtype": "F32", "shape": [1], "data_offsets": [%d, %d]}'
    header = f"{{{entry % (0, 4)}, {entry % (4, 8)}}}".encode()
    path = tmp_path / "weights.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    assert "damaged" in refusal(path)


def test_name_with_a_line_break_is_refused_in_one_line(tmp_path):
    arrays = {"fc6_W\nall is well": np.zeros(2, np.float32)}
    assert r"fc6_W\nall" in refusal(write_npz(tmp_path / "weights.npz", arrays))


def test_missing_file_and_folder_are_refused(tmp_path):
    assert "No such file" in refusal(tmp_path / "none.npz")
    assert "Is a directory" in refusal(tmp_path)


def test_pickled_objects_in_an_npz_are_not_executed(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").write_text, ("",))

    array = np.array([Bomb()], dtype=object)
    path = write_npz(tmp_path / "bomb.npz", {"fc6_W": array})
    assert "fc6_W is object, expected float32" in refusal(path)
    assert not (tmp_path / "ran").exists()


def test_published_name_with_other_content_is_refused(tmp_path):
    for name in ("vgg16-397923af.pth", "vgg16-00b39a1b.pth"):
        path = write_npz(tmp_path / name)
        assert f"expected {name[6:14]}" in refusal(path)


@pytest.mark.parametrize("package", ["h5py", "torch"])
def test_missing_package_is_named_with_its_extra(package, tmp_path, monkeypatch):
    extra = {"h5py": "keras", "torch": "torch"}[package]
    path = tmp_path / "weights"
    path.write_bytes({"h5py": b"\x89HDF\r\n\x1a\n", "torch": b"\x80\x02"}[package])
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    message = f"needs {package}: pip install 'frcnn_jax[{extra}]'"
    assert refusal(path).endswith(message)


def test_safetensors_and_npz_need_no_extra(tmp_path, monkeypatch):
    original = builtins.__import__

    def refuse(name, *args, **kwargs):
        assert name.split(".")[0] not in ("torch", "h5py")
        return original(name, *args, **kwargs)

    paths = [write_npz(tmp_path / "a"), write_safetensors(tmp_path / "b")]
    monkeypatch.setattr(builtins, "__import__", refuse)
    for path in paths:
        assert_same(read_file(str(path)).arrays, ARRAYS)
