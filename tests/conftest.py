"""Fixtures for all tests."""

import os
from pathlib import Path

import pytest

_DEFAULT_DATA = Path(__file__).parents[1] / ".." / "shared" / "data"


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data sets; skips the test where it is absent."""
    root = Path(os.environ.get("FRCNN_DATA", _DEFAULT_DATA)).resolve()
    if not root.is_dir():
        pytest.skip(f"no data at {root}; set FRCNN_DATA to the folder that has BCCD")
    return root
