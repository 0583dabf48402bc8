"""Checks the data of a config: reads all of it once, and lists what is found."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from frcnn_jax.checking.anchors import (
    IOU_THRESHOLDS,
    AnchorRecall,
    compare_anchors,
    suggest,
)
from frcnn_jax.checking.problems import Problem, find_problems
from frcnn_jax.checking.scan import ScannedSplit, scan
from frcnn_jax.checking.statistics import describe
from frcnn_jax.checking.suspects import Suspect
from frcnn_jax.config import Config
from frcnn_jax.data.records import abbreviate
from frcnn_jax.files import replace_text

_SCHEMA = 1
_MUCH_PADDING = 0.25  # of all pixels


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class DataCheck:
    """All that is known of a data set."""

    config: Config
    splits: list[ScannedSplit]
    statistics: dict[str, dict[str, Any]]  # by split
    anchors: list[AnchorRecall]  # the config's, then other ones
    problems: list[Problem]
    notes: list[str]  # sentences on what may be as it should be
    # By split; empty if no detector has looked at it.
    suspects: dict[str, list[Suspect]] = dataclasses.field(default_factory=dict)

    @property
    def is_wrong(self) -> bool:
        """Whether there is a mistake."""
        return any(problem.is_wrong for problem in self.problems)

    def save(self, path: Path) -> None:
        """Writes everything but pictures as JSON.

        Raises:
          UserError: if the file cannot be written.
        """
        data = self.config.data
        content = {
            "schema": _SCHEMA,
            "is_wrong": self.is_wrong,
            "source": data.source,
            "root": data.root,
            "splits": self.statistics,
            "anchors": {
                "iou_thresholds": IOU_THRESHOLDS,
                "compared": [dataclasses.asdict(each) for each in self.anchors],
            },
            "problems": [_problem_to_dict(problem) for problem in self.problems],
            "notes": self.notes,
            "suspects": [
                _suspect_to_dict(split, suspect)
                for split in self.splits
                for suspect in self.suspects.get(split.name, ())
            ],
        }
        replace_text(path, json.dumps(content, indent=1) + "\n")


def check(config: Config) -> DataCheck:
    """Reads all images and annotations of a config's data set, and checks them.

    Args:
      config: says which data, how images are resized, and which anchors there are.

    Raises:
      UserError: if a split is missing, an annotation is malformed, or the data set has
        other classes than the config says.
    """
    data = config.data
    splits = scan(data)
    statistics = {
        split.name: describe(split, data, data.max_objects) for split in splits
    }
    anchors = compare_anchors(splits[0].source, data, config.model)
    return DataCheck(
        config=config,
        splits=splits,
        statistics=statistics,
        anchors=anchors,
        problems=find_problems(splits, data),
        notes=_write_notes(statistics, anchors),
    )


def _problem_to_dict(problem: Problem) -> dict[str, Any]:
    values = dataclasses.asdict(problem)
    for key in ("image", "other"):
        place = getattr(problem, key)
        values[key] = place and place._asdict()
    # JSON has no number for a box that is not finite.
    if problem.box and not np.isfinite(problem.box).all():
        values["box"] = None
    return values


def _suspect_to_dict(split: ScannedSplit, suspect: Suspect) -> dict[str, Any]:
    annotation = split.source.annotations[suspect.image]
    return {
        **suspect._asdict(),
        "split": split.name,
        "image": annotation.image_id,
        "box": suspect.box.tolist(),
        "label": split.source.class_names[suspect.label],
    }


def _write_notes(
    statistics: dict[str, dict[str, Any]], anchors: Sequence[AnchorRecall]
) -> list[str]:
    """Writes sentences on what may be as it should be."""
    notes = []
    for split, values in statistics.items():
        if values["num_empty"]:
            notes.append(
                f"{values['num_empty']} of the {values['num_images']} images of "
                f"{split} have no objects; data.skip_empty_images leaves them out."
            )
        if values["num_clipped_by_a_pixel"]:
            notes.append(
                f"{values['num_clipped_by_a_pixel']} boxes of {split} reach one pixel "
                "outside of their image and are cut: some programs count pixels from "
                "0, others from 1."
            )
        counts = {name: row["num_objects"] for name, row in values["per_class"].items()}
        empty = [name for name, count in counts.items() if not count]
        if empty and values["uses"]:
            notes.append(f"Classes without objects in {split}: {abbreviate(empty)}.")
        for canvas, row in values["canvases"].items():
            if row["num_images"] and row["padding"] > _MUCH_PADDING:
                notes.append(
                    f"{row['padding']:.0%} of the canvas {canvas} is padding for the "
                    f"{row['num_images']} images of {split}: data.canvases that fit "
                    "them save time."
                )
    better = suggest(anchors)
    if better is not None:
        options = [
            f"--model.anchor-{name} {' '.join(f'{each:g}' for each in values)}"
            for name, values in (("scales", better.scales), ("ratios", better.ratios))
            if values != getattr(anchors[0], name)
        ]
        now, then = (
            "/".join(f"{x:.0%}" for x in a.recall) for a in (anchors[0], better)
        )
        notes.append(
            f"Anchors overlap {now} of the objects by IoU "
            f"{'/'.join(map(str, IOU_THRESHOLDS))}; with {' '.join(options)} {then}."
        )
    return notes
