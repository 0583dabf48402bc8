"""Draws outlines and texts on a picture, and joins pictures.

All positions are `(left, top, right, bottom)` in pixels of the picture, right and
bottom being the last pixels inside, as in Pillow. Nothing is drawn outside.
"""

import colorsys
import math
import typing
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Box = tuple[int, int, int, int]
Color = tuple[int, int, int]

WHITE = (255, 255, 255)
_MARGIN = 3  # pixels, around a text and between pictures


def class_color(label: int) -> Color:
    """Returns a bright color; those of neighboring labels are far apart."""
    # Steps of the golden ratio go round the hues without coming near an earlier one.
    rgb = colorsys.hsv_to_rgb(0.618034 * label % 1.0, 0.65, 1.0)
    red, green, blue = (round(255 * channel) for channel in rgb)
    return red, green, blue


def pixel_box(box: np.ndarray, picture: Image.Image) -> Box:
    """Rounds a box to the pixels of a picture that it covers, at least one.

    Args:
      box: [4] `(y_min, x_min, y_max, x_max)`, max edge exclusive, in its pixels.
      picture: that it is drawn on.
    """
    last = np.array([picture.height, picture.width]) - 1
    corners = np.round(box).astype(int).reshape(2, 2)
    top_left = np.clip(corners[0], 0, last)
    bottom_right = np.clip(corners[1] - 1, top_left, last)
    (top, left), (bottom, right) = top_left.tolist(), bottom_right.tolist()
    return left, top, right, bottom


def draw_outline(picture: Image.Image, box: Box, color: Color) -> None:
    """Draws the edges of a box, set off by thin black lines on both sides.

    Args:
      picture: to draw on.
      box: in its pixels.
      color: of the edges.
    """
    draw, width = ImageDraw.Draw(picture), _line_width(picture)
    left, top, right, bottom = box
    around = (left - 1, top - 1, right + 1, bottom + 1)
    draw.rectangle(around, outline="black", width=width + 2)
    draw.rectangle(box, outline=color, width=width)


def draw_dashes(picture: Image.Image, box: Box, color: Color) -> None:
    """Draws the edges of a box in dashes of a color and black.

    Args:
      picture: to draw on.
      box: in its pixels.
      color: of every other dash.
    """
    draw, width = ImageDraw.Draw(picture), _line_width(picture)
    draw.rectangle(box, outline=color, width=width)
    left, top, right, bottom = box
    dash, across = 4 * width, width - 1
    for x in range(left + dash, right, 2 * dash):
        end = min(x + dash - 1, right)
        for y in (top, max(top, bottom - across)):
            draw.rectangle((x, y, end, y + across), fill="black")
    for y in range(top + dash, bottom, 2 * dash):
        end = min(y + dash - 1, bottom)
        for x in (left, max(left, right - across)):
            draw.rectangle((x, y, x + across, end), fill="black")


def draw_texts(
    picture: Image.Image,
    boxes: Sequence[Box],
    texts: Sequence[str],
    colors: Sequence[Color],
) -> None:
    """Writes a text at each box, black on a plate of its color.

    Of the places at the box's corners, a text takes the one that covers least of the
    earlier texts. A text wider than the picture is cut.

    Args:
      picture: to draw on.
      boxes: where the texts belong, in its pixels.
      texts: one for each box.
      colors: of the plates.
    """
    draw, font = ImageDraw.Draw(picture), _font(picture)
    taken: list[Box] = []
    for box, text, color in zip(boxes, texts, colors, strict=True):
        text = _shorten(text, font, picture.width)
        size = (_width(text, font), sum(font.getmetrics()))
        places = _places(box, size, picture.size)
        plate = min(places, key=lambda p: sum(_common_area(p, q) for q in taken))
        draw.rectangle(plate, fill=color)
        draw.text((plate[0] + _MARGIN, plate[1]), text, font=font, fill="black")
        taken.append(plate)


def side_by_side(
    pictures: Sequence[Image.Image], captions: Sequence[str]
) -> Image.Image:
    """Joins pictures, each below its caption, on white.

    Args:
      pictures: of one size.
      captions: one for each picture.
    """
    width, height = pictures[0].size
    font = _font(pictures[0])
    top = sum(font.getmetrics()) + _MARGIN
    total_width = len(pictures) * (width + _MARGIN) - _MARGIN
    joined = Image.new("RGB", (total_width, top + height), WHITE)
    draw = ImageDraw.Draw(joined)
    for index, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left = index * (width + _MARGIN)
        caption = _shorten(caption, font, width)
        draw.text((left + _MARGIN, 0), caption, font=font, fill="black")
        joined.paste(picture, (left, top))
    return joined


def _line_width(picture: Image.Image) -> int:
    return max(2, max(picture.size) // 220)


def _font(picture: Image.Image) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(max(12, max(picture.size) // 48))
    return typing.cast(ImageFont.FreeTypeFont, font)  # as a size is given


def _width(text: str, font: ImageFont.FreeTypeFont) -> int:
    return math.ceil(font.getlength(text)) + 2 * _MARGIN


def _shorten(text: str, font: ImageFont.FreeTypeFont, max_width: int) -> str:
    while text and _width(text, font) > max_width:
        text = text[:-1]
    return text


def _places(
    box: Box, size: tuple[int, int], picture_size: tuple[int, int]
) -> Iterator[Box]:
    """Lists where a text of a size may stand at a box, the best place first."""
    (left, top, right, bottom), (width, height) = box, size
    # Above the box, in it at the top, in it at the bottom, below it.
    for y in (top - height, top, bottom - height + 1, bottom + 1):
        for x in (left, right - width + 1):
            x = max(0, min(x, picture_size[0] - width))
            y = max(0, min(y, picture_size[1] - height))
            yield x, y, x + width - 1, y + height - 1


def _common_area(box: Box, other: Box) -> int:
    width = min(box[2], other[2]) - max(box[0], other[0]) + 1
    height = min(box[3], other[3]) - max(box[1], other[1]) + 1
    return max(0, width) * max(0, height)
