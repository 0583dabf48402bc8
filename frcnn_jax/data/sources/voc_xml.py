"""One annotation file in PASCAL VOC format.

VOC counts pixels from 1 and includes the last one. Boxes are returned as everywhere:
`(y_min, x_min, y_max, x_max)` from 0, max edge exclusive; so 1 is subtracted from the
minima, and the maxima stay.
"""

from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element, ParseError

import defusedxml
from defusedxml import ElementTree

from frcnn_jax.data.sources import files
from frcnn_jax.data.sources.listing import ListedObject
from frcnn_jax.errors import UserError

# A box whose file says x_max <= x_min is at most one pixel wide here.
EMPTY_SIDE = 1.0


class AnnotationFile(NamedTuple):
    """What an annotation file holds."""

    objects: list[ListedObject]  # Perhaps none.
    image_size: tuple[int, int] | None  # (height, width), if the file has it.


def parse(path: Path) -> AnnotationFile:
    """Reads an annotation file.

    Raises:
      UserError: if the file is missing or malformed; names it, the field and its
        value.
    """
    try:
        tree = ElementTree.parse(path, forbid_dtd=True)
    except defusedxml.DTDForbidden:
        raise UserError(f"{path}: has a <!DOCTYPE>, expected none") from None
    # An unknown encoding is a LookupError, one that does not decode a ValueError.
    except (OSError, ParseError, LookupError, ValueError) as error:
        raise UserError(f"cannot read annotation {path}: {error}") from error
    objects = [_parse_object(element, path) for element in tree.findall("object")]
    return AnnotationFile(objects, _parse_size(tree.getroot()))


def _parse_size(root: Element) -> tuple[int, int] | None:
    height, width = (root.findtext(f"size/{side}", "") for side in ("height", "width"))
    try:
        return int(height), int(width)
    except ValueError:
        return None


def _parse_object(element: Element, path: Path) -> ListedObject:
    name = " ".join(element.findtext("name", "").split())
    if not name:
        raise UserError(f"{path}: an <object> has no <name>")
    difficult = element.findtext("difficult", "0").strip()
    if difficult not in ("0", "1"):
        raise UserError(f"{path}: <difficult> is {difficult!r}; expected 0 or 1")
    x_min, y_min, x_max, y_max = (
        files.parse_number(
            element.findtext(f"bndbox/{edge}"), f"{path}: <bndbox/{edge}>"
        )
        for edge in ("xmin", "ymin", "xmax", "ymax")
    )
    return ListedObject(name, (y_min - 1, x_min - 1, y_max, x_max), difficult == "1")
