"""The tables of a report; the page and `report.md` show the same ones."""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from frcnn_jax.evaluation.coco import FIGURES
from frcnn_jax.evaluation.tide import ERRORS
from frcnn_jax.report.findings import percent
from frcnn_jax.report.runs import ReportedRun

_MAX_COLUMNS = 10  # of classes


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells of text; the first column names the rows."""

    title: str
    header: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """Returns the table as GitHub shows it."""
        lines = [self.header, ["---", *["---:"] * (len(self.header) - 1)], *self.rows]
        cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
        return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def headline(runs: Sequence[ReportedRun]) -> Table:
    """Lists the main figures with their intervals, a column for each run."""
    figures: list[dict[str, str]] = []
    for run in runs:
        values, intervals = run.evaluation, run.evaluation["intervals"]
        pairs = {
            "VOC07 mAP": (values["voc07_map"], intervals["voc07_map"]),
            "area mAP": (values["area_map"], intervals["area_map"]),
            **{
                f"COCO {name}": (values["coco"][name], intervals["coco"][name])
                for name in FIGURES
            },
        }
        figures.append({name: _with_interval(*pair) for name, pair in pairs.items()})
    rows = [[name, *(each[name] for each in figures)] for name in figures[0]]
    return Table("Percent (95 % interval)", ["", *(run.name for run in runs)], rows)


def comparison(runs: Sequence[ReportedRun]) -> Table:
    """Lists the area average precision of each class, a column for each run."""
    columns = [run.evaluation["per_class"] for run in runs]
    rows = [
        [name, *(_percent(each.get(name, {}).get("area_ap")) for each in columns)]
        for name in dict.fromkeys(name for each in columns for name in each)
    ]
    header = ["class", *(run.name for run in runs)]
    return Table("Area AP by class, percent", header, rows)


def classes(run: ReportedRun) -> Table:
    """Lists what is known of each class."""
    header = ["class", "objects", "VOC07 AP, %", "area AP, %", "F1", "precision"]
    header += ["recall", "threshold", "calibration", "proposals, %", "anchor IoU"]
    evaluation, rows = run.evaluation, []
    for name, row in evaluation["per_class"].items():
        intervals = evaluation["intervals"]["per_class"][name]
        point = [
            row["best_f1"][key] for key in ("f1", "precision", "recall", "threshold")
        ]
        rows.append(
            [
                name,
                str(row["num_objects"]),
                _with_interval(row["voc07_ap"], intervals["voc07_ap"]),
                _with_interval(row["area_ap"], intervals["area_ap"]),
                *map(_number, point),
                _number(row["calibration_error"]),
                _percent(evaluation["proposals"]["per_class"][name]),
                _number(evaluation["anchors"]["per_class"][name]["median_iou"]),
            ]
        )
    return Table(f"Classes: {run.name}", header, rows)


def precision_by_iou(runs: Sequence[ReportedRun]) -> Table:
    """Lists the mean area average precision at each IoU threshold."""
    parts = {run.name: run.evaluation["precision_by_iou"] for run in runs}
    rows = [[name, *map(_percent, part["area_map"])] for name, part in parts.items()]
    thresholds = next(iter(parts.values()))["iou_thresholds"]
    header = ["IoU", *(f"{iou:g}" for iou in thresholds)]
    return Table("Area mAP by the IoU threshold, percent", header, rows)


def errors(run: ReportedRun) -> Table:
    """Lists the errors of each class: how many, and the points of AP they cost."""
    tide = run.evaluation["tide"]
    rows = [
        [
            name,
            percent(row["ap50"]),
            *(
                f"{100 * row[error]['cost']:.1f} ({row[error]['count']})"
                for error in ERRORS
            ),
        ]
        for name, row in {"all": tide, **tide["per_class"]}.items()
    ]
    title = f"Points of AP50 that errors cost, and their number: {run.name}"
    return Table(title, ["class", "AP50", *ERRORS], rows)


def confusion(run: ReportedRun) -> tuple[Table, list[list[float]]]:
    """Lists the confusion matrix.

    Returns:
      The table, and the share of its row that each cell is, for its shade.
    """
    matrix = np.array(run.evaluation["confusion"])
    names = [*run.evaluation["per_class"], "background"]
    header = ["object \\ found", *names[:-1], "nothing"]
    rows = [[name, *map(str, row)] for name, row in zip(names, matrix, strict=True)]
    rows[-1][-1] = ""
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    return Table(f"Confusion: {run.name}", header, rows), shares.tolist()


def objects(run: ReportedRun, kind: str) -> Table:
    """Lists the objects, and those found, by size or shape.

    Args:
      run: that was evaluated.
      kind: `side` or `aspect`.
    """
    part = run.evaluation["objects"][kind]
    edges = [f"{edge:g}" for edge in part["edges"]]
    names = [
        f"below {edges[0]}",
        *(f"{low} to {high}" for low, high in itertools.pairwise(edges)),
        f"{edges[-1]} and more",
    ]
    rows = [
        [name, str(total), str(found), percent(found / total if total else None)]
        for name, total, found in zip(
            names, part["num_objects"], part["num_found"], strict=True
        )
    ]
    title = {"side": "side in pixels", "aspect": "height / width"}[kind]
    return Table(
        f"Objects by {title}: {run.name}", [title, "objects", "found", "share"], rows
    )


def proposals(run: ReportedRun) -> Table:
    """Lists the recall of proposals by their number and the IoU threshold."""
    part = run.evaluation["proposals"]
    shown = [part["iou_thresholds"].index(iou) for iou in (0.5, 0.6, 0.7, 0.8, 0.9)]
    rows = [
        [str(number), *(_percent(recall[column]) for column in shown)]
        for number, recall in zip(part["numbers"], part["recall"], strict=True)
    ]
    rows.append(
        ["anchors", *(_percent(run.evaluation["anchors"]["recall"][c]) for c in shown)]
    )
    header = ["proposals", *(f"IoU {part['iou_thresholds'][c]:g}" for c in shown)]
    return Table(f"Recall of proposals and anchors, percent: {run.name}", header, rows)


def scales(run: ReportedRun) -> Table:
    """Lists how many objects anchors of other scales would overlap, by class."""
    part = run.evaluation["anchors"]
    columns = {"mean": part["by_scales"]}
    if len(part["per_class"]) <= _MAX_COLUMNS:
        columns |= {name: row["by_scales"] for name, row in part["per_class"].items()}
    rows = [
        [name, *(_percent(each[name]) for each in columns.values())]
        for name in part["by_scales"]
    ]
    title = f"Recall of anchors of other scales at IoU 0.5, percent: {run.name}"
    return Table(title, ["scales", *columns], rows)


def details(runs: Sequence[ReportedRun]) -> Table:
    """Lists what was evaluated, with what and where."""
    values = [_details(run) for run in runs]
    names = dict.fromkeys(name for each in values for name in each)
    rows = [[name, *(each.get(name, "-") for each in values)] for name in names]
    title = "What was evaluated, with what, and where"
    return Table(title, ["", *(run.name for run in runs)], rows)


def _details(run: ReportedRun) -> dict[str, str]:
    evaluation = run.evaluation
    environment = run.split.environment if run.split is not None else {}
    values: dict[str, Any] = {"directory": run.path}
    values |= {key: evaluation.get(key) for key in ("split", "step", "detector")}
    if run.split is not None:
        values["images"] = len(run.split.annotations)
    values["evaluated"] = environment.get("date")
    if "seconds" in environment:
        values["evaluation took"] = f"{environment['seconds']:.0f} s"
    values["training took, about"] = _training_time(run)
    values["data fingerprint"] = evaluation.get("fingerprints", {}).get("data")
    values |= {key: environment.get(key) for key in ("devices", "host")}
    versions = environment.get("versions", {})
    values["versions"] = ", ".join(
        f"{name} {version}" for name, version in versions.items()
    )
    if "detection" in evaluation:
        values["detection"] = json.dumps(evaluation["detection"])
    return {
        name: str(value) for name, value in values.items() if value not in (None, "")
    }


def _training_time(run: ReportedRun) -> str | None:
    """Adds up the time between rows; validation and pauses are not in it."""
    if run.config is None or "images_per_second" not in run.curves:
        return None
    steps, rates = run.curves["images_per_second"]
    num_images = np.diff(steps, prepend=0) * run.config.batch_size
    seconds = float(np.sum(num_images / np.maximum(rates, 1e-9)))
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _with_interval(value: float | None, ends: Sequence[float | None]) -> str:
    if None in (value, *ends):
        return _percent(value)
    return f"{_percent(value)} ({_percent(ends[0])} to {_percent(ends[1])})"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
