"""Small data sets, written on the spot."""

from pathlib import Path

import pytest

from tests.helpers.voc_folder import VOCFolder, voc_object


@pytest.fixture
def voc_folder(tmp_path: Path) -> VOCFolder:
    return VOCFolder(tmp_path / "voc")


@pytest.fixture(name="voc_object")
def voc_object_fixture():
    return voc_object
