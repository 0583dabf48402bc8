"""Turns matplotlib's figures into SVG that belongs to its page.

Text and axes take the color of the page's text, so that a chart is readable on light
and on dark; texts are searchable and have the page's font.
"""

import contextlib
import io
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Readable on white and on black.
COLORS = (
    *("#3f83c9", "#d9772b", "#3f9a5c", "#cf4f58", "#8b6ccb", "#2a9aa3", "#c25fa0"),
    *("#8f8a2c", "#a8745a", "#6f7f8f"),
)
_INK = "#0a0b0c"  # stands for the color of the page's text
_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": _INK,
    "axes.grid": True,
    "axes.labelcolor": _INK,
    "axes.labelsize": 8.5,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": _INK,
    "axes.titlesize": 9,
    "font.family": "sans-serif",
    "font.size": 8.5,
    "grid.alpha": 0.18,
    "grid.color": _INK,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.labelcolor": _INK,
    "lines.linewidth": 1.5,
    "svg.fonttype": "none",
    "text.color": _INK,
    "text.parse_math": False,  # a class may be called $1
    "xtick.color": _INK,
    "xtick.labelsize": 8,
    "ytick.color": _INK,
    "ytick.labelsize": 8,
}


class Chart:
    """A chart while it is drawn, and its SVG afterward."""

    def __init__(self) -> None:
        """Starts empty."""
        self.svg = Markup("")
        self.axes: Axes


@contextlib.contextmanager
def chart(
    name: str, description: str, size: tuple[float, float] = (4.0, 2.9)
) -> Iterator[Chart]:
    """Yields a chart to draw on its `axes`; its `svg` is ready when the block ends.

    Args:
      name: different from that of the page's other charts.
      description: what the chart shows, for those who cannot see it.
      size: width and height in inches; a phone is about 4 inches wide.
    """
    import matplotlib  # Only here: importing it takes long.
    from cycler import cycler
    from matplotlib.figure import Figure

    style = _STYLE | {"axes.prop_cycle": cycler(color=COLORS), "svg.hashsalt": name}
    result = Chart()
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        result.axes = figure.subplots()
        yield result
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    result.svg = Markup(_inline(text.getvalue(), description))


def _inline(svg: str, description: str) -> str:
    """Strips fonts, unused names, and what only a standalone file needs."""
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    for pattern in (
        r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->",
        r"font-family: [^;\"]*; |xlink:(?=href)",
    ):
        svg = re.sub(pattern, "", svg, flags=re.DOTALL)
    used = set(re.findall(r"#([^\s\"')]+)[\"')]", svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", svg)
    view_box = re.search(r'viewBox="[^"]*"', svg)
    assert view_box is not None  # matplotlib always writes one
    content = svg[svg.index(">") + 1 :]
    label = Markup.escape(description)
    head = f'<svg {view_box[0]} role="img" aria-label="{label}">'
    return re.sub(r"\n\s*", "\n", head + content).strip()
