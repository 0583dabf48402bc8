"""Images of a listing, whatever its format."""

import pickle

import numpy as np
import pytest
from PIL import ExifTags, Image

from frcnn_jax.data.records import Source
from frcnn_jax.data.sources.folder import FolderSource
from frcnn_jax.data.sources.listing import ListedImage, ListedObject, Listing
from frcnn_jax.data.sources.raw import check_source
from frcnn_jax.errors import UserError
from tests.helpers.pictures import save_noise


def listing(path, *boxes, size=None, **options):
    objects = [ListedObject("cat", box) for box in boxes]
    image = ListedImage("a", path, objects, "photos.csv line 1", size)
    return Listing(("dog", "cat"), [image], **options)


@pytest.fixture
def photo(tmp_path):
    return save_noise(tmp_path / "a.jpg", (60, 80))


@pytest.fixture
def turned(tmp_path):
    """A photo of 60 x 80 pixels (height x width), stored as 80 x 60."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    path = tmp_path / "turned.jpg"
    Image.new("RGB", (60, 80)).save(path, exif=exif)
    return path


def test_a_listing_becomes_records(photo):
    source = check_source(FolderSource(listing(photo, (1, 2, 30.5, 40))))
    assert isinstance(source, Source)
    (annotation,) = source.annotations
    np.testing.assert_array_equal(annotation.boxes, [[1, 2, 30.5, 40]])
    np.testing.assert_array_equal(annotation.labels, [1])
    assert (annotation.image_id, annotation.image_size) == ("a", (60, 80))
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy.read_image(0), source.read_image(0))


def test_fractions_are_those_of_the_upright_sides(turned):
    source = check_source(
        FolderSource(listing(turned, (0, 0.25, 0.5, 1), in_fractions=True))
    )
    np.testing.assert_array_equal(source.annotations[0].boxes, [[0, 20, 30, 80]])


@pytest.mark.parametrize("size", [None, (60, 80), (0, 0)])
def test_an_upright_or_unknown_size_is_accepted(turned, size, caplog):
    source = check_source(FolderSource(listing(turned, (0, 0, 60, 80), size=size)))
    assert source.annotations[0].image_size == (60, 80)
    assert not caplog.records


def test_a_size_before_turning_is_refused(turned):
    message = r"^photos\.csv line 1: has the size 80x60 .* expected 60x80 as of"
    with pytest.raises(UserError, match=message):
        check_source(FolderSource(listing(turned, (0, 0, 80, 60), size=(80, 60))))


def test_another_size_is_warned_of(photo, caplog):
    check_source(FolderSource(listing(photo, (0, 0, 30, 40), size=(30, 40))))
    assert caplog.messages == [
        "1 images have another size than their annotation says, so their boxes may be "
        "wrong: a"
    ]


def test_fractions_where_pixels_are_expected_are_refused(photo):
    message = r"^photos\.csv line 1: no box leaves the first pixel"
    with pytest.raises(UserError, match=message):
        check_source(FolderSource(listing(photo, (0.25, 0.25, 0.5, 1.0))))
    assert check_source(FolderSource(listing(photo))).annotations[0].boxes.shape == (
        0,
        4,
    )


def test_boxes_far_outside_are_clipped_or_dropped_with_a_warning(photo, caplog):
    source = check_source(
        FolderSource(listing(photo, (0, 0, 1e9, 1e9), (-1e9, -1e9, -1, -1)))
    )
    np.testing.assert_array_equal(source.annotations[0].boxes, [[0, 0, 60, 80]])
    assert [message.split()[0] for message in caplog.messages] == ["clipped", "dropped"]


def test_skip_broken_keeps_records_and_images_together(tmp_path, caplog):
    paths = [save_noise(tmp_path / f"{n}.png", (9 + n, 9)) for n in range(3)]
    paths[1].write_bytes(paths[1].read_bytes()[:60])
    images = [ListedImage(path.stem, path, [], "") for path in paths]
    source = check_source(FolderSource(Listing(("cat",), images)), skip_broken=True)
    assert [each.image_id for each in source.annotations] == ["0", "2"]
    assert [source.read_image(n).shape[0] for n in (0, 1)] == [9, 11]
    assert caplog.messages == ["left out 1 broken images: 1"]
