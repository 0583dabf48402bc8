"""Plots a run's `metrics.jsonl` as curves."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from frcnn_jax.errors import UserError, first_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = tuple[np.ndarray, np.ndarray]  # steps [N] and values [N]

# What lies between 0 and 1: its name and its line.
_SHARES = {
    "proposal_recall": ("proposal recall", "C5.-"),
    "validation_voc07_map": ("validation VOC07 mAP", "C6.--"),
}


def plot_metrics(metrics_path: str | Path, output_path: str | Path) -> None:
    """Plots losses, recall, average precision and learning rate over a run's steps.

    A loss is faint as it was logged and bold as its mean over a twentieth of the run;
    that of the validation images is dashed, with a dot for each time. Crosses mark the
    rows in whose steps updates were skipped.

    Args:
      metrics_path: the run's `metrics.jsonl`. Where a step was logged twice, because
        the run was resumed before it, the later row counts.
      output_path: of the PNG to write.

    Raises:
      UserError: if the file cannot be read or has no loss.
    """
    from matplotlib.figure import Figure  # Only here: importing it takes long.

    curves = read_curves(Path(metrics_path))
    losses = [name for name in curves if _is_loss(name)]
    if not losses:
        raise UserError(f"{metrics_path}: expected rows with a loss, got none")
    shares = {name: curves[name] for name in _SHARES if name in curves}
    figure = Figure(figsize=(9, 8 if shares else 6.5), dpi=120, layout="constrained")
    heights = (5, 1.5, 1.2) if shares else (5, 1.2)
    loss_axes, *share_axes, rate_axes = figure.subplots(
        len(heights), sharex=True, height_ratios=heights
    )
    _plot_losses(loss_axes, losses, curves)
    _mark_bad_steps(loss_axes, curves)
    for axes in share_axes:
        _plot_shares(axes, shares)
    if "learning_rate" in curves:
        rate_axes.plot(*curves["learning_rate"], "k.-", markevery=[-1])
    rate_axes.set(xlabel="step", ylabel="learning rate")
    rate_axes.set_ylim(bottom=0.0)
    rate_axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    for axes in figure.axes:
        axes.grid(alpha=0.3)
    figure.align_ylabels()
    is_validated = any(f"validation_{name}" in curves for name in losses)
    note = " (validation: in brackets, dashed)" if is_validated else ""
    figure.legend(title=f"mean at the end{note}", loc="outside upper center", ncols=2)
    figure.savefig(output_path, format="png")


def _is_loss(name: str) -> bool:
    return name.endswith("loss") and not name.startswith("validation_")


def _plot_losses(axes: "Axes", names: list[str], curves: dict[str, Curve]) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    lowest = math.inf
    for index, name in enumerate(names):
        (steps, values), color = curves[name], f"C{index}"
        smooth = moving_mean(values)
        axes.plot(steps, values, color=color, alpha=0.2, linewidth=0.8)
        label = f"{name.replace('_', ' ')}: {smooth[-1]:.3g}"
        lowest = min(lowest, smooth.min())
        if f"validation_{name}" in curves:
            validation_steps, losses = curves[f"validation_{name}"]
            axes.plot(validation_steps, losses, ".--", color=color, linewidth=1.0)
            label += f" ({losses[-1]:.3g})"
            lowest = min(lowest, losses.min())
        axes.plot(steps, smooth, color=color, label=label, marker=".", markevery=[-1])
    axes.set(yscale="log", ylabel="loss")
    # One step with hardly any loss would squeeze all that matters together.
    axes.set_ylim(bottom=max(lowest / 2, 1e-4))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")


def _mark_bad_steps(axes: "Axes", curves: dict[str, Curve]) -> None:
    """Puts a cross at the lower edge for every row that counts more than the last."""
    steps, counts = curves.get("bad_steps", (np.zeros(0), np.zeros(0)))
    where = steps[np.diff(counts, prepend=0) > 0]
    if where.size:
        axes.plot(
            where,
            np.zeros_like(where),
            "x",
            color="black",
            transform=axes.get_xaxis_transform(),
            clip_on=False,
            label=f"updates skipped, not finite: {counts[-1]:g}",
        )


def _plot_shares(axes: "Axes", shares: dict[str, Curve]) -> None:
    for name, (steps, values) in shares.items():
        label, style = _SHARES[name]
        marked = list(range(len(values)))
        if name == "proposal_recall":
            axes.plot(steps, values, color="C5", alpha=0.2, linewidth=0.8)
            values, marked = moving_mean(values), [-1]
        label = f"{label}: {values[-1]:.3f}"
        axes.plot(steps, values, style, label=label, markevery=marked)
    axes.set(ylim=(-0.03, 1.03), ylabel="share")


def moving_mean(values: np.ndarray) -> np.ndarray:
    """Returns the mean of the values around each: a twentieth, fewer at the ends."""
    window = np.ones(len(values) // 20 + 1)
    counts = np.convolve(np.ones_like(values), window, mode="same")
    return np.convolve(values, window, mode="same") / counts


def read_curves(path: Path) -> dict[str, Curve]:
    """Reads the finite values that the rows of `metrics.jsonl` hold, by key.

    Raises:
      UserError: if the file cannot be read.
    """
    points: dict[str, list[tuple[int, float]]] = {}
    for step, row in sorted(_read_rows(path).items()):
        for name, value in row.items():
            if isinstance(value, int | float) and math.isfinite(value):
                points.setdefault(name, []).append((step, value))
    return {name: tuple(np.array(each).T) for name, each in points.items()}


def _read_rows(path: Path) -> dict[int, dict[str, Any]]:
    rows: dict[int, dict[str, Any]] = {}
    try:
        text = path.read_text()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {first_line(error)}") from error
    lines = text.splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            rows.setdefault(row["step"], {}).update(row)
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines) and not text.endswith("\n"):
                break  # cut off by a kill
            raise UserError(
                f"{path}, line {number}: expected a JSON object with a step, "
                f"got {line[:80]!r}"
            ) from error
    return rows
