"""Reads a run directory for the report: missing parts are reported, not errors."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from frcnn_jax.config import Config
from frcnn_jax.config.loading import read_config
from frcnn_jax.data.records import Source, abbreviate
from frcnn_jax.data.sources import open_source
from frcnn_jax.errors import UserError
from frcnn_jax.evaluation import evaluated_split
from frcnn_jax.evaluation.evaluated_split import EvaluatedSplit
from frcnn_jax.evaluation.report import SCHEMA
from frcnn_jax.visualization.curves import Curve, read_curves

_FILES = ("config.json", "evaluation.json", "metrics.jsonl")  # a run has at least one


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ReportedRun:
    """A run directory, as far as it can be read."""

    name: str  # of the directory; different from that of the other runs
    path: Path
    config: Config | None
    file: Path | None  # of the evaluation: `evaluation.json`, `evaluation-train.json`
    evaluation: dict[str, Any]  # what it holds; empty if it cannot be read
    split: EvaluatedSplit | None  # `evaluation.npz`
    source: Source | None  # the images, if they are still in place
    curves: dict[str, Curve]  # of `metrics.jsonl`
    missing: list[str]  # sentences for the reader


def read_run(
    path: Path, name: str, split: str | None = None, step: int | None = None
) -> ReportedRun:
    """Reads a run directory.

    Args:
      path: of the directory.
      name: to call the run by.
      split: that was evaluated; by default the test split.
      step: of the evaluated checkpoint; by default the last one.

    Raises:
      UserError: if there is no such directory, or no run in it.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such run directory")
    if not any((path / file).exists() for file in _FILES):
        raise UserError(f"{path} holds no run, expected one of {', '.join(_FILES)}")
    missing: list[str] = []
    config = _read_config(path, missing)
    if step is not None and split is None and config is not None:
        split = config.data.test_split
    file = _find_evaluation(path, split, step)
    if file is None:
        missing.append(_how_to_evaluate(path, split, step))
    evaluation = _read_evaluation(file, missing) if file else {}
    if evaluation and evaluation["voc07_map"] is None:
        missing.append(
            "No objects to find in the split, and so no precision or recall."
        )
    evaluated = None
    if evaluation and file:
        evaluated = _read_split(file.with_suffix(".npz"), evaluation, missing)
    source = None
    if evaluated and config:
        source = _open_images(config, evaluation.get("split") or split, missing)
        source = _check_same(source, evaluated, missing)
    return ReportedRun(
        name=name,
        path=path,
        config=config,
        file=file,
        evaluation=evaluation,
        split=evaluated,
        source=source,
        curves=_read_metrics(path / "metrics.jsonl", missing),
        missing=missing,
    )


def _read_config(path: Path, missing: list[str]) -> Config | None:
    try:
        return read_config(path / "config.json")
    except UserError as error:
        missing.append(f"No config, and so no pictures: {error}.")
        return None


def _find_evaluation(path: Path, split: str | None, step: int | None) -> Path | None:
    if split is None and step is None:
        plain = path / "evaluation.json"  # of the test split at the last step
        return plain if plain.exists() else None
    found: dict[Path, int] = {}
    for file in sorted(path.glob("evaluation*.json")):
        try:
            evaluation = json.loads(file.read_text())
            evaluated = evaluation.get("split"), evaluation.get("step")
        except (OSError, ValueError, AttributeError):
            continue
        if split in (None, evaluated[0]) and step in (None, evaluated[1]):
            found[file] = evaluated[1] or 0
    return max(found, key=lambda file: found[file], default=None)


def _how_to_evaluate(path: Path, split: str | None, step: int | None) -> str:
    given = {"split": split, "step": step}
    texts = [f"{name} {value}" for name, value in given.items() if value is not None]
    options = "".join(f" --{text}" for text in texts)
    of = f" of {', '.join(texts)}" if texts else ""
    return (
        f"No evaluation{of}, and so no figures: "
        f"run frcnn evaluate --work-dir {path}{options}."
    )


def _read_evaluation(file: Path, missing: list[str]) -> dict[str, Any]:
    again = "run frcnn evaluate again"
    try:
        evaluation = json.loads(file.read_text())
        schema = evaluation.get("schema", 1)
    except (OSError, ValueError, AttributeError) as error:
        missing.append(f"No figures: {file} cannot be read ({error}); {again}.")
        return {}
    if schema != SCHEMA:
        missing.append(
            f"No figures: {file} has schema {schema}, expected {SCHEMA}; {again}."
        )
        return {}
    return evaluation


def _read_split(
    file: Path, evaluation: dict[str, Any], missing: list[str]
) -> EvaluatedSplit | None:
    try:
        split = evaluated_split.load(file)
        if split.fingerprints != evaluation.get("fingerprints"):
            raise UserError(f"{file}: is of another evaluation than the figures")
        return split
    except UserError as error:
        missing.append(
            f"No precision-recall curves and no pictures: {error}; "
            "run frcnn evaluate again."
        )
        return None


def _open_images(
    config: Config, split: str | None, missing: list[str]
) -> Source | None:
    try:
        return open_source(config.data, split or config.data.test_split)
    except UserError as error:
        missing.append(f"No pictures, since the images cannot be opened: {error}.")
        return None


def _check_same(
    source: Source | None, evaluated: EvaluatedSplit, missing: list[str]
) -> Source | None:
    if source is None:
        return None
    ids = [
        [each.image_id for each in annotations]
        for annotations in (source.annotations, evaluated.annotations)
    ]
    if ids[0] == ids[1]:
        return source
    present = set(ids[0])
    lost = [image_id for image_id in ids[1] if image_id not in present]
    missing.append(
        "No pictures, since the images are not those that were evaluated"
        + (f"; gone: {abbreviate(lost)}." if lost else ".")
    )
    return None


def _read_metrics(path: Path, missing: list[str]) -> dict[str, Curve]:
    try:
        return read_curves(path)
    except UserError as error:
        missing.append(f"No training curves: {error}.")
        return {}
