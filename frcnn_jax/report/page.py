"""Writes the report of one run, or of several side by side.

`report.html` needs no other file and no network. `report.md` has its tables.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np

from frcnn_jax.files import replace_text
from frcnn_jax.report import charts, examples, findings, tables, training_charts
from frcnn_jax.report.comparison import compare
from frcnn_jax.report.examples import Examples
from frcnn_jax.report.findings import Finding
from frcnn_jax.report.rendering import render
from frcnn_jax.report.runs import ReportedRun, read_run
from frcnn_jax.report.tables import Table

_DEFAULT_THRESHOLD = 0.5  # of a class that has no best one


def write_report(
    paths: Sequence[Path], split: str | None = None, step: int | str | None = None
) -> Path:
    """Writes `report.html` and `report.md` into the first run directory.

    The report says what is missing. The files of `evaluation-train-step60.json`
    are `report-train-step60.html` and `.md`.

    Args:
      paths: run directories.
      split: that was evaluated; by default the test split.
      step: of the evaluated checkpoint, or "best"; by default the last one.

    Returns:
      The path of the page.

    Raises:
      UserError: if a directory does not exist or holds no run, no checkpoint is the
        best, or a file cannot be written.
    """
    names = _distinct_names(paths)
    steps = [_find_step(path, step) for path in paths]
    runs = [
        read_run(path, name, split, each)
        for path, name, each in zip(paths, names, steps, strict=True)
    ]
    drawn = [_draw_examples(run) for run in runs]
    found = [(run.name, findings.find(run)) for run in runs]
    if len(runs) > 1:
        found.append(("Comparison", compare(runs)))
    page = paths[0] / f"report{_suffix(runs[0], split, steps[0])}.html"
    replace_text(page, _render(runs, drawn, found))
    replace_text(page.with_suffix(".md"), _markdown(runs, found))
    return page


def _find_step(path: Path, step: int | str | None) -> int | None:
    if not isinstance(step, str):
        return step
    from frcnn_jax.weights.checkpoints import find_step  # imports JAX: slow

    return find_step(path, step)


def _suffix(run: ReportedRun, split: str | None, step: int | None) -> str:
    """Returns the suffix of the evaluation's name, or the one it would have."""
    if run.file is not None:
        return run.file.stem.removeprefix("evaluation")
    suffix = f"-{quote(split, safe='+')}" if split is not None else ""
    return suffix + (f"-step{step}" if step is not None else "")


def _distinct_names(paths: Sequence[Path]) -> list[str]:
    """Names runs after their directories, with parents until the names differ."""
    parts = [path.resolve().parts for path in paths]
    for number in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-number:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    # The same directory twice.
    return [f"{name} ({number})" for number, name in enumerate(names, start=1)]


def _draw_examples(run: ReportedRun) -> Examples | None:
    if run.split is None or run.source is None or not run.evaluation:
        return None
    points = [row["best_f1"] for row in run.evaluation["per_class"].values()]
    thresholds = np.array(
        [
            _DEFAULT_THRESHOLD if p["threshold"] is None else p["threshold"]
            for p in points
        ]
    )
    mistakes = examples.worst_mistakes(run.split, thresholds)
    drawn = examples.draw(run.split, run.source, mistakes, thresholds)
    run.missing.extend(drawn.missing)
    return drawn


def _render(
    runs: Sequence[ReportedRun],
    drawn: Sequence[Examples | None],
    found: Sequence[tuple[str, list[Finding]]],
) -> str:
    evaluated = [run for run in runs if run.evaluation]
    return render(
        "report.html.j2",
        runs=runs,
        evaluated=evaluated,
        examples=[pair for pair in zip(runs, drawn, strict=True) if pair[1]],
        findings=found,
        tables=tables,
        charts=charts,
        training_charts=training_charts,
        configs=[
            (run.name, json.dumps(dataclasses.asdict(run.config), indent=2))
            for run in runs
            if run.config is not None
        ],
    )


def _markdown(
    runs: Sequence[ReportedRun], found: Sequence[tuple[str, list[Finding]]]
) -> str:
    parts = [f"# Evaluation report: {', '.join(run.name for run in runs)}"]
    for run in runs:
        parts += [f"Missing in {run.name}: {text}" for text in run.missing]
    for table in _all_tables(runs):
        parts += [f"## {table.title}", table.markdown()]
    parts.append("## Findings")
    for name, sentences in found:
        parts += [f"### {name}", "\n".join(f"- {text}" for text, _ in sentences)]
    return "\n\n".join(parts) + "\n"


def _all_tables(runs: Sequence[ReportedRun]) -> list[Table]:
    evaluated = [run for run in runs if run.evaluation]
    if not evaluated:
        return [tables.details(runs)]
    listed = [tables.headline(evaluated)]
    if len(evaluated) > 1:
        listed.append(tables.comparison(evaluated))
    listed.append(tables.precision_by_iou(evaluated))
    for run in evaluated:
        listed += [
            tables.classes(run),
            tables.errors(run),
            tables.confusion(run)[0],
            tables.objects(run, "side"),
            tables.objects(run, "aspect"),
            tables.proposals(run),
            tables.scales(run),
        ]
    return [*listed, tables.details(runs)]
