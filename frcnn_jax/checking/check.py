"""Checks the data of a config: reads all of it once, and lists what is found."""

import dataclasses
from typing import Any

from frcnn_jax.checking.anchors import (
    IOU_THRESHOLDS,
    AnchorRecall,
    compare_anchors,
    suggest,
)
from frcnn_jax.checking.notes import write_notes
from frcnn_jax.checking.problems import Problem, find_problems
from frcnn_jax.checking.scan import ScannedSplit, scan
from frcnn_jax.checking.statistics import describe
from frcnn_jax.checking.suspects import Suspect
from frcnn_jax.config import Config

_SCHEMA = 1


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class DataCheck:
    """Everything that is known about a data set."""

    config: Config
    splits: list[ScannedSplit]
    statistics: dict[str, dict[str, Any]]  # by split
    anchors: list[AnchorRecall]  # the config's, then other ones
    problems: list[Problem]
    notes: list[str]  # sentences on what may be as it should be
    # By split; empty if no detector has run on it.
    suspects: dict[str, list[Suspect]] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """What to call the data set: its folder, if it has one."""
        data = self.config.data
        return data.root or (data.name if data.source == "tfds" else data.source)

    @property
    def is_wrong(self) -> bool:
        """Whether there is a mistake."""
        return any(problem.is_wrong for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """Returns everything but the images, as JSON has it."""
        data, better = self.config.data, suggest(self.anchors)
        return {
            "schema": _SCHEMA,
            "is_wrong": self.is_wrong,
            "source": data.source,
            "root": data.root,
            "splits": self.statistics,
            "anchors": {
                "iou_thresholds": IOU_THRESHOLDS,
                "compared": [dataclasses.asdict(each) for each in self.anchors],
                "suggested": better and dataclasses.asdict(better),
            },
            "problems": [problem.to_dict() for problem in self.problems],
            "notes": self.notes,
            "suspects": [
                suspect._asdict() | {"split": split, "box": suspect.box.tolist()}
                for split, suspects in self.suspects.items()
                for suspect in suspects
            ],
        }


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
    statistics = {split.name: describe(split, data) for split in splits}
    anchors = compare_anchors(splits[0].source, data, config.model)
    return DataCheck(
        config=config,
        splits=splits,
        statistics=statistics,
        anchors=anchors,
        problems=find_problems(splits, data),
        notes=write_notes(statistics, anchors),
    )
