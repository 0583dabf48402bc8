"""Pictures of every color mode, orientation and kind of damage."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image

from frcnn_jax.data import images
from frcnn_jax.errors import UserError

RED = (200, 30, 60)
GRAY = np.arange(256, dtype=np.uint8).reshape(16, 16)


def encode(image, file_format, **options):
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return io.BytesIO(stream.getvalue())


def read(stream):
    """Reads an image, and checks that its header has the size of its pixels."""
    pixels = images.read_rgb(stream, "a")
    assert pixels.dtype == np.uint8
    stream.seek(0)
    assert (*images.read_size(stream, "a"), 3) == pixels.shape
    return pixels


def refuse(stream, message):
    for read_something in (images.read_size, images.read_rgb):
        with pytest.raises(UserError, match=message) as error:
            read_something(stream, "pets/a.jpg")
        assert "\n" not in str(error.value)


def gray_rgb(levels):
    return np.repeat(levels[..., None], 3, axis=-1)


@pytest.mark.parametrize(
    "mode",
    ["RGB", "RGBA", "RGBX", "RGBa", "P", "CMYK", "YCbCr", "LAB", "HSV"],
)
def test_colors_of_every_mode_stay(mode):
    pixels = images.to_rgb(Image.new("RGB", (4, 3), RED).convert(mode))
    assert pixels.shape == (3, 4, 3)
    tolerance = 21 if mode == "P" else 2  # The web palette has steps of 51.
    np.testing.assert_allclose(pixels[1, 2], RED, atol=tolerance)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "PA"])
def test_gray_of_every_mode_stays(mode):
    bands = Image.fromarray(np.array([[0, 255]], np.uint8))
    image = bands.convert("P" if mode == "PA" else mode)
    if mode == "PA":
        image.putalpha(Image.new("L", image.size, 128))
        assert image.mode == "PA"
    np.testing.assert_array_equal(images.to_rgb(image), gray_rgb(np.array([[0, 255]])))


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_gray_of_16_bits_is_scaled(dtype, file_format):
    values = GRAY.astype(np.uint16) * 257  # 0 is black and 65535 white.
    image = Image.fromarray(values.astype(dtype))
    assert image.mode.startswith("I;16")
    np.testing.assert_array_equal(images.to_rgb(image), gray_rgb(GRAY))
    if dtype == "<u2":
        np.testing.assert_array_equal(read(encode(image, file_format)), gray_rgb(GRAY))


def test_gray_of_16_bits_is_rounded_to_the_nearest_level():
    values = np.array([[0, 128, 129, 40000, 65535]], np.uint16)
    pixels = images.to_rgb(Image.fromarray(values))
    np.testing.assert_array_equal(pixels[0, :, 0], [0, 0, 1, 156, 255])


@pytest.mark.parametrize(
    ("dtype", "white"),
    [("i4", 255), ("i4", 65535), ("f4", 1), ("f4", 255), ("f4", 65535)],
)
def test_gray_of_32_bits_is_scaled_by_the_white_that_its_values_fit_under(dtype, white):
    values = (GRAY * (white / 255)).astype(dtype)
    image = Image.fromarray(values)
    assert image.mode == ("I" if dtype == "i4" else "F")
    np.testing.assert_array_equal(images.to_rgb(image), gray_rgb(GRAY))
    np.testing.assert_array_equal(read(encode(image, "TIFF")), gray_rgb(GRAY))


def test_negative_gray_is_black():
    image = Image.fromarray(np.array([[-5, 255]], np.int32))
    np.testing.assert_array_equal(images.to_rgb(image)[0, :, 0], [0, 255])


@pytest.mark.parametrize("value", [65536, 1e30, np.inf, np.nan])
def test_gray_beyond_16_bits_is_refused(value):
    image = Image.fromarray(np.array([[0, value]], np.float32))
    with pytest.raises(UserError, match=r"image x: a gray value of mode F .* 65535"):
        images.to_rgb(image, "x")


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_colors_under_transparency_stay(file_format):
    image = Image.new("RGBA", (4, 3), (*RED, 0))
    stream = encode(image, file_format, lossless=True, exact=True)
    assert (read(stream) == RED).all()


@pytest.mark.parametrize("transparency", [0, bytes([0, 128])])
def test_a_palette_with_transparency_keeps_its_colors_without_a_warning(transparency):
    image = Image.new("P", (4, 3))
    image.putpalette([*RED, 0, 0, 0])
    assert (read(encode(image, "PNG", transparency=transparency)) == RED).all()


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_a_transparent_color_stays_what_it_is(mode):
    image = Image.new(mode, (4, 3), "white")
    color = image.getpixel((0, 0))
    stream = encode(image, "PNG", transparency=color)
    assert (read(stream) == 255).all()


# A picture that differs from its every turn and reflection.
UPRIGHT = np.zeros((16, 24, 3), np.uint8)
UPRIGHT[:8, :8] = 255
UPRIGHT[:8, 8:] = 100


def stored(orientation):
    """The pixels that a camera stores: turned upright, they are `UPRIGHT`."""
    by_orientation = {
        1: UPRIGHT,
        2: UPRIGHT[:, ::-1],
        3: UPRIGHT[::-1, ::-1],
        4: UPRIGHT[::-1],
        5: UPRIGHT.swapaxes(0, 1),
        6: UPRIGHT.swapaxes(0, 1)[::-1],
        7: UPRIGHT[::-1, ::-1].swapaxes(0, 1),
        8: UPRIGHT.swapaxes(0, 1)[:, ::-1],
    }
    return Image.fromarray(np.ascontiguousarray(by_orientation[orientation]))


def orientation_tag(orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_exif_orientation_is_applied(orientation, file_format):
    exif = orientation_tag(orientation)
    stream = encode(stored(orientation), file_format, exif=exif)
    np.testing.assert_allclose(read(stream), UPRIGHT, atol=6)
    stream.seek(0)
    np.testing.assert_allclose(images.to_rgb(Image.open(stream)), UPRIGHT, atol=6)


def test_16_bits_are_turned_upright_too():
    values = np.array([[0, 65535, 0]], np.uint16)
    stream = encode(Image.fromarray(values), "PNG", exif=orientation_tag(6))
    np.testing.assert_array_equal(read(stream)[:, 0, 0], [0, 255, 0])


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_unknown_orientation_is_none(orientation):
    stream = encode(stored(1), "PNG", exif=orientation_tag(orientation))
    np.testing.assert_array_equal(read(stream), UPRIGHT)


def test_damaged_metadata_change_nothing():
    exif = orientation_tag(6).tobytes()
    for length in range(len(exif)):
        pixels = read(encode(stored(6), "JPEG", exif=exif[:length]))
        assert pixels.shape in (UPRIGHT.shape, UPRIGHT.swapaxes(0, 1).shape)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_the_size_comes_from_the_header(file_format, monkeypatch):
    stream = encode(stored(6), file_format, exif=orientation_tag(6))
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decodes"))
    assert images.read_size(stream, "a") == (16, 24)


def save(path, size, orientation):
    Image.new("RGB", size[::-1]).save(path, exif=orientation_tag(orientation))
    return path


@pytest.mark.parametrize(
    ("annotated", "orientation"),
    [(None, 6), ((8, 6), 6), ((5, 5), 6), ((6, 8), 1), ((8, 6), 1), ((6, 8), 3)],
)
def test_an_annotated_size_may_be_absent_upright_or_neither(
    tmp_path, annotated, orientation
):
    path = save(tmp_path / "a.jpg", (6, 8), orientation)
    expected = (8, 6) if orientation == 6 else (6, 8)
    assert images.read_annotated_size(path, annotated, "a.xml") == expected


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_an_annotated_size_of_the_stored_pixels_is_refused(tmp_path, orientation):
    path = save(tmp_path / "a.jpg", (6, 8), orientation)
    message = r"a\.xml: has the size 6x8 .*, expected 8x6 as of .*a\.jpg .*orientation"
    with pytest.raises(UserError, match=message) as error:
        images.read_annotated_size(path, (6, 8), "a.xml")
    assert "\n" not in str(error.value)


def test_a_square_image_is_the_same_size_either_way(tmp_path):
    path = save(tmp_path / "a.jpg", (6, 6), 6)
    assert images.read_annotated_size(path, (6, 6), "a.xml") == (6, 6)


def png(height, width):
    """A picture of one color, whatever size its header states."""

    def chunk(name, content):
        checksum = zlib.crc32(name + content)
        return (
            struct.pack(">I", len(content))
            + name
            + content
            + struct.pack(">I", checksum)
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(4 * 5))
    chunks = (chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b""))
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


@pytest.mark.parametrize("sides", [(10_000, 9_000), (100_000, 90_000)])
def test_a_decompression_bomb_is_refused_without_a_warning(sides):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        refuse(png(*sides), r"cannot read image pets/a\.jpg: .* exceeds limit")
    assert not caught


def test_the_limit_of_pixels_is_that_of_pillow(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    assert read(png(4, 4)).shape == (4, 4, 3)
    refuse(png(4, 6), "exceeds limit of 20")


def test_an_image_of_one_pixel_is_read():
    assert (read(encode(Image.new("RGB", (1, 1), RED), "PNG")) == [[RED]]).all()


@pytest.mark.parametrize("content", [b"", b"no image", png(0, 4), png(4, 0)])
def test_what_is_no_image_is_refused(content):
    stream = content if isinstance(content, io.BytesIO) else io.BytesIO(content)
    refuse(stream, r"cannot read image pets/a\.jpg: .")


def test_a_file_that_would_start_ghostscript_is_refused():
    refuse(encode(Image.new("RGB", (8, 8)), "EPS"), "cannot identify image file")


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_is_its_first_frame(file_format):
    frames = [Image.new("RGB", (4, 3), color) for color in ("red", "blue")]
    options = {"save_all": True, "append_images": frames[1:]}
    stream = encode(frames[0], file_format, **options)
    assert Image.open(stream).n_frames == 2
    np.testing.assert_allclose(read(stream), np.full((3, 4, 3), [255, 0, 0]), atol=3)


def test_a_truncated_image_is_refused_as_a_file_and_as_an_image(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    content = encode(Image.fromarray(noise), "JPEG").getvalue()
    path = tmp_path / "a.jpg"
    path.write_bytes(content[: len(content) // 2])
    assert images.read_size(path, str(path)) == (40, 40)
    with pytest.raises(UserError, match=r"cannot read image .*/a\.jpg: .*truncated"):
        images.read_rgb(path, str(path))
    with (
        Image.open(path) as image,
        pytest.raises(UserError, match=r"cannot read image given: .*truncated"),
    ):
        images.to_rgb(image)
