"""What to do next, in sentences made from the figures, each with its number.

A rule looks at one figure, and yields nothing if that is as it should be.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from frcnn_jax.evaluation.tide import ERRORS
from frcnn_jax.report.runs import ReportedRun

Evaluation = Mapping[str, Any]

# What each type of error is called, and what to do about it.
_ERRORS = {
    "class": ("confused classes", "look at the confusion matrix, and at the labels"),
    "location": ("localization errors", "train longer, or make the anchors fit better"),
    "both": (
        "errors of class and location at once",
        "look at the worst detections, near objects of other classes",
    ),
    "duplicate": ("duplicates", "lower model.detection.iou_threshold"),
    "background": (
        "detections of background",
        "check whether the worst ones are objects that nobody annotated",
    ),
    "missed": ("missed objects", "look at the recall of proposals and at the sizes"),
}
_MANY_LOST = 0.9  # a class is looked at if its AP50 is lower
_NEARLY_ALL_LOST = 0.02


class Finding(NamedTuple):
    """A sentence, and the id of the page's section that shows its figure."""

    text: str
    section: str


def find(run: ReportedRun) -> list[Finding]:
    """Lists the findings of a run."""
    findings = []
    if run.evaluation:
        rules = (
            ("headline", _headline),
            ("classes", _empty_classes),
            ("classes", _weakest_class),
            ("errors", _errors),
            ("confusion", _confusion),
            ("boxes", _proposals),
            ("objects", _sizes),
            ("calibration", _calibration),
            ("classes", _thresholds),
        )
        findings += [
            Finding(text, section)
            for section, rule in rules
            for text in rule(run.evaluation)
        ]
        findings += [Finding(text, "boxes") for text in _anchors(run)]
    return findings + [Finding(text, "training") for text in _training(run)]


def _headline(evaluation: Evaluation) -> Iterator[str]:
    figure, ends = evaluation["voc07_map"], evaluation["intervals"]["voc07_map"]
    if figure is None:
        return
    low, high = map(percent, ends)
    yield (
        f"VOC07 mAP is {percent(figure)}; on other images like these expect {low} to "
        f"{high} (95 % interval)."
    )


def _empty_classes(evaluation: Evaluation) -> Iterator[str]:
    rows = evaluation["per_class"]
    empty = [name for name, row in rows.items() if not row["num_objects"]]
    if empty and evaluation["voc07_map"] is not None:
        yield f"Classes without objects, excluded from every mean: {', '.join(empty)}."
    for name in _hardly_found(evaluation):
        row, proposals = rows[name], evaluation["proposals"]["per_class"][name]
        anchor = evaluation["anchors"]["per_class"][name]["median_iou"]
        yield (
            f"{name} is hardly found, with an area AP of {percent(row['area_ap'])}: "
            f"{row['num_objects']} objects, {row['num_detections']} detections; "
            f"proposals overlap {percent(proposals)} of the objects by IoU 0.5, and "
            f"anchors overlap them by IoU {anchor:.2f} at best (median)."
        )


def _hardly_found(evaluation: Evaluation) -> list[str]:
    values = {name: row["area_ap"] for name, row in evaluation["per_class"].items()}
    return [n for n, x in values.items() if x is not None and x < _NEARLY_ALL_LOST]


def _weakest_class(evaluation: Evaluation) -> Iterator[str]:
    values = {n: row["area_ap"] for n, row in evaluation["per_class"].items()}
    values = {name: value for name, value in values.items() if value is not None}
    if not values:
        return
    weakest, best = (f(values, key=lambda n: values[n]) for f in (min, max))
    is_reported = weakest in _hardly_found(evaluation)
    if is_reported or values[best] - values[weakest] < 0.05:
        return
    low, high = map(percent, evaluation["intervals"]["per_class"][weakest]["area_ap"])
    yield (
        f"{weakest} is the weakest class: area AP {percent(values[weakest])} ({low} to "
        f"{high}) on {evaluation['per_class'][weakest]['num_objects']} objects, while "
        f"{best} has {percent(values[best])}."
    )


