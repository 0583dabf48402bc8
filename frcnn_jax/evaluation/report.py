"""An evaluation as `evaluation.json` holds it and as a table."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from frcnn_jax.evaluation.voc import VOCResult

_COCO_PRINTED = ("AP", "AP50", "AP75")


def to_json(
    result: VOCResult, coco_figures: Mapping[str, float], class_names: Sequence[str]
) -> dict[str, Any]:
    """Turns results into a dictionary that JSON can hold: None where they have NaN.

    Args:
      result: the VOC figures of L classes.
      coco_figures: COCO's figures by name.
      class_names: L names, in the order of the labels.

    Returns:
      `voc07_map`, `area_map`, `coco`, which holds COCO's figures, and `per_class`,
      which holds by name `voc07_ap`, `area_ap` and `num_objects`.

    Raises:
      ValueError: if the numbers of names and classes differ.
    """
    rows = zip(class_names, result.curves, result.voc07_ap, result.area_ap, strict=True)
    return {
        "voc07_map": _none_if_nan(result.voc07_map),
        "area_map": _none_if_nan(result.area_map),
        "coco": {name: _none_if_nan(each) for name, each in coco_figures.items()},
        "per_class": {
            name: {
                "voc07_ap": _none_if_nan(voc07_ap),
                "area_ap": _none_if_nan(area_ap),
                "num_objects": curve.num_objects,
            }
            for name, curve, voc07_ap, area_ap in rows
        },
    }


def print_table(evaluation: dict[str, Any]) -> None:
    """Prints what `to_json` returns, in percent: the classes, their mean, COCO's AP."""
    from rich.console import Console
    from rich.table import Table

    per_class = evaluation["per_class"]
    table = Table(show_footer=True)
    table.add_column("class", "all")
    num_objects = sum(row["num_objects"] for row in per_class.values())
    table.add_column("objects", str(num_objects), justify="right")
    for header, key in (("VOC07 AP", "voc07_map"), ("area AP", "area_map")):
        table.add_column(header, _percent(evaluation[key]), justify="right")
    for name, row in per_class.items():
        figures = [_percent(row[key]) for key in ("voc07_ap", "area_ap")]
        table.add_row(name, str(row["num_objects"]), *figures)
    console = Console()
    console.print(table)
    coco = [f"{key} {_percent(evaluation['coco'][key])}" for key in _COCO_PRINTED]
    console.print(f"COCO {', '.join(coco)}")


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
