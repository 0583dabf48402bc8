"""Reads weight files: named float32 arrays, in one of several containers.

The container is recognized by its content, not by its name. Nothing in a file is ever
executed: PyTorch's are read with `weights_only=True`, NumPy's with
`allow_pickle=False`.
"""

import importlib
import math
import pickle
import zipfile
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import safetensors

from frcnn_jax.errors import UserError, first_line
from frcnn_jax.weights.download import file_sha256
from frcnn_jax.weights.sources import SourceFile, find_file

# Arrays may be this many times larger than their file, or this large in any case.
_MAX_COMPRESSION = 20
_ANY_SIZE = 2**26  # bytes

Content = tuple[dict[str, np.ndarray], dict[str, Any]]  # arrays and metadata


class WeightFile(NamedTuple):
    """What a file holds."""

    arrays: dict[str, np.ndarray]  # float32
    metadata: dict[str, Any]  # of safetensors; of PyTorch, what is beside the tensors
    sha256: str  # of the file


def read_file(source: str) -> WeightFile:
    """Reads the arrays of a weight file.

    Args:
      source: what `find_file` takes.

    Raises:
      UserError: if it cannot be found, is damaged, is not a weight file, needs a
        package that is not installed, would run code, has another SHA-256 than the
        source says, or has arrays that are not float32 or not finite.
    """
    file = find_file(source)
    try:
        return _read(file)
    except UserError as error:
        note = f" (downloaded to {file.path})" if file.is_download else ""
        raise UserError(f"{source}: {error}{note}") from None


def import_extra(package: str, extra: str) -> Any:
    """Imports a package that only one container needs.

    Args:
      package: name of the package.
      extra: of ours that installs it.

    Raises:
      UserError: if it is not installed; names the extra that has it.
    """
    try:
        return importlib.import_module(package)
    except ImportError:
        raise UserError(f"needs {package}: pip install 'frcnn_jax[{extra}]'") from None


def _read(file: SourceFile) -> WeightFile:
    try:
        digest = file_sha256(file.path)
    except OSError as error:
        raise UserError(first_line(error)) from None
    if not digest.startswith(file.sha256):
        raise UserError(
            f"its SHA-256 begins with {digest[:8]}, expected {file.sha256[:8]}; it is "
            "damaged or another file: delete it and get it again, or rename it"
        )
    try:
        arrays, metadata = _READERS[_container(file.path)](file.path)
        _check_values(arrays)
    except UserError:
        raise
    # Each library has its own errors for damage; no file should end in a traceback.
    except Exception as error:
        raise UserError(f"damaged, cannot be read ({first_line(error)})") from None
    return WeightFile(arrays, metadata, digest)


def _container(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(9)
    # First, as the length of the header, before its "{", may look like the others.
    if start[8:] == b"{":
        return "safetensors"
    if start.startswith(b"PK"):
        try:
            with zipfile.ZipFile(path) as archive:
                _check_unpacked(sum(i.file_size for i in archive.infolist()), path)
                is_numpy = all(name.endswith(".npy") for name in archive.namelist())
                # NumPy compares the checksums itself, PyTorch does not.
                altered = None if is_numpy else archive.testzip()
        except zipfile.BadZipFile:
            raise UserError("damaged, its end is missing") from None
        if altered:
            raise UserError(f"damaged, {altered} has another checksum")
        return "npz" if is_numpy else "torch"
    if start.startswith(b"\x80"):
        return "torch"
    if start.startswith(b"\x89HDF"):
        return "hdf5"
    raise UserError("not a weight file, expected .safetensors, .npz, .pth or .h5")


def _check_unpacked(num_bytes: int, path: Path) -> None:
    """Refuses a small file that would fill the memory: weights hardly compress."""
    file_size = path.stat().st_size
    if num_bytes > max(_ANY_SIZE, _MAX_COMPRESSION * file_size):
        raise UserError(
            f"cannot be read: its {file_size:,} bytes unpack to {num_bytes:,}, "
            f"expected at most {_MAX_COMPRESSION} times as many"
        )


def _check_header(name: str, dtype: np.dtype) -> None:
    if not name.isprintable():
        raise UserError(f"{name!r} cannot be the name of an array")
    if dtype != np.float32:
        raise UserError(f"{name} is {dtype}, expected float32")


def _check_values(arrays: dict[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        _check_header(name, array.dtype)
        if not np.isfinite(array).all():
            raise UserError(f"{name} has values that are not finite")


def _read_safetensors(path: Path) -> Content:
    with safetensors.safe_open(path, framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118, it is not a mapping
            dtype = file.get_slice(name).get_dtype()
            if dtype != "F32":  # NumPy has no bfloat16 to read it into
                raise UserError(f"{name} is {dtype}, expected F32 (float32)")
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return arrays, file.metadata() or {}


def _read_npz(path: Path) -> Content:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                _check_npy(member.filename.removesuffix(".npy"), file, member.file_size)
    with np.load(path, allow_pickle=False) as arrays:
        if len(set(arrays.files)) < len(arrays.files):
            raise UserError("has two arrays of one name")
        return {name: arrays[name] for name in arrays.files}, {}


def _check_npy(name: str, file: IO[bytes], num_bytes: int) -> None:
    """Checks what an array's header says, before anything of that size is read."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    _check_header(name, dtype)
    if file.tell() + math.prod(shape) * dtype.itemsize != num_bytes:
        raise ValueError(f"{name} is not an array of the shape {shape}")


def _read_hdf5(path: Path) -> Content:
    h5py = import_extra("h5py", "keras")
    datasets = {}

    def add(name, item):
        if isinstance(item, h5py.Dataset):
            datasets[name] = item

    with h5py.File(path) as file:
        file.visititems(add)
        for name, dataset in datasets.items():
            _check_header(name, dataset.dtype)
        _check_unpacked(sum(dataset.nbytes for dataset in datasets.values()), path)
        return {name: np.asarray(data[()]) for name, data in datasets.items()}, {}


def _read_torch(path: Path) -> Content:
    torch = import_extra("torch", "torch")
    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            "holds more than tensors, and reading that would run its code: refused"
        ) from None
    metadata = {}
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        metadata = {name: value for name, value in content.items() if name != "model"}
        content = content["model"]
    if not isinstance(content, dict):
        raise UserError(f"holds a {type(content).__name__}, expected a state dict")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise UserError(
                f"{name} is a {type(value).__name__}, expected tensors by name"
            )
        if value.dtype != torch.float32:
            raise UserError(f"{name} is {value.dtype}, expected torch.float32")
    _check_unpacked(sum(4 * value.numel() for value in content.values()), path)
    return {name: value.detach().numpy() for name, value in content.items()}, metadata


def _numpy_scalars() -> list[Any]:
    """Lists what a pickled NumPy number is made of, by its old and new names.

    simple-faster-rcnn-pytorch keeps its best mAP, such a number, in its checkpoints.
    """
    scalar = np.float64(0.0).__reduce__()[0]
    return [
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        np.dtype,
        type(np.dtype(np.float64)),
        type(np.dtype(np.float32)),
    ]


_READERS = {
    "safetensors": _read_safetensors,
    "npz": _read_npz,
    "hdf5": _read_hdf5,
    "torch": _read_torch,
}
