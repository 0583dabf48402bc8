"""The text of a detector's model card: what it finds, how well, and in which images."""

import json
from pathlib import Path
from typing import Any

from frcnn_jax.config import DetectorSpec
from frcnn_jax.weights.record import Weights

_TEMPLATE = """\
# Faster R-CNN (VGG16), {num_classes} classes

```python
from frcnn_jax import Detector

detector = Detector.load("hf://OWNER/NAME")
detections = detector("picture.jpg")
print(detections.xyxy, detections.names, detections.scores)
```

- Classes: {class_names}
- Pixels: {preprocessing}
- Image size: shorter side {shorter_side} pixels, longer side at most {longer_side}
- Training data: {training_data}

## Evaluation

{evaluation}
"""
_COCO_SHOWN = ("AP", "AP50", "AP75")


def describe_detector(spec: DetectorSpec, weights: Weights) -> str:
    """Describes a detector in Markdown, with its run's evaluation if there is one.

    Args:
      spec: of the detector.
      weights: its own; of a run's checkpoint, their source is its path.
    """
    checkpoint = Path(weights.source)
    progress = _read_json(checkpoint / "progress" / "metadata")
    evaluation = _find_evaluation(checkpoint.parent.parent, weights.fingerprint)
    fingerprint = progress.get("data", {}).get("fingerprint")
    return _TEMPLATE.format(
        num_classes=len(spec.class_names),
        class_names=", ".join(spec.class_names),
        preprocessing=spec.model.preprocessing,
        shorter_side=spec.resizing.shorter_side,
        longer_side=spec.resizing.longer_side,
        training_data=f"fingerprint `{fingerprint}`" if fingerprint else "not known",
        evaluation=_table(evaluation) if evaluation else "Not evaluated.",
    )


def _find_evaluation(work_dir: Path, fingerprint: str) -> dict[str, Any]:
    """Finds a detector's evaluation on the test split, or else on another one."""
    # The test split's file has the shortest name.
    paths = sorted(work_dir.glob("evaluation*.json"), key=lambda path: len(path.name))
    for path in paths:
        evaluation = _read_json(path)
        # It may be that of another checkpoint or, without a run, anything.
        if evaluation.get("fingerprints", {}).get("detector") == fingerprint:
            return evaluation
    return {}


def _table(evaluation: dict[str, Any]) -> str:
    per_class = evaluation["per_class"]
    mean = {f"{name}_ap": evaluation[f"{name}_map"] for name in ("voc07", "area")}
    mean["num_objects"] = sum(row["num_objects"] for row in per_class.values())
    coco = [f"{name} {_percent(evaluation['coco'][name])}" for name in _COCO_SHOWN]
    return "\n".join(
        [
            "Average precision in percent, on data with the fingerprint "
            f"`{evaluation['fingerprints']['data']}`:",
            "",
            "| class | objects | VOC07 AP | area AP |",
            "|---|--:|--:|--:|",
            *(_row(name, row) for name, row in per_class.items()),
            _row("all", mean),
            "",
            f"COCO {', '.join(coco)}",
        ]
    )


def _row(name: str, row: dict[str, Any]) -> str:
    figures = _percent(row["voc07_ap"]), _percent(row["area_ap"])
    return f"| {name} | {row['num_objects']} | {figures[0]} | {figures[1]} |"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _read_json(path: Path) -> dict[str, Any]:
    """Reads an object; an empty one if there is none."""
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
