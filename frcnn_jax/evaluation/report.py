"""An evaluation as `evaluation.json` holds it and as a table."""

from typing import Any

from frcnn_jax.evaluation import coco, sections, voc
from frcnn_jax.evaluation.calibration import calibration
from frcnn_jax.evaluation.evaluated_split import EvaluatedSplit
from frcnn_jax.evaluation.operating_point import best_operating_point
from frcnn_jax.evaluation.sections import plain

SCHEMA = 2  # of `evaluation.json`; the first had no number
_COCO_PRINTED = ("AP", "AP50", "AP75")


def to_json(split: EvaluatedSplit) -> dict[str, Any]:
    """Computes everything that `evaluation.json` holds; `docs/report.md` explains it.

    Args:
      split: detections and ground truth.

    Returns:
      A dictionary that JSON can hold, with None where a figure is undefined.
    """
    result = voc.average_precisions(*split.compared)
    points = [best_operating_point(ranking) for ranking in result.rankings]
    per_class = {
        name: {
            "voc07_ap": result.voc07_ap[label],
            "area_ap": result.area_ap[label],
            "num_objects": ranking.num_objects.sum(),
            "num_detections": len(ranking.scores),
            "best_f1": points[label]._asdict(),
            "calibration_error": calibration([ranking]).error,
        }
        for label, (name, ranking) in enumerate(
            zip(split.class_names, result.rankings, strict=True)
        )
    }
    return {
        "schema": SCHEMA,
        "voc07_map": plain(result.voc07_map),
        "area_map": plain(result.area_map),
        "coco": plain(coco.average_precisions(*split.compared)),
        "per_class": plain(per_class),
        "intervals": sections.intervals(split, result.rankings),
        "precision_by_iou": sections.precision_by_iou(split),
        "calibration": plain(calibration(result.rankings)._asdict()),
        "tide": sections.tide(split),
        "confusion": sections.confusion(split, points),
        "objects": sections.objects_by_kind(split, points),
        "proposals": sections.proposals(split),
        "anchors": sections.anchors(split),
        "fingerprints": split.fingerprints,
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


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
