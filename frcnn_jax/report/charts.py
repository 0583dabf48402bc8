"""The charts of a report, each of one or several runs, as SVG.

A run has the same color in every chart. Runs without the figures of a chart are left
out of it; a chart that would be empty is None.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from frcnn_jax.evaluation import voc
from frcnn_jax.evaluation.ranking import average_precision_of
from frcnn_jax.evaluation.tide import ERRORS
from frcnn_jax.report.runs import ReportedRun
from frcnn_jax.report.svg import COLORS, chart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_CLASSES = 24  # whose precision-recall curves are drawn
_MAX_POINTS = 150  # of a curve
_MAX_NAME = 22  # characters of a run's name


def precision_recall(runs: Sequence[ReportedRun]) -> dict[str, Markup]:
    """Draws a small chart for each class, those of lowest average precision first.

    Args:
      runs: whose curves are drawn over one another.

    Returns:
      By class.
    """
    curves: dict[str, list[tuple[int, Any, float]]] = {}
    for number, run in enumerate(runs):
        if run.split is not None:
            for name, ranking in zip(
                run.split.class_names, voc.rank(*run.split.compared), strict=True
            ):
                if ranking.num_objects.sum():
                    area = average_precision_of(ranking, None)
                    curve = voc.curve(ranking)
                    curves.setdefault(name, []).append((number, curve, area))
    lowest = sorted(curves, key=lambda name: min(each[2] for each in curves[name]))
    charts = {}
    for name in lowest[:MAX_CLASSES]:
        with chart(
            f"curve-{name}", f"Precision over recall of {name}", (2.1, 1.9)
        ) as c:
            for number, curve, _ in curves[name]:
                color = COLORS[number % len(COLORS)]
                _draw_curve(c.axes, curve, color)
                point = runs[number].evaluation["per_class"][name]["best_f1"]
                _mark_point(c.axes, point, color, is_alone=len(runs) == 1)
            c.axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", title=name)
            c.axes.set(xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        charts[name] = c.svg
    return charts


def _draw_curve(axes: "Axes", curve: voc.PrecisionRecall, color: str) -> None:
    points = np.unique(np.linspace(0, len(curve.recall) - 1, _MAX_POINTS).astype(int))
    if len(curve.recall):
        axes.plot(curve.recall[points], curve.precision[points], color=color)


def _mark_point(
    axes: "Axes", point: Mapping[str, Any], color: str, *, is_alone: bool
) -> None:
    """Marks the best F1; writes its threshold, unless those of runs would collide."""
    if point["threshold"] is None:
        return
    x, y = point["recall"], point["precision"]
    axes.plot([x], [y], "o", color=color, markersize=4)
    if is_alone:
        axes.annotate(
            f"{point['threshold']:.2f}",
            (x, y),
            (-3, -9 if y > 0.2 else 5),  # clear of the axis below
            textcoords="offset points",
            fontsize=8,
            ha="right" if x > 0.3 else "left",
        )


def precision_by_iou(runs: Sequence[ReportedRun]) -> Markup | None:
    """Draws the mean area average precision over the IoU threshold, and each class."""

    def draw(axes: "Axes", run: ReportedRun, color: str) -> None:
        part = run.evaluation["precision_by_iou"]
        for values in part["per_class"].values() if len(runs) == 1 else ():
            axes.plot(
                part["iou_thresholds"], _floats(values), color=color, alpha=0.45, lw=0.8
            )
        axes.plot(
            part["iou_thresholds"],
            _floats(part["area_map"]),
            "o-",
            ms=3,
            color=color,
            label=label(run),
        )
        axes.set(xlim=(0.28, 0.92), xlabel="IoU threshold")
        axes.set(ylim=(0, 1.02), ylabel="area average precision")

    return _overlay("iou", "Average precision over the IoU threshold", runs, draw)


def calibration(runs: Sequence[ReportedRun]) -> Markup | None:
    """Draws the precision of detections over their score."""

    def draw(axes: "Axes", run: ReportedRun, color: str) -> None:
        part = run.evaluation["calibration"]
        axes.plot([0, 1], [0, 1], ":", color="#80858a", lw=1)
        counts = np.array(part["counts"], float)
        sizes = 8 + 80 * counts / max(counts.max(), 1.0)
        x, y = _floats(part["mean_scores"]), _floats(part["precisions"])
        axes.plot(x, y, color=color, label=label(run))
        axes.scatter(x, y, s=sizes, color=color, alpha=0.6, linewidths=0)
        axes.set(
            xlim=(0, 1.02), ylim=(0, 1.02), xlabel="mean score", ylabel="share correct"
        )

    return _overlay(
        "calibration", "Share of correct detections over their score", runs, draw
    )


def errors(runs: Sequence[ReportedRun]) -> Markup | None:
    """Draws what each of the six errors costs."""
    chosen = [run for run in runs if run.evaluation]
    if not chosen:
        return None
    height = 0.8 / len(chosen)
    with chart("errors", "Average precision that each error costs") as c:
        for index, run in enumerate(chosen):
            costs = [100 * run.evaluation["tide"][name]["cost"] for name in ERRORS]
            places = np.arange(len(ERRORS)) + (index - (len(chosen) - 1) / 2) * height
            bars = c.axes.barh(
                places,
                costs,
                height * 0.9,
                color=run_color(runs, run),
                label=label(run),
            )
            c.axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=8)
        c.axes.set_yticks(range(len(ERRORS)), ERRORS)
        c.axes.invert_yaxis()
        c.axes.margins(x=0.12)
        c.axes.set_xlim(left=0.0)
        c.axes.grid(visible=False, axis="y")
        c.axes.set(xlabel="points of average precision (IoU 0.5)")
        show_legend(c.axes)
    return c.svg


def objects(runs: Sequence[ReportedRun], kind: str) -> Markup | None:
    """Draws the share of objects that is found, by their size or shape.

    Args:
      runs: of the report.
      kind: `side` or `aspect`.
    """
    chosen = [run for run in runs if run.evaluation]
    if not chosen:
        return None
    quantity = {"side": "side of the box, pixels", "aspect": "height / width"}[kind]
    first = chosen[0].evaluation["objects"][kind]
    edges = [f"{edge:g}" for edge in first["edges"]]
    names = [
        f"< {edges[0]}",
        *map("-".join, itertools.pairwise(edges)),
        f"≥ {edges[-1]}",
    ]
    width = 0.8 / len(chosen)
    with chart(f"objects-{kind}", f"Share of objects found by {quantity}") as c:
        for index, run in enumerate(chosen):
            part = run.evaluation["objects"][kind]
            total, found = np.array(part["num_objects"]), np.array(part["num_found"])
            places = np.arange(len(total)) + (index - (len(chosen) - 1) / 2) * width
            shares = found / np.where(total > 0, total, np.nan)
            c.axes.bar(
                places,
                shares,
                width * 0.9,
                color=run_color(runs, run),
                label=label(run),
            )
        totals = [
            f"{name}\n{count}"
            for name, count in zip(names, first["num_objects"], strict=True)
        ]
        c.axes.set_xticks(range(len(names)), totals, fontsize=7)
        c.axes.grid(visible=False, axis="x")
        c.axes.set(
            ylim=(0, 1.02), ylabel="share found", xlabel=f"{quantity}; below: objects"
        )
        show_legend(c.axes)
    return c.svg


def proposals_by_number(runs: Sequence[ReportedRun]) -> Markup | None:
    """Draws the recall of proposals over their number, at IoU 0.5 and 0.7."""

    def draw(axes: "Axes", run: ReportedRun, color: str) -> None:
        part = run.evaluation["proposals"]
        recall = np.array(part["recall"], float)
        for iou, style in ((0.5, "o-"), (0.7, "o--")):
            column = part["iou_thresholds"].index(iou)
            axes.plot(
                part["numbers"],
                recall[:, column],
                style,
                ms=3,
                color=color,
                label=curve_label(runs, run, f"IoU {iou}"),
            )
        axes.set(
            xscale="log",
            ylim=(0, 1.02),
            xlabel="proposals of an image",
            ylabel="recall",
        )
        axes.set_xticks(part["numbers"], part["numbers"])
        axes.minorticks_off()

    return _overlay("proposals", "Recall of proposals over their number", runs, draw)


def boxes_by_iou(runs: Sequence[ReportedRun]) -> Markup | None:
    """Draws the recall of all proposals, and of all anchors, over the IoU."""

    def draw(axes: "Axes", run: ReportedRun, color: str) -> None:
        parts = run.evaluation["proposals"], run.evaluation["anchors"]
        recalls = parts[0]["recall"][-1], parts[1]["recall"]
        for recall, style, name in zip(
            recalls, ("-", "--"), ("proposals", "anchors"), strict=True
        ):
            axes.plot(
                parts[0]["iou_thresholds"],
                _floats(recall),
                style,
                color=color,
                label=curve_label(runs, run, name),
            )
        axes.set(xlim=(0.48, 0.97), xlabel="IoU threshold")
        axes.set(ylim=(0, 1.02), ylabel="recall")

    return _overlay(
        "boxes", "Recall of proposals and anchors over the IoU threshold", runs, draw
    )


def _overlay(
    name: str,
    description: str,
    runs: Sequence[ReportedRun],
    draw: Callable[["Axes", ReportedRun, str], None],
) -> Markup | None:
    """Draws the runs that were evaluated over one another."""
    chosen = [run for run in runs if run.evaluation]
    if not chosen:
        return None
    with chart(name, description) as c:
        for run in chosen:
            draw(c.axes, run, run_color(runs, run))
        show_legend(c.axes)
    return c.svg


def show_legend(axes: "Axes") -> None:
    """Names the curves below the chart, where they cross nothing, if there are two."""
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.figure.legend(loc="outside lower center", ncols=2)


def label(run: ReportedRun) -> str:
    """Names a run in a legend, which has room for a short name only."""
    return run.name if len(run.name) <= _MAX_NAME else f"…{run.name[1 - _MAX_NAME :]}"


def curve_label(runs: Sequence[ReportedRun], run: ReportedRun, name: str) -> str:
    """Names one of a run's curves in a legend.

    Args:
      runs: of the report; the name of an only one is left out.
      run: one of them.
      name: of the curve.
    """
    return name if len(runs) == 1 else f"{label(run)}, {name}"


def run_color(runs: Sequence[ReportedRun], run: ReportedRun) -> str:
    """Returns the color of a run.

    Args:
      runs: of the report.
      run: one of them.
    """
    return COLORS[list(runs).index(run) % len(COLORS)]


def _floats(values: Sequence[float | None]) -> np.ndarray:
    """Turns None into NaN, which is not drawn."""
    return np.array(values, float)
