"""Writes the annotations of a source in any format, beside links to its images."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from frcnn_jax.data.records import Annotation, Source
from tests.helpers.voc_folder import VOCFolder, voc_object, voc_size

HEADER = ("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax")


def write(
    data_format: str, source: Source, images: Sequence[Path], root: Path, split: str
) -> None:
    """Writes a data set.

    Args:
      data_format: as `DataConfig.source`.
      source: what to write.
      images: the file of every image.
      root: of the new folder.
      split: its name.
    """
    writers = {
        "voc": write_voc,
        "coco": write_coco,
        "yolo": write_yolo,
        "csv": write_csv,
    }
    writers[data_format](source, images, root, split)


def write_coco(source: Source, images: Sequence[Path], root: Path, split: str) -> None:
    """Category ids have gaps; images are in `<split>/`."""
    link(images, root / split)
    content = {
        "categories": [
            {"id": 10 + 3 * label, "name": name}
            for label, name in enumerate(source.class_names)
        ],
        "images": [
            {
                "id": 100 + index,
                "file_name": path.name,
                "height": annotation.image_size[0],
                "width": annotation.image_size[1],
            }
            for index, (annotation, path) in enumerate(pairs(source, images))
        ],
        "annotations": [
            {
                "id": 1,
                "image_id": 100 + index,
                "category_id": 10 + 3 * label,
                "bbox": [x_min, y_min, x_max - x_min, y_max - y_min],
                "iscrowd": int(difficult),
            }
            for index, annotation in enumerate(source.annotations)
            for (y_min, x_min, y_max, x_max), label, difficult in objects(annotation)
        ],
    }
    folder = root / "annotations"
    folder.mkdir(exist_ok=True)
    (folder / f"instances_{split}.json").write_text(json.dumps(content))


def write_yolo(source: Source, images: Sequence[Path], root: Path, split: str) -> None:
    """Difficult objects are like others; images without objects have no file."""
    link(images, root / "images" / split)
    folder = root / "labels" / split
    folder.mkdir(parents=True)
    for annotation, path in pairs(source, images):
        height, width = annotation.image_size
        lines = [
            f"{label} {(x_min + x_max) / 2 / width!r} {(y_min + y_max) / 2 / height!r} "
            f"{(x_max - x_min) / width!r} {(y_max - y_min) / height!r}\n"
            for (y_min, x_min, y_max, x_max), label, _ in objects(annotation)
        ]
        if lines:
            (folder / f"{path.stem}.txt").write_text("".join(lines))
    names = "".join(f"  {i}: {name!r}\n" for i, name in enumerate(source.class_names))
    (root / "data.yaml").write_text(
        f"path: /content/somewhere\n{split}: images/{split}\nnames:\n{names}"
    )


def write_csv(source: Source, images: Sequence[Path], root: Path, split: str) -> None:
    """Difficult objects are like others."""
    link(images, root / "images")
    with (root / f"{split}.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(HEADER)
        for annotation, path in pairs(source, images):
            head = [path.name, *annotation.image_size[::-1]]
            for (y_min, x_min, y_max, x_max), label, _ in objects(annotation):
                name = source.class_names[label]
                rows.writerow([*head, name, x_min, y_min, x_max, y_max])
            if not len(annotation.boxes):
                rows.writerow([*head, *[""] * 5])


def write_voc(source: Source, images: Sequence[Path], root: Path, split: str) -> None:
    folder = VOCFolder(root, exist_ok=True)
    link(images, root / "JPEGImages")
    for annotation, path in pairs(source, images):
        elements = [
            voc_object(
                escape(source.class_names[label]),
                *(x_min + 1, y_min + 1, x_max, y_max),
                f"<difficult>{int(difficult)}</difficult>",
            )
            for (y_min, x_min, y_max, x_max), label, difficult in objects(annotation)
        ]
        folder.annotation(path.stem).write_text(
            f"<annotation>{voc_size(*annotation.image_size)}{''.join(elements)}"
            "</annotation>"
        )
    folder.split(split, [path.stem for path in images])


def link(images: Sequence[Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in images:
        (folder / path.name).symlink_to(path)


def pairs(source: Source, images: Sequence[Path]) -> Iterator[tuple[Annotation, Path]]:
    return zip(source.annotations, images, strict=True)


def objects(
    annotation: Annotation,
) -> Iterator[tuple[list[float], int, bool]]:
    return zip(
        annotation.boxes.tolist(),
        annotation.labels.tolist(),
        annotation.difficult.tolist(),
        strict=True,
    )
