"""PyTorch's files, of both formats: state dicts are read, code is never executed."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from frcnn_jax.weights.files import read_file
from tests.helpers.containers import ARRAYS, assert_same, refusal

torch = pytest.importorskip("torch", reason="needs the extra parity")

TENSORS = {name: torch.from_numpy(array) for name, array in ARRAYS.items()}

both_formats = pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "legacy"])


def save(path: Path, content, as_zip: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=as_zip)
    return path


@both_formats
def test_state_dict_is_read_bit_for_bit(as_zip, tmp_path):
    path = save(tmp_path / "weights.pth", TENSORS, as_zip)
    assert_same(read_file(str(path)).arrays, ARRAYS)


@both_formats
def test_checkpoint_is_read_with_what_is_beside_its_model(as_zip, tmp_path):
    # As simple-faster-rcnn-pytorch saves it.
    content = {
        "model": TENSORS,
        "config": {"caffe_pretrain": True},
        "other_info": {"best_map": np.float64(0.7)},
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]},
    }
    file = read_file(str(save(tmp_path / "weights.pth", content, as_zip)))
    assert_same(file.arrays, ARRAYS)
    assert file.metadata["config"] == {"caffe_pretrain": True}
    assert file.metadata["other_info"] == {"best_map": 0.7}


def test_number_that_an_old_numpy_pickled_is_read(tmp_path):
    # NumPy 1 calls its module `numpy.core`, NumPy 2 `numpy._core`.
    path = save(tmp_path / "weights.pth", {"model": {}, "map": np.float64(0.7)}, False)
    content = path.read_bytes()
    renamed = content.replace(b"numpy._core.multi", b"numpy.core.multi")
    path.write_bytes(renamed)
    assert read_file(str(path)).metadata == {"map": 0.7}


def test_parameters_and_strided_tensors_are_read(tmp_path):
    strided = torch.arange(6.0).reshape(2, 3).T
    content = {"a": torch.nn.Parameter(strided), "b": strided[::2]}
    arrays = read_file(str(save(tmp_path / "weights.pth", content))).arrays
    np.testing.assert_array_equal(arrays["a"], [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(arrays["b"], [[0, 3], [2, 5]])


def test_file_of_another_suffix_is_read_by_its_content(tmp_path):
    path = save(tmp_path / "weights.npz", TENSORS)
    assert_same(read_file(str(path)).arrays, ARRAYS)


@both_formats
@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.99])
def test_truncated_file_is_refused(as_zip, share, tmp_path):
    path = save(tmp_path / "weights.pth", TENSORS, as_zip)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refusal(path)


def test_altered_number_is_refused_by_its_checksum(tmp_path):
    path = save(tmp_path / "weights.pth", {"a": torch.full((9,), 3.0)})
    three, four = np.array([3.0, 4.0], np.float32).view("S4")
    path.write_bytes(path.read_bytes().replace(three, four, 1))
    assert "checksum" in refusal(path)


@both_formats
def test_pickled_code_is_not_executed(as_zip, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path = save(tmp_path / "bomb.pth", TENSORS | {"bomb": Bomb()}, as_zip)
    assert "would run its code" in refusal(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", [2, 4])
def test_plain_pickle_is_not_executed(protocol, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path = tmp_path / "bomb.pth"
    path.write_bytes(pickle.dumps({"bomb": Bomb()}, protocol=protocol))
    refusal(path)
    assert not (tmp_path / "ran").exists()


@both_formats
def test_whole_module_is_refused(as_zip, tmp_path):
    path = save(tmp_path / "module.pth", torch.nn.Linear(2, 2), as_zip)
    assert "holds more than tensors" in refusal(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], "holds a list"),
        (torch.zeros(1), "holds a Tensor"),
        ({"state_dict": TENSORS}, "state_dict is a dict"),
        (TENSORS | {"epoch": 3}, "epoch is a int"),
        (TENSORS | {0: torch.zeros(1)}, "0 is a Tensor, expected tensors by name"),
        (TENSORS | {"x": torch.zeros(2, dtype=torch.float16)}, "x is torch.float16"),
        (TENSORS | {"x": torch.zeros(2, dtype=torch.bfloat16)}, "x is torch.bfloat16"),
        (TENSORS | {"x": torch.zeros(2, dtype=torch.float64)}, "x is torch.float64"),
        (TENSORS | {"x": torch.tensor([torch.nan])}, "x has values that are not"),
        (TENSORS | {"x": torch.ones(2).to_sparse()}, "cannot be read"),
        (TENSORS | {"x": torch.zeros(1).expand(10**13)}, "cannot be read"),
    ],
    ids=[
        "list",
        "tensor",
        "wrapped",
        "number",
        "no-name",
        "half",
        "bfloat16",
        "double",
        "nan",
        "sparse",
        "terabytes",
    ],
)
def test_other_content_is_refused_by_name(content, message, tmp_path):
    assert message in refusal(save(tmp_path / "weights.pth", content))
