"""`python -m benchmarks.accelerator` measures everything, and fails by parts only."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


def run(module: str, *arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> tuple[str, list[dict]]:
    """What the tiny form prints, and its figures."""
    path = tmp_path_factory.mktemp("report") / "figures.json"
    done = run("benchmarks.accelerator", "--tiny", "--json", path)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(path.read_text())["figures"]


@pytest.mark.skipif(
    importlib.util.find_spec("jax_plugins") is not None, reason="it is not missing"
)
def test_compiling_ahead_of_time_names_the_missing_compiler():
    done = run("benchmarks.ahead_of_time", "cuda")
    assert done.returncode == 1
    assert done.stderr.startswith("no compiler for cuda: ")
    assert done.stderr.count("\n") == 1


def find(figures: list[dict], name: str) -> list[dict]:
    return [figure for figure in figures if figure["name"].startswith(name)]


def test_no_section_fails(report):
    _, figures = report
    assert [f for f in figures if f["note"].startswith(("failed", "out of"))] == []


def test_step_and_detection_are_timed(report):
    _, figures = report
    for name in ("training step", "detection"):
        figure = find(figures, name)[0]
        assert figure["seconds"] > 0.0
        assert figure["images_per_second"] == pytest.approx(1.0 / figure["seconds"])
    step = find(figures, "training step")[0]
    assert step["memory"] > 2**20
    assert step["compile_seconds"] > 0.0


def test_steps_are_timed_by_objects_and_with_the_data_pipeline(report):
    _, figures = report
    for count in (0, 1, 20, 60):
        (figure,) = find(figures, f"training step, {count} objects")
        assert figure["seconds"] > 0.0
        assert float(figure["note"].removeprefix("max / min ")) >= 1.0
    (figure,) = find(figures, "training step with the data pipeline")
    assert figure["images_per_second"] > 0.0


def test_ops_are_timed(report):
    _, figures = report
    ops = find(figures, "nms") + find(figures, "batched_nms")
    assert len(ops) == 4
    assert min(figure["seconds"] for figure in ops) > 0.0


def test_profile_knows_most_of_the_step(report):
    _, figures = report
    shares = {
        f["name"]: float(f["note"].removesuffix("% of the step"))
        for f in figures
        if f["note"].endswith("% of the step")
    }
    assert sum(shares.values()) == pytest.approx(100.0, abs=1.0)
    parts = {"convolutions", "fc", "NMS", "RoI pooling", "targets", "optimizer", "idle"}
    assert parts <= set(shares)
    assert shares["other"] < 20.0


def test_second_start_compiles_quicker(report):
    _, figures = report
    first, second = find(figures, "compilation")
    assert second["compile_seconds"] < 0.5 * first["compile_seconds"]


def test_tests_are_run(report):
    _, figures = report
    for name in ("tests of ops", "slow tests"):
        (figure,) = find(figures, name)
        assert figure["note"].startswith("3 passed in ")


def test_table_comes_last(report):
    output, figures = report
    *_, title, empty, header, _ = output.splitlines()[: -len(figures)]
    assert f"jax {jax.__version__}" in title
    assert empty == ""
    assert header.startswith("| what | size | ours, ms |")
    rows = output.splitlines()[-len(figures) :]
    assert [row.split(" | ")[0] for row in rows] == [
        f"| {figure['name']}" for figure in figures
    ]


def test_section_out_of_time_costs_the_others_nothing(tmp_path):
    path = tmp_path / "figures.json"
    arguments = ("--tiny", "--only", "step", "tests", "--minutes", 0.05)
    assert run("benchmarks.accelerator", *arguments, "--json", path).returncode == 0
    figures = json.loads(path.read_text())["figures"]
    for name in ("step", "tests"):
        notes = [figure["note"] for figure in figures if name in figure["name"]]
        assert any("out of time" in note for note in notes)


def test_section_that_fails_says_why(tmp_path):
    path = tmp_path / "figures.jsonl"
    run("benchmarks.sections", "nonsense", "--output", path)
    figure = json.loads(path.read_text())
    assert figure["name"] == "nonsense"
    assert figure["note"] == (
        "failed: ModuleNotFoundError: No module named 'benchmarks.sections.nonsense'"
    )


def test_blood_cells_are_trained_on(data_root, tmp_path):
    path = tmp_path / "figures.json"
    arguments = ("--tiny", "--only", "blood_cells", "--data", data_root)
    run("benchmarks.accelerator", *arguments, "--json", path)
    (figure,) = json.loads(path.read_text())["figures"]
    for epoch in (3, 6, 9, 12):
        assert f"epoch {epoch}: VOC07 AP " in figure["note"]
    assert "Platelets" in figure["note"]


MISS = """\
from benchmarks.ops import missed_targets
from benchmarks.timing import Case, Row
ratios = {1.0: 1.2, 1.5: 1.2, 3.0: None}
rows = [
    Row(Case("pool", "128 RoIs", None, (), min_ratio=expected), 1.0, ratio, 0.0, 0)
    for ratio, expected in ratios.items()
]
print(*missed_targets(rows), sep="\\n")
"""


def test_a_ratio_under_its_target_is_a_line():
    output = subprocess.check_output([sys.executable, "-c", MISS], cwd=ROOT, text=True)
    assert output == "pool, 128 RoIs: peer / ours is 1.00, expected >= 1.2\n"


@pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is not None, reason="there is a peer"
)
def test_check_of_ops_needs_a_peer():
    done = run("benchmarks.ops", "--check")
    assert done.returncode == 2
    assert "torchvision, install them" in done.stderr