def _errors(evaluation: Evaluation) -> Iterator[str]:
    """Names the costliest error of all classes together, and of the weakest ones."""
    tide = evaluation["tide"]
    # Where nearly everything is wrong, no single error explains it.
    hardly_found = _hardly_found(evaluation)
    weak = [name for name in _weak_classes(evaluation) if name not in hardly_found]
    rows = {"All classes together": tide}
    if len(tide["per_class"]) > 1:
        rows |= {name: tide["per_class"][name] for name in weak[:3]}
    for name, row in rows.items():
        costs = {error: row[error]["cost"] for error in ERRORS}
        costliest = max(costs, key=lambda error: costs[error])
        if sum(costs.values()) < 0.005:
            continue
        what, advice = _ERRORS[costliest]
        if costliest in ("location", "missed") and name in tide["per_class"]:
            anchor = evaluation["anchors"]["per_class"][name]["median_iou"]
            advice = f"the median best anchor IoU is {anchor:.2f}; {advice}"
        yield (
            f"{name}: {what} cost the most; fixing them alone would gain "
            f"{100 * costs[costliest]:.1f} points of AP50; {advice}."
        )


def _weak_classes(evaluation: Evaluation) -> list[str]:
    """Lists the classes that lose much, those that lose most first."""
    rows = evaluation["tide"]["per_class"]
    values = {name: row["ap50"] for name, row in rows.items()}
    weak = [name for name, x in values.items() if x is not None and x < _MANY_LOST]
    return sorted(weak, key=lambda name: values[name])


def _confusion(evaluation: Evaluation) -> Iterator[str]:
    matrix, names = np.array(evaluation["confusion"]), list(evaluation["per_class"])
    between = matrix[:-1, :-1] * (1 - np.eye(len(names), dtype=int))
    # The threshold of a class that is hardly found says nothing.
    between[:, [name in _hardly_found(evaluation) for name in names]] = 0
    row, column = np.unravel_index(between.argmax(), between.shape)
    count, total = between[row, column], matrix[row].sum()
    if count >= max(2, 0.05 * total):
        yield (
            f"{names[row]} is most often taken for {names[column]}: {count} of {total} "
            f"objects ({percent(count / total)})."
        )


def _proposals(evaluation: Evaluation) -> Iterator[str]:
    part = evaluation["proposals"]
    recall = part["recall"][-1][0]
    if recall is None:
        return
    shares = {name: x for name, x in part["per_class"].items() if x is not None}
    worst = min(shares, key=lambda name: shares[name])
    text = f"Proposals overlap {percent(recall)} of the objects by IoU 0.5"
    if recall < 0.95:
        yield (
            f"{text}, least of {worst} ({percent(shares[worst])}): the first stage "
            "limits the second; check the anchors and model.proposals.post_nms_test."
        )
    else:
        yield f"{text}: the remaining errors are made in the second stage."


def _sizes(evaluation: Evaluation) -> Iterator[str]:
    part = evaluation["objects"]["side"]
    total, found = np.array(part["num_objects"]), np.array(part["num_found"])
    enough = total >= max(5, 0.02 * total.sum())
    if not enough.any():
        return
    shares = np.where(enough, found / np.maximum(total, 1), np.inf)
    worst, overall = int(shares.argmin()), found.sum() / total.sum()
    if shares[worst] > overall - 0.1:
        return
    edges = [0.0, *part["edges"], math.inf]
    low, high = edges[worst], edges[worst + 1]
    size = f"{low:g} to {high:g}" if math.isfinite(high) else f"{low:g} and more"
    advice = "; larger images (data.shorter_side) may help" if worst < 3 else ""
    yield (
        f"{percent(shares[worst])} of the objects with a side of {size} pixels are "
        f"found, {percent(overall)} of all objects{advice}."
    )


