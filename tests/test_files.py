"""Paths are checked before long work, and written to as a whole."""

import os
from pathlib import Path

import pytest

from frcnn_jax.errors import UserError
from frcnn_jax.files import check_new_file, expand_home, new_folder


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder", "is a folder, expected a file"),
        ("missing/file", "there is no folder"),
        ("file/file", "there is no folder"),
    ],
)
def test_a_path_that_no_file_can_have_is_refused(name, message, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=message):
        check_new_file(tmp_path / name)
    check_new_file(tmp_path / "new")
    check_new_file(tmp_path / "file")


def test_home_is_expanded_where_there_is_one(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    assert (
        expand_home("~/runs") == expand_home(Path("~/runs")) == Path("/home/ada/runs")
    )
    for name in ("~nobody_of_this_name/runs", "a~/b", "~model.npz"):
        assert expand_home(name) == Path(name)


def test_a_folder_without_permission_is_refused(tmp_path, monkeypatch):
    # The tests may run as root, who may write everywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(UserError, match=f"^cannot write {tmp_path}/a: Permission den"):
        check_new_file(tmp_path / "a")


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_to_a_new_or_empty_folder_stays_a_link(exists, tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    if exists:
        target.mkdir()
    link.symlink_to(target)
    with new_folder(link) as folder:
        (folder / "a").touch()
    assert link.is_symlink()
    assert [path.name for path in target.iterdir()] == ["a"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "target"]


def test_the_current_folder_is_filled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with new_folder(Path(".")) as folder:
        (folder / "a").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_link_to_a_full_folder_is_refused(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "a").touch()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with (
        pytest.raises(UserError, match="target: exists already, expected a new or"),
        new_folder(tmp_path / "link"),
    ):
        pass
