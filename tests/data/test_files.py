"""Finding images in a folder."""

from frcnn_jax.data.sources.files import find_images


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_images_below_are_found_in_the_order_of_their_paths(tmp_path):
    paths = [touch(tmp_path / name) for name in ("a/z.jpg", "b.PNG", "c/d/a.webp")]
    touch(tmp_path / "notes.txt")
    touch(tmp_path / "a" / "._z.jpg")
    (tmp_path / "folder.jpg").mkdir()
    assert find_images(tmp_path) == paths


def test_linked_folders_and_files_are_followed(tmp_path):
    elsewhere, root = tmp_path / "elsewhere", tmp_path / "root"
    touch(elsewhere / "deep" / "a.jpg")
    touch(root / "b.jpg")
    (root / "more").symlink_to(elsewhere)
    (root / "c.jpg").symlink_to(elsewhere / "deep" / "a.jpg")
    names = ["b.jpg", "c.jpg", "more/deep/a.jpg"]
    assert find_images(root) == [root / name for name in names]
    (tmp_path / "link").symlink_to(root)
    assert len(find_images(tmp_path / "link")) == 3


def test_links_to_a_folder_that_they_are_in_are_not_followed(tmp_path):
    path = touch(tmp_path / "a" / "1.jpg")
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "to_b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to_a").symlink_to(tmp_path / "a")
    assert find_images(tmp_path) == [path, tmp_path / "b" / "to_a" / "1.jpg"]