def _calibration(evaluation: Evaluation) -> Iterator[str]:
    part = evaluation["calibration"]
    counts = np.array(part["counts"])
    if part["error"] is None or part["error"] < 0.1:
        return
    score, share = (
        np.nan_to_num(np.array(part[key], float)) @ counts / counts.sum()
        for key in ("mean_scores", "precisions")
    )
    yield (
        f"Scores are not probabilities: they are {score:.2f} on average, but "
        f"{percent(share)} of the detections are correct (calibration error "
        f"{part['error']:.2f})."
    )


def _thresholds(evaluation: Evaluation) -> Iterator[str]:
    points = [row["best_f1"] for row in evaluation["per_class"].values()]
    points = [point for point in points if point["threshold"] is not None]
    if not points:
        return
    low, high = (f(point["threshold"] for point in points) for f in (min, max))
    text = f"{low:.2f}" if high - low < 0.005 else f"{low:.2f} to {high:.2f} by class"
    f1 = np.mean([point["f1"] for point in points])
    yield (
        f"The best F1 ({f1:.2f} on average) needs a score threshold of {text}; frcnn "
        "predict uses 0.5 unless --score-threshold is given."
    )


def _anchors(run: ReportedRun) -> Iterator[str]:
    """Suggests other scales for the weak classes, or what to do where none fit."""
    part = run.evaluation["anchors"]
    rows = {name: part["per_class"][name] for name in _weak_classes(run.evaluation)}
    if not rows:
        return
    # The fewest scales that fit nearly as well as the best ones.
    tried = part["by_scales"]
    good = [name for name, x in tried.items() if x >= max(tried.values()) - 0.02]
    best = min(good, key=lambda name: (len(name.split()), -tried[name]))
    gains = {name: row["by_scales"][best] - row["recall"] for name, row in rows.items()}
    name = max(gains, key=lambda each: gains[each])
    if sum(gains.values()) > 0.0 and gains[name] >= 0.05:
        row, now = rows[name], "the anchors"
        if run.config is not None:
            scales = [f"{scale:g}" for scale in run.config.model.anchor_scales]
            now = f"anchors of the scales {' '.join(scales)}"
        yield (
            f"{name}: {now} overlap {percent(row['recall'])} of the objects by IoU 0.5 "
            f"(median {row['median_iou']:.2f}), those of the scales {best} would "
            f"{percent(row['by_scales'][best])}: try --model.anchor-scales {best}."
        )
    highest = {name: max(row["by_scales"].values()) for name, row in rows.items()}
    name = min(highest, key=lambda each: highest[each])
    if highest[name] < 0.75:
        yield (
            f"{name}: no choice of anchor scales covers more than "
            f"{percent(highest[name])} of the objects by IoU 0.5: small ones need "
            "larger images (data.shorter_side, data.longer_side, data.canvases), long "
            "ones other model.anchor_ratios."
        )


def _training(run: ReportedRun) -> Iterator[str]:
    """Reports a loss that still falls, and a validation loss that rises again."""
    nothing = (np.zeros(0), np.zeros(0))
    _, loss = run.curves.get("loss", nothing)
    if len(loss) >= 20:
        tenth = len(loss) // 10
        before, now = loss[-2 * tenth : -tenth].mean(), loss[-tenth:].mean()
        if now < 0.97 * before:
            yield (
                f"The loss of the last tenth of the steps, {now:.3g}, is "
                f"{percent(1 - now / before)} below that of the tenth before: training "
                "longer may help."
            )
    steps, values = run.curves.get("validation_loss", nothing)
    if len(values) >= 3 and values[-1] > 1.03 * values.min():
        yield (
            f"The validation loss was lowest at step {steps[values.argmin()]:.0f} "
            f"({values.min():.3g}; now {values[-1]:.3g}): the detector may overfit; "
            "--step best selects the checkpoint with the highest validation VOC07 mAP, "
            "which may be another."
        )
    _, skipped = run.curves.get("bad_steps", nothing)
    if len(skipped) and skipped[-1]:
        yield (
            f"{skipped[-1]:.0f} updates were skipped, since a loss or the gradient was "
            "not finite: see bad_steps.jsonl."
        )


def percent(value: float | None) -> str:
    """Formats a share in percent; a dash for None."""
    return "-" if value is None else f"{100 * value:.1f} %"
