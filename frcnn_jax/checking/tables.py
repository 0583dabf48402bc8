"""The tables of a checked data set; the terminal and the page show the same ones."""

from collections.abc import Mapping
from typing import Any

from frcnn_jax.checking.anchors import IOU_THRESHOLDS, SIDES, AnchorRecall, suggest
from frcnn_jax.checking.check import DataCheck
from frcnn_jax.report.tables import Table

_DIFFICULT = {"coco": "crowds", "voc": "difficult objects"}
_COUNTS = {
    "num_images": "images",
    "num_broken": "broken images",
    "num_empty": "images without objects",
    "num_objects": "objects",
    "num_difficult": "difficult objects or crowds",
    "num_dropped": "dropped boxes",
    "num_clipped": "clipped boxes",
    "num_beyond_max_objects": "objects beyond max_objects",
}
_SPREADS = {
    "objects_per_image": "objects of an image",
    "image_height": "image height, pixels",
    "image_width": "image width, pixels",
    "image_aspect": "image height / width",
}


def all_tables(check: DataCheck) -> list[Table]:
    """Lists all tables that have a row."""
    tables = (splits(check), classes(check), canvases(check), anchors(check))
    return [table for table in tables if table.rows]


def splits(check: DataCheck) -> Table:
    """Counts what each split has, and all of them together."""
    columns = check.statistics.values()
    difficult = _DIFFICULT.get(check.config.data.source, _COUNTS["num_difficult"])
    rows = []
    for key, name in (_COUNTS | {"num_difficult": difficult}).items():
        counts = [each[key] for each in columns]
        rows.append([name, *map(str, [*counts, sum(counts)])])
    for key, name in _SPREADS.items():
        rows.append([name, *(_least_to_most(each[key]) for each in columns), ""])
    header = []
    for name, values in check.statistics.items():
        uses = " and ".join(values["uses"])
        header.append(name if uses in ("", name) else f"{name} ({uses})")
    return Table("Splits", ["", *header, "all"], rows)


def classes(check: DataCheck) -> Table:
    """Counts the objects of each class, and measures those that are trained on."""
    used = {name: each for name, each in check.statistics.items() if each["uses"]}
    first = next(iter(used))
    names = dict.fromkeys(n for each in used.values() for n in each["per_class"])
    rows = []
    for name in names:
        per_split = [each["per_class"].get(name) for each in used.values()]
        counts = [str(each["num_objects"]) if each else "-" for each in per_split]
        row = used[first]["per_class"].get(name)
        cells = ["-"] * 3
        if row:
            cells = [
                str(row["num_images"]),
                _middle(row["side"]),
                _middle(row["aspect"]),
            ]
        rows.append([name, *counts, *cells])
    header = ["class", *(f"objects of {name}" for name in used), f"images of {first}"]
    header += ["side, pixels (9 of 10)", "height / width (9 of 10)"]
    return Table(f"Classes; sizes and shapes are those of {first}", header, rows)


def canvases(check: DataCheck) -> Table:
    """Lists the share of images on each canvas, and how much of it is padding."""
    used = {name: each for name, each in check.statistics.items() if each["uses"]}
    rows = [
        [
            canvas,
            *(
                _share(each["canvases"][canvas], each["num_images"])
                for each in used.values()
            ),
        ]
        for canvas in next(iter(used.values()))["canvases"]
    ]
    return Table("Images of each canvas, and padding in it", ["canvas", *used], rows)


def anchors(check: DataCheck) -> Table:
    """Lists the share of objects that anchors overlap, by class and size."""
    if not check.anchors:
        return Table("", [], [])
    now, better = check.anchors[0], suggest(check.anchors)
    shown = {"": now} | ({"others: ": better} if better else {})
    rows = [["all", *(cell for each in shown.values() for cell in _cells(each.recall))]]
    rows += [
        [name, *(c for each in shown.values() for c in _cells(each.per_class[name]))]
        for name in now.per_class
    ]
    rows += [
        [
            f"side {side}",
            *(c for each in shown.values() for c in _cells(each.per_side[side])),
        ]
        for side in SIDES
        if side in now.per_side
    ]
    header = [f"{name}IoU {iou}" for name in shown for iou in IOU_THRESHOLDS]
    title = "; ".join(f"{name}{describe_anchors(each)}" for name, each in shown.items())
    return Table(f"Objects that anchors overlap, percent. {title}", ["", *header], rows)


def describe_anchors(anchors: AnchorRecall) -> str:
    """Returns the scales and ratios of anchors."""
    scales, ratios = (
        " ".join(f"{x:g}" for x in values)
        for values in (anchors.scales, anchors.ratios)
    )
    return f"scales {scales}, ratios {ratios}"


def _least_to_most(spread: Mapping[str, Any]) -> str:
    if spread["min"] is None:
        return "-"
    if spread["min"] == spread["max"]:
        return f"{spread['min']:.3g}"
    return f"{spread['min']:.4g} .. {spread['median']:.4g} .. {spread['max']:.4g}"


def _middle(spread: Mapping[str, Any]) -> str:
    if spread["median"] is None:
        return "-"
    return f"{spread['median']:.3g} ({spread['p5']:.3g} to {spread['p95']:.3g})"


def _share(row: Mapping[str, Any], num_images: int) -> str:
    if not row["num_images"]:
        return "0 %"
    return f"{row['num_images'] / num_images:.0%}, padding {row['padding']:.1%}"


def _cells(values: list[float]) -> list[str]:
    return [f"{100 * value:.1f}" for value in values]
