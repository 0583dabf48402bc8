"""A run's `metrics.jsonl` as curves."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from frcnn_jax.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = tuple[np.ndarray, np.ndarray]  # steps [N] and values [N]


def plot_metrics(metrics_path: str | Path, output_path: str | Path) -> None:
    """Plots the losses and the learning rate of a run over its steps.

    A loss is faint as it was logged and bold as its mean over a twentieth of the run.

    Args:
      metrics_path: the run's `metrics.jsonl`. Where a step was logged twice, because
        the run was resumed before it, the later row counts.
      output_path: of the PNG to write.

    Raises:
      UserError: the file cannot be read or has no loss.
    """
    from matplotlib.figure import Figure  # Only here: importing it takes long.

    curves = _read_curves(Path(metrics_path))
    losses = {name: curve for name, curve in curves.items() if name.endswith("loss")}
    if not losses:
        raise UserError(f"{metrics_path}: expected rows with a loss, got none")
    figure = Figure(figsize=(9, 6.5), dpi=120, layout="constrained")
    loss_axes, rate_axes = figure.subplots(2, sharex=True, height_ratios=(5, 1))
    _plot_losses(loss_axes, losses)
    figure.legend(title="mean at the end", loc="outside upper center", ncols=3)
    rate_axes.plot(*curves.get("learning_rate", ([], [])), color="black")
    rate_axes.set(xlabel="step", ylabel="learning rate")
    rate_axes.set_ylim(bottom=0.0)
    rate_axes.locator_params(axis="x", integer=True)
    for axes in (loss_axes, rate_axes):
        axes.grid(alpha=0.3)
    figure.savefig(output_path, format="png")


def _plot_losses(axes: "Axes", losses: dict[str, Curve]) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    lowest = math.inf
    for index, (name, (steps, values)) in enumerate(losses.items()):
        smooth, color = _moving_mean(values), f"C{index}"
        axes.plot(steps, values, color=color, alpha=0.2, linewidth=0.8)
        label = f"{name.replace('_', ' ')}: {smooth[-1]:.3g}"
        axes.plot(steps, smooth, color=color, label=label, marker=".", markevery=[-1])
        lowest = min(lowest, smooth.min())
    axes.set(yscale="log", ylabel="loss")
    # One step with hardly any loss would squeeze all that matters together.
    axes.set_ylim(bottom=max(lowest / 2, 1e-4))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")


def _moving_mean(values: np.ndarray) -> np.ndarray:
    """Returns the mean of the values around each, fewer of them at the ends."""
    window = np.ones(len(values) // 20 + 1)
    counts = np.convolve(np.ones_like(values), window, mode="same")
    return np.convolve(values, window, mode="same") / counts


def _read_curves(path: Path) -> dict[str, Curve]:
    """Returns the finite values that the rows hold, by key."""
    points: dict[str, list[tuple[int, float]]] = {}
    for step, row in sorted(_read_rows(path).items()):
        for name, value in row.items():
            if isinstance(value, int | float) and math.isfinite(value):
                points.setdefault(name, []).append((step, value))
    return {name: tuple(np.array(each).T) for name, each in points.items()}


def _read_rows(path: Path) -> dict[int, dict[str, Any]]:
    rows: dict[int, dict[str, Any]] = {}
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise UserError(f"cannot read metrics: {error}") from error
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            rows.setdefault(row["step"], {}).update(row)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}, line {number}: expected a JSON object with a step, "
                f"got {line[:80]!r}"
            ) from error
    return rows
