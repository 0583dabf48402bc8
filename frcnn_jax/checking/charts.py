"""The charts of a checked data set, as SVG. A split has the same color in all of them.

Only splits that the config uses are drawn.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from frcnn_jax.checking.anchors import IOU_THRESHOLDS, suggest
from frcnn_jax.checking.check import DataCheck
from frcnn_jax.checking.statistics import measure
from frcnn_jax.data.records import Annotation
from frcnn_jax.report.svg import COLORS, chart

_MAX_CLASSES = 40  # whose objects are drawn, the most frequent ones
_NUM_BINS = 24


def objects_by_class(check: DataCheck) -> Markup:
    """Draws the number of objects of the most frequent classes."""
    counts = {
        split: {name: row["num_objects"] for name, row in values["per_class"].items()}
        for split, values in check.statistics.items()
        if values["uses"]
    }
    totals: Counter[str] = Counter()
    for each in counts.values():
        totals.update(each)
    names = [name for name, _ in totals.most_common(_MAX_CLASSES)]
    places, left = np.arange(len(names)), np.zeros(len(names))
    height = 0.9 + 0.18 * len(names)
    with chart("classes", "Number of objects by class", (4.0, height)) as c:
        for split, each in counts.items():
            values = np.array([each.get(name, 0) for name in names])
            c.axes.barh(places, values, left=left, label=split)
            left = left + values
        c.axes.set_yticks(places, names)
        c.axes.set_ylim(len(names) - 0.4, -0.6)
        c.axes.grid(visible=False, axis="y")
        c.axes.set(xlabel="objects")
        c.axes.legend()
    return c.svg


def objects_by_image(check: DataCheck) -> Markup:
    """Draws the share of images by the number of their objects."""
    counts = {name: measure(each).counts for name, each in _annotations(check).items()}
    most = max((each.max(initial=0) for each in counts.values()), default=0)
    edges = np.arange(0, most + 2) - 0.5
    if most > 2 * _NUM_BINS:
        edges = np.linspace(-0.5, most + 0.5, _NUM_BINS + 1)
    return _histogram("counts", "objects of an image", "images", counts, edges)


def objects_by_side(check: DataCheck) -> Markup:
    """Draws the share of objects by the square root of their area."""
    sides = {name: measure(each).sides for name, each in _annotations(check).items()}
    edges = _even_ratios(sides)
    return _histogram("sides", "side of the object, pixels", "objects", sides, edges)


def objects_by_aspect(check: DataCheck) -> Markup:
    """Draws the share of objects by their shape."""
    values = {name: measure(each).aspects for name, each in _annotations(check).items()}
    edges = _even_ratios(values)
    return _histogram("aspects", "height / width", "objects", values, edges)


def image_sizes(check: DataCheck) -> Markup:
    """Draws the sizes of images, a dot for each size."""
    with chart("sizes", "Height over width of the images") as c:
        for name, annotations in _annotations(check).items():
            sizes = np.array([each.image_size for each in annotations]).reshape(-1, 2)
            distinct, counts = np.unique(sizes, axis=0, return_counts=True)
            area = 8 + 80 * counts / max(counts.max(initial=0), 1)
            heights, widths = distinct.T
            c.axes.scatter(widths, heights, s=area, alpha=0.6, linewidths=0, label=name)
        c.axes.set(xlabel="width, pixels", ylabel="height, pixels")
        c.axes.set(xlim=(0, None), ylim=(0, None))
        c.axes.legend()
    return c.svg


def anchors(check: DataCheck) -> Markup | None:
    """Draws the recall of the anchors, and of better ones, by the objects' size."""
    if not check.anchors:
        return None
    better = suggest(check.anchors)
    compared = [check.anchors[0], *([better] if better else [])]
    sides, num_bars = list(compared[0].per_side), len(compared) * len(IOU_THRESHOLDS)
    with chart("anchors", "Share of objects that anchors overlap, by side") as c:
        for number in range(num_bars):
            column, row = divmod(number, len(compared))
            c.axes.bar(
                np.arange(len(sides)) + 0.8 * ((number + 0.5) / num_bars - 0.5),
                [compared[row].per_side[side][column] for side in sides],
                0.74 / num_bars,
                color=COLORS[column],
                alpha=0.5 if row else 1.0,
                label=f"IoU {IOU_THRESHOLDS[column]}{', others' if row else ''}",
            )
        c.axes.set_xticks(range(len(sides)), sides)
        c.axes.grid(visible=False, axis="x")
        c.axes.set(ylim=(0, 1.02), ylabel="share", xlabel="side after resizing, pixels")
        c.axes.figure.legend(loc="outside lower center", ncols=num_bars)
    return c.svg


def _annotations(check: DataCheck) -> dict[str, Sequence[Annotation]]:
    return {each.name: each.source.annotations for each in check.splits if each.uses}


def _even_ratios(values: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns edges whose ratios are equal, around all values."""
    every = np.concatenate([np.ones(1), *values.values()])
    if len(every) > 1:
        every = every[1:]
    return np.geomspace(0.99 * every.min(), 1.01 * every.max(), _NUM_BINS + 1)


def _histogram(
    name: str,
    quantity: str,
    counted: str,
    values: Mapping[str, np.ndarray],
    edges: np.ndarray,
) -> Markup:
    """Draws what share of the values of each split lies between two edges."""
    from matplotlib.ticker import LogLocator, NullLocator

    with chart(name, f"Share of {counted} by {quantity}") as c:
        for split, each in values.items():
            shares = np.histogram(each, edges)[0] / max(len(each), 1)
            c.axes.stairs(shares, edges, fill=True, alpha=0.35, label=split)
        if edges[0] > 0:
            c.axes.set_xscale("log")
            c.axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            c.axes.xaxis.set_major_formatter("{x:g}")
            c.axes.xaxis.set_minor_locator(NullLocator())
        c.axes.set(xlabel=quantity, ylabel=f"share of {counted}")
        c.axes.legend()
    return c.svg
