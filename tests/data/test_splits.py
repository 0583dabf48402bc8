"""Splits by name: slices, joined parts, folders within."""

import pytest

from frcnn_jax.data.sources import splits
from frcnn_jax.data.sources.listing import ListedImage, Listing
from frcnn_jax.errors import UserError

NUM_IMAGES = {"all": 40, "few": 3, "none": 0}


def list_images(root, name):
    """A format whose folders have three splits, each of images of its own."""
    images = [
        ListedImage(f"{name}{n}", root / f"{name}{n}.jpg", [], "")
        for n in range(NUM_IMAGES[name])
    ]
    return Listing(("cat", "dog") if name == "all" else ("dog", "ant"), images)


@pytest.fixture
def ids(tmp_path):
    (tmp_path / "sub").mkdir()

    def find(split, seed=0):
        listing = splits.list_split(list_images, tmp_path, split, seed)
        return [image.image_id for image in listing.images]

    return find


@pytest.mark.parametrize("percent", [2, 33, 50, 80, 97])
def test_the_two_sides_of_a_cut_are_the_whole(ids, percent):
    first, second = ids(f"all[:{percent}%]"), ids(f"all[{percent}%:]")
    assert len(first) == round(0.4 * percent)
    assert sorted(first + second) == sorted(ids("all"))


def test_a_slice_keeps_the_order_and_takes_images_by_chance(ids):
    chosen, everything = ids("all[:50%]"), ids("all")
    assert chosen == sorted(chosen, key=everything.index)
    assert chosen not in (everything[:20], everything[20:])
    assert chosen == ids("all[:50%]")


def test_another_seed_gives_another_slice(ids):
    assert ids("all[:50%]", seed=1) != ids("all[:50%]")
    assert ids("all[:]", seed=1) == ids("all")


def test_slices_within_do_not_overlap(ids):
    parts = [ids(f"all[{p}%:{p + 10}%]") for p in range(0, 100, 10)]
    assert [len(part) for part in parts] == [4] * 10
    assert sorted(name for part in parts for name in part) == sorted(ids("all"))


def test_a_larger_slice_contains_a_smaller_one(ids):
    assert set(ids("all[:30%]")) < set(ids("all[:60%]"))


def test_parts_are_joined_in_order(ids):
    assert ids("few+all[:10%]") == ids("few") + ids("all[:10%]")


def test_images_of_a_folder_within_are_called_by_it(ids):
    assert ids("sub/few+few") == [*(f"sub/{name}" for name in ids("few")), *ids("few")]


def test_joined_classes_are_all_of_them_sorted(tmp_path):
    def find(split):
        return splits.list_split(list_images, tmp_path, split, 0).class_names

    assert find("few") == ("dog", "ant")
    assert find("all+few") == ("ant", "cat", "dog")


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("few+few", r"'few\+few' of .* has image few0 more than once"),
        ("all[:50%]+all", r"has image all\d+ more than once"),
        ("none", r"split 'none' of .* has no images"),
        ("few[:10%]", r"split 'few\[:10%\]' of .* has no images"),
        (
            "all[:10]",
            r"split is 'all\[:10\]'; expected a name, or as in 'train\[:80%\]'",
        ),
        ("all[10%]", r"split is 'all\[10%\]'; expected a name"),
        ("all[:-5%]", r"split is 'all\[:-5%\]'; expected a name"),
        ("all[:50%", r"split is 'all\[:50%'; expected a name"),
        ("all[:101%]", r"split is 'all\[:101%\]'; expected rising numbers up to 100%"),
        ("all[50%:50%]", r"expected rising numbers up to 100%"),
        ("all[60%:50%]", r"expected rising numbers up to 100%"),
        ("other/few", r"other is not a folder; expected a data set"),
    ],
)
def test_a_wrong_split_is_refused(ids, split, message):
    with pytest.raises(UserError, match=message):
        ids(split)


@pytest.mark.parametrize("split", ["all", "all[:50%]", "few+sub/all"])
def test_a_name_that_no_text_can_hold_is_refused(tmp_path, split):
    (tmp_path / "sub").mkdir()

    def list_latin1(root, name):
        listing = list_images(root, name)
        image = ListedImage("caf\udce9.jpg", root / "caf\udce9.jpg", [], "")
        return listing._replace(images=[*listing.images, image])

    with pytest.raises(UserError, match=r"an image is 'caf\\udce9.jpg'; .* UTF-8"):
        splits.list_split(list_latin1, tmp_path, split, seed=0)


def test_a_class_that_no_text_can_hold_is_refused(tmp_path):
    listing = list_images(tmp_path, "few")._replace(class_names=("a", "\ud800"))
    with pytest.raises(UserError, match=r"a class is '\\ud800'; .* UTF-8"):
        splits.list_split(lambda *_: listing, tmp_path, "few", seed=0)
