"""A small data set in VOC format, written on the spot."""

from collections.abc import Sequence
from pathlib import Path

from frcnn_jax.config import DataConfig
from frcnn_jax.data.records import Source
from frcnn_jax.data.sources import open_source
from tests.helpers.pictures import save_noise


class VOCFolder:
    """Writes a data set in VOC format, one image at a time."""

    def __init__(self, root: Path, *, exist_ok: bool = False):
        """Creates the folders."""
        self.root = root
        for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (root / folder).mkdir(parents=True, exist_ok=exist_ok)

    def annotation(self, image_id: str) -> Path:
        return self.root / "Annotations" / f"{image_id}.xml"

    def image(self, image_id: str, suffix: str = ".jpg") -> Path:
        return self.root / "JPEGImages" / f"{image_id}{suffix}"

    def split(self, name: str, lines: Sequence[str]) -> Path:
        path = self.root / "ImageSets" / "Main" / f"{name}.txt"
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    def add(
        self,
        image_id: str,
        objects: Sequence[str] = (),
        *,
        size: tuple[int, int] = (60, 80),
        suffix: str = ".jpg",
    ) -> None:
        """Writes noise of size (height, width) and the given `<object>` elements."""
        save_noise(self.image(image_id, suffix), size)
        self.annotation(image_id).write_text(
            f"<annotation>{''.join(objects)}</annotation>"
        )

    def truncate(self, image_id: str) -> None:
        """Cuts an image short: its header stays readable, its pixels do not."""
        content = self.image(image_id).read_bytes()
        self.image(image_id).write_bytes(content[: len(content) // 2])


def voc_size(height: object, width: object) -> str:
    return f"<size><width>{width}</width><height>{height}</height></size>"


def voc_object(
    name: str, x_min: object, y_min: object, x_max: object, y_max: object, extra=""
) -> str:
    return (
        f"<object><name>{name}</name>{extra}<bndbox><xmin>{x_min}</xmin>"
        f"<ymin>{y_min}</ymin><xmax>{x_max}</xmax><ymax>{y_max}</ymax></bndbox></object>"
    )


def open_voc(root: Path, split: str, **options) -> Source:
    return open_source(DataConfig(source="voc", root=str(root), **options), split)
