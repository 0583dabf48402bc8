"""`frcnn predict`: detects objects in files, and writes what was found.

An output folder holds `predictions.jsonl`, a row per image, and `pictures/`.
"""

import dataclasses
import glob
import itertools
import json
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from frcnn_jax import distributed
from frcnn_jax.config import Config
from frcnn_jax.data import images
from frcnn_jax.data.sources import files
from frcnn_jax.detections import Detections
from frcnn_jax.detector import Detector, check_options
from frcnn_jax.errors import UserError
from frcnn_jax.files import (
    check_new_file,
    free_name,
    os_errors_as_user_errors,
    replace_text,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What `frcnn predict` is asked for."""

    out: Path  # folder of the results
    step: int | str = "latest"  # of a run's checkpoint
    score_threshold: float = 0.5  # detections score more than this
    max_detections: int = 100  # per image
    classes: tuple[str, ...] = ()  # names to keep; all of them if empty
    batch_size: int = 1
    pictures: bool = True
    coco: Path | None = None  # a COCO data set of the results, too

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        check_options(self.score_threshold, self.max_detections, self.batch_size)


def predict(source: str, patterns: Sequence[str], options: Options) -> list[str]:
    """Detects objects in images, and writes rows, pictures and a COCO file.

    Args:
      source: of the detector; see `Detector.load`.
      patterns: files, folders and glob patterns.
      options: what to find and where to write.

    Returns:
      The error of each image that could not be read; the others are processed.

    Raises:
      UserError: if there is no such detector, image or class, or a result cannot be
        written.
    """
    paths = find_images(patterns, outside=options.out / "pictures")
    distributed.enable_compilation_cache(Config.compilation_cache)
    detector = Detector.load(source, options.step)
    unknown = sorted(set(options.classes) - set(detector.class_names))
    if unknown:
        names = ", ".join(detector.class_names)
        raise UserError(f"--classes {unknown[0]}: the detector has {names}")
    broken: list[str] = []
    with _Results(detector, options) as results, _progress_bar(len(paths)) as bar:
        (task,) = bar.task_ids
        for path, pixels, found in _detect(detector, paths, options, broken):
            results.add(path, pixels, found)
            num_done = results.num_images + len(broken)
            bar.update(task, completed=num_done, rate=results.images_per_second)
    results.report()
    return broken


def find_images(patterns: Sequence[str], outside: Path) -> list[Path]:
    """Lists the images that files, folders and glob patterns stand for, each once.

    Args:
      patterns: of a folder, the images in it and in its subfolders are taken.
      outside: folder to leave out, since results are written to it.

    Raises:
      UserError: if one stands for no image.
    """
    found: dict[Path, Path] = {}  # by what they resolve to
    for pattern in patterns:
        if not pattern:  # an unset variable; Path("") is the current folder
            raise UserError("an image is '', expected a file, folder or pattern")
        pattern = os.path.expanduser(pattern)  # in quotes, for a shell
        paths = [Path(pattern)]
        if not paths[0].exists():  # a name may have brackets
            paths = [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]
        # A file is taken whatever its suffix.
        listed = [files.find_images(p) if p.is_dir() else [p] for p in paths]
        chosen = [
            path
            for path in itertools.chain(*listed)
            if outside.resolve() not in path.resolve().parents
        ]
        if not chosen:
            missing = "no image in" if paths else "no such file, folder or pattern:"
            raise UserError(f"{missing} {pattern}")
        for path in chosen:
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _detect(
    detector: Detector, paths: Iterable[Path], options: Options, broken: list[str]
) -> Iterator[tuple[Path, np.ndarray, Detections]]:
    """Yields each image with all that is found in it; adds the broken ones."""
    pending: deque[tuple[Path, np.ndarray]] = deque()

    def readable() -> Iterator[np.ndarray]:
        for path in paths:
            try:
                pixels = images.read_rgb(path, str(path))
            except UserError as error:
                broken.append(str(error))
            else:
                pending.append((path, pixels))
                yield pixels

    # Without the threshold, so that the best score can be reported if none passes; and
    # as many as there are, if only some classes are kept.
    max_detections = options.max_detections
    if options.classes:
        max_detections = max(
            max_detections, detector.spec.model.detection.max_detections
        )
    for found in detector.stream(
        readable(),
        score_threshold=0.0,
        max_detections=max_detections,
        batch_size=options.batch_size,
    ):
        path, pixels = pending.popleft()
        yield path, pixels, dataclasses.replace(found, path=str(path))


class _Results:
    """Writes what is found in one image after the other; a context manager."""

    def __init__(self, detector: Detector, options: Options) -> None:
        self._detector = detector
        self._options = options
        self._names: set[str] = set()  # of pictures
        self._coco: dict[str, list[dict[str, Any]]] = {
            "images": [],
            "annotations": [],
            "categories": [
                {"id": label + 1, "name": name}
                for label, name in enumerate(detector.class_names)
            ],
        }
        self._best: tuple[float, str] | None = None  # score, and what was found where
        self._began = time.perf_counter()
        self.num_images = self.num_detections = 0

    def __enter__(self) -> "_Results":
        """Creates the output folder and an empty file of rows."""
        out, coco = self._options.out, self._options.coco
        with os_errors_as_user_errors(out):
            out.mkdir(parents=True, exist_ok=True)
            if coco is not None:
                coco.parent.mkdir(parents=True, exist_ok=True)
                check_new_file(coco)
            if self._options.pictures:
                (out / "pictures").mkdir(exist_ok=True)
            self._rows = (out / "predictions.jsonl").open("w")
        return self

    def __exit__(self, *_: object) -> None:
        self._rows.close()

    @property
    def images_per_second(self) -> float:
        """So far, the compilation included."""
        return self.num_images / (time.perf_counter() - self._began)

    def add(self, path: Path, pixels: np.ndarray, found: Detections) -> None:
        """Writes the results of one image."""
        options = self._options
        if options.classes:
            found = found[[name in options.classes for name in found.names]]
            found = found[: options.max_detections]
        if len(found) and (self._best is None or found.scores[0] > self._best[0]):
            self._best = float(found.scores[0]), f"{found.names[0]} in {path}"
        found = found[found.scores > options.score_threshold]
        self.num_images += 1
        self.num_detections += len(found)
        row = found.to_dict() | {
            "score_threshold": options.score_threshold,
            "model": self._detector.source,
        }
        with os_errors_as_user_errors(options.out / "predictions.jsonl"):
            self._rows.write(json.dumps(row) + "\n")
            self._rows.flush()
        if options.coco is not None:
            self._add_coco(found)
        if options.pictures:
            found.save(self._picture_path(path), pixels)

    def _add_coco(self, found: Detections) -> None:
        height, width = found.image_size
        image = {"id": self.num_images, "file_name": found.path}
        self._coco["images"].append(image | {"height": height, "width": width})
        category_ids = range(1, len(found.class_names) + 1)
        for result in found.to_coco(self.num_images, category_ids):
            number = len(self._coco["annotations"]) + 1
            area = result["bbox"][2] * result["bbox"][3]
            self._coco["annotations"].append(
                {"id": number, "area": area, "iscrowd": 0} | result
            )

    def _picture_path(self, path: Path) -> Path:
        """Names a picture after its image, with a number where a name recurs."""
        name = free_name(path.stem, self._names)
        self._names.add(name)
        return self._options.out / "pictures" / f"{name}.jpg"

    def report(self) -> None:
        """Writes the COCO file, and prints a summary."""
        options = self._options
        if options.coco is not None:
            replace_text(options.coco, json.dumps(self._coco) + "\n")
        seconds = time.perf_counter() - self._began
        print(
            f"{self.num_images} images in {seconds:.1f} s "
            f"({self.images_per_second:.1f} images/s), {self.num_detections} "
            f"detections above {options.score_threshold:g}: {options.out}"
        )
        if self.num_images and not self.num_detections:
            best = "none at any score"
            if self._best is not None:
                best = f"the best one scores {self._best[0]:.3f} ({self._best[1]})"
            print(f"no detection passes the threshold; {best}")
        if options.pictures:
            folder = options.out / "pictures"
            others = {path.stem for path in folder.glob("*.jpg")} - self._names
            if others:
                print(f"pictures of earlier calls in {folder}, too: {len(others)}")


def _progress_bar(num_images: int) -> Progress:
    console = Console()
    bar = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f} images/s"),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    bar.add_task("predict", total=num_images, rate=0.0)
    return bar
