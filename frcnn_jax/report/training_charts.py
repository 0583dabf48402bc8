"""The charts of a report that show the training, as SVG; None if nothing is known."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from frcnn_jax.report.charts import curve_label, label, run_color, show_legend
from frcnn_jax.report.runs import ReportedRun
from frcnn_jax.report.svg import COLORS, chart
from frcnn_jax.visualization.curves import moving_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOSSES = (
    "rpn_classification_loss",
    "rpn_localization_loss",
    "roi_classification_loss",
    "roi_localization_loss",
)


def losses(runs: Sequence[ReportedRun]) -> Markup | None:
    """Draws the losses of a run, or the loss of several."""
    names = ("loss", *_LOSSES) if len(runs) == 1 else ("loss",)
    chosen = [run for run in runs if "loss" in run.curves]
    if not chosen:
        return None
    from matplotlib.ticker import LogLocator, NullLocator

    with chart("losses", "Losses over the steps of training", (4.0, 3.4)) as c:
        for run in chosen:
            for index, name in enumerate(names):
                color = COLORS[index] if len(runs) == 1 else run_color(runs, run)
                text = name.replace("_", " ") if len(runs) == 1 else label(run)
                _draw_loss(c.axes, run, name, color, text)
        c.axes.set(yscale="log", xlabel="step", ylabel="loss (dashed: validation)")
        c.axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        c.axes.yaxis.set_major_formatter("{x:g}")
        c.axes.yaxis.set_minor_locator(NullLocator())
        show_legend(c.axes)
    return c.svg


def _draw_loss(
    axes: "Axes", run: ReportedRun, name: str, color: str, text: str
) -> None:
    if name in run.curves:
        steps, values = run.curves[name]
        axes.plot(*_thin(steps, moving_mean(values)), color=color, label=text)
    if f"validation_{name}" in run.curves:
        axes.plot(*run.curves[f"validation_{name}"], "o--", ms=3, lw=1, color=color)


def shares(runs: Sequence[ReportedRun]) -> Markup | None:
    """Draws the recall of proposals, and the average precision, over the steps."""
    names = {"proposal_recall": "-", "validation_voc07_map": "o--"}
    chosen = [run for run in runs if names.keys() & run.curves]
    if not chosen:
        return None
    with chart(
        "shares", "Recall and average precision over the steps of training"
    ) as c:
        for run in chosen:
            for name in (name for name in names if name in run.curves):
                steps, values = run.curves[name]
                if name == "proposal_recall":
                    values = moving_mean(values)
                c.axes.plot(
                    *_thin(steps, values),
                    names[name],
                    ms=3,
                    color=run_color(runs, run),
                    label=curve_label(runs, run, name.replace("_", " ")),
                )
        c.axes.set(ylim=(0, 1.02), xlabel="step", ylabel="share")
        show_legend(c.axes)
    return c.svg


def _thin(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keeps a few hundred points, for a small file."""
    chosen = np.unique(np.linspace(0, len(steps) - 1, 300).astype(int))
    return steps[chosen], values[chosen]
