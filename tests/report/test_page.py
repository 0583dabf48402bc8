"""The report of runs: whole, self-contained, and honest about what is missing."""

import dataclasses
import html.parser
import json
import re

import pytest

from frcnn_jax import cli
from frcnn_jax.data.sources.shapes import ShapesSource
from frcnn_jax.errors import UserError
from frcnn_jax.evaluation import evaluated_split, sections
from frcnn_jax.report import comparison, tables
from frcnn_jax.report.page import write_report
from frcnn_jax.report.runs import read_run
from tests.helpers.reported import (
    shapes_split,
    without_detections,
    without_objects,
    write_run,
)

SECTIONS = {
    *("headline", "classes", "errors", "confusion", "objects", "calibration"),
    *("boxes", "examples", "training", "details", "findings"),
}


class Page(html.parser.HTMLParser):
    """What a browser would load and follow."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, text):
        """Parses a page."""
        super().__init__()
        self.ids, self.links, self.loads, self.open = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "a":
            self.links.append(values["href"])
        loaded = values.get("src") or (values.get("href") if tag == "link" else None)
        if loaded:
            self.loads.append(loaded)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    monkeypatch.setattr(sections, "NUM_RESAMPLES", 20)
    monkeypatch.setattr(comparison, "NUM_RESAMPLES", 20)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "one", shapes_split())


@pytest.fixture(scope="module")
def page(run):
    return write_report([run]).read_text()


def missing(path):
    """The sentences on what is missing, in both files."""
    text = path.read_text()
    assert text.endswith("</html>")
    notes = re.findall(r'class="missing"><strong>[^<]*</strong> (.*?)</p>', text)
    lines = path.with_suffix(".md").read_text().splitlines()
    assert sum(line.startswith("Missing in") for line in lines) == len(notes)
    return " ".join(notes)


def test_page_has_every_section_and_links_lead_somewhere(page):
    parsed = Page(page)
    assert not parsed.open
    assert set(parsed.ids) >= SECTIONS
    assert len(parsed.ids) == len(set(parsed.ids))
    assert {link.removeprefix("#") for link in parsed.links} <= set(parsed.ids)
    assert page.count("<svg") >= 6 + 9  # a curve for each class, and the charts
    assert 'class="missing"' not in page


def test_nothing_is_loaded_from_elsewhere(page):
    assert all(each.startswith("data:") for each in Page(page).loads)
    assert not re.search(r"(?:https?:)?//[a-z]", re.sub(r"data:[^\"]*", "", page))
    assert "<script" not in page
    assert "@import" not in page
    assert set(re.findall(r"url\((.)", page)) <= {"#"}


def test_tables_and_findings_are_in_both_files(run, page):
    text = (run / "report.md").read_text()
    evaluation = json.loads((run / "evaluation.json").read_text())
    figure = f"{100 * evaluation['voc07_map']:.1f}"
    for content in (text, page):
        assert f"{figure} (" in content
        assert all(name in content for name in evaluation["per_class"])
        assert "VOC07 mAP is" in content
        assert "The best F1" in content
        assert all(each in content for each in ("data fingerprint", "0" * 16))
    assert "## Findings" in text


def test_several_runs_stand_side_by_side(run, tmp_path):
    other = write_run(tmp_path / "two", shapes_split(1))
    page = write_report([run, other])
    assert page == run / "report.html"
    text = page.read_text()
    assert not Page(text).open
    assert "Confusion: one" in text
    assert "Confusion: two" in text
    assert "Area AP by class" in text
    assert "two's VOC07 mAP is" in html.unescape(text)
    assert "95 % interval of the difference" in text


def test_runs_of_equal_names_are_told_apart(run, tmp_path):
    other = write_run(tmp_path / "one", shapes_split(1))
    text = write_report([other, run]).read_text()
    for each in (run, other):
        assert f"Confusion: {each.parent.name}/one" in text


def test_runs_on_other_images_are_not_compared(run, tmp_path):
    other = write_run(tmp_path / "empty", without_objects(shapes_split()))
    text = write_report([other, run]).read_text()
    assert "one and empty were not evaluated on the same objects" in text


def test_runs_without_objects_are_not_compared(tmp_path):
    runs = [
        write_run(tmp_path / name, without_objects(shapes_split(seed)))
        for seed, name in enumerate(("one", "two"))
    ]
    text = write_report(runs).read_text()
    assert "two and one were evaluated without objects" in text


@pytest.mark.parametrize("change", [without_objects, without_detections])
def test_split_without_objects_or_detections_has_a_report(change, tmp_path):
    run = write_run(tmp_path / "run", change(shapes_split()))
    path = write_report([run])
    assert not Page(path.read_text()).open
    text = path.with_suffix(".md").read_text()
    expected = {
        without_objects: "Missing in run: No objects to find in the split",
        without_detections: "ellipse is hardly found, with an area AP of 0.0 %",
    }
    assert expected[change] in text


def test_run_without_evaluation_says_how_to_make_one(tmp_path):
    run = write_run(tmp_path / "run", shapes_split())
    (run / "evaluation.json").unlink()
    path = write_report([run])
    assert f"run frcnn evaluate --work-dir {run}." in missing(path)
    assert "training" in Page(path.read_text()).ids
    both = write_report([run, write_run(tmp_path / "good", shapes_split())])
    assert "Confusion: good" in both.read_text()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("evaluation.json", '{"voc07_map": 0.5}', "has schema 1, expected 2"),
        ("evaluation.json", "{", "cannot be read"),
        ("evaluation.npz", "no zip", "evaluation.npz: no evaluated split"),
        ("evaluation.npz", "", "evaluation.npz: no evaluated split"),
        ("config.json", "{", "No config"),
        ("metrics.jsonl", "{\n", "No training curves"),
    ],
)
def test_broken_file_is_named_and_the_rest_is_reported(
    name, content, message, tmp_path
):
    run = write_run(tmp_path / "run", shapes_split())
    (run / name).write_text(content)
    path = write_report([run])
    assert message in html.unescape(missing(path))
    assert "details" in Page(path.read_text()).ids


def test_altered_byte_of_the_npz_is_named(tmp_path):
    run = write_run(tmp_path / "run", shapes_split())
    content = bytearray((run / "evaluation.npz").read_bytes())
    content[content.index(b"detection_boxes.npy") + 100] ^= 255
    (run / "evaluation.npz").write_bytes(content)
    message = html.unescape(missing(write_report([run])))
    assert "evaluation.npz: no evaluated split" in message


def test_objects_by_side_are_labelled_from_edge_to_edge(tmp_path):
    run = read_run(write_run(tmp_path / "run", shapes_split()), "run")
    names = [row[0] for row in tables.objects(run, "side").rows]
    assert names[:3] == ["below 16", "16 to 32", "32 to 64"]
    assert names[-1].endswith(" and more")


def test_missing_npz_leaves_the_figures(tmp_path):
    run = write_run(tmp_path / "run", shapes_split())
    (run / "evaluation.npz").unlink()
    path = write_report([run])
    assert "No precision-recall curves and no pictures" in missing(path)
    assert "Confusion: run" in path.read_text()


def test_npz_of_another_evaluation_is_not_mixed_with_the_figures(tmp_path):
    run = write_run(tmp_path / "run", shapes_split())
    other = dataclasses.replace(shapes_split(), fingerprints={"detector": "0"})
    evaluated_split.save(other, run / "evaluation.npz")  # and killed before the .json
    path = write_report([run])
    assert "is of another evaluation than the figures" in missing(path)
    assert "Confusion: run" in path.read_text()


def test_images_that_moved_leave_the_figures(tmp_path):
    run = write_run(tmp_path / "run", shapes_split())
    config = json.loads((run / "config.json").read_text())
    config["data"] |= {"source": "voc", "root": "/nowhere"}
    (run / "config.json").write_text(json.dumps(config))
    path = write_report([run])
    assert "No pictures, since the images cannot be opened" in missing(path)
    assert "/nowhere" in missing(path)
    assert "Confusion: run" in path.read_text()
    assert "examples" not in Page(path.read_text()).ids


def test_other_images_than_those_evaluated_are_not_shown(tmp_path):
    run = write_run(tmp_path / "run", shapes_split())
    config = json.loads((run / "config.json").read_text())
    config["data"]["num_test_images"] = 5
    (run / "config.json").write_text(json.dumps(config))
    text = missing(write_report([run]))
    assert "the images are not those that were evaluated; gone:" in text


def test_single_image_that_is_gone_is_named(tmp_path, monkeypatch):
    read_image = ShapesSource.read_image

    def read_some(self, index):
        if index % 2:
            raise UserError(f"cannot read image number{index}")
        return read_image(self, index)

    monkeypatch.setattr(ShapesSource, "read_image", read_some)
    path = write_report([write_run(tmp_path / "run", shapes_split())])
    assert "A picture is missing: cannot read image number" in missing(path)
    assert 'src="data:image/jpeg' in path.read_text()


def test_split_and_step_choose_the_evaluation_and_name_the_report(tmp_path):
    run = write_run(tmp_path / "run", shapes_split(), split="test", step=80)
    write_run(run, shapes_split(1), "evaluation-train-step60", split="train", step=60)
    path = write_report([run], "train", 60)
    assert path == run / "report-train-step60.html"
    evaluation = json.loads((run / "evaluation-train-step60.json").read_text())
    assert f"{100 * evaluation['voc07_map']:.1f} (" in path.read_text()
    path = write_report([run], step=60)  # of the test split, as the other command
    wanted = f"run frcnn evaluate --work-dir {run} --split test --step 60."
    assert wanted in missing(path)
    assert path == run / "report-step60.html"
    assert write_report([run], "test") == run / "report.html"


def test_split_alone_means_its_last_evaluated_step(tmp_path):
    run = write_run(tmp_path / "run", shapes_split(), split="test", step=80)
    for name, step in (("-step60", 60), ("", 80), ("-step7", 7)):
        name = f"evaluation-train{name}"
        write_run(run, shapes_split(1), name, split="train", step=step)
    assert write_report([run], "train") == run / "report-train.html"
    (run / "evaluation-train.json").unlink()
    assert write_report([run], "train") == run / "report-train-step60.html"


def test_names_are_text_not_markup(tmp_path):
    split = shapes_split()
    names = ("<b>", "$x_1$", "a&b", "'", "\\n", "|", *split.class_names[6:])
    split = dataclasses.replace(split, class_names=names)
    path = write_report([write_run(tmp_path / "<i>", split)])
    text = path.read_text()
    assert not Page(text).open
    assert "<b>" not in text
    assert "<i>" not in text
    assert "$x_1$" in text
    assert "\\|" in path.with_suffix(".md").read_text()


def test_command_writes_the_page_and_says_where(run, capsys):
    cli.main(["report", str(run)])
    assert capsys.readouterr().out.strip() == str(run / "report.html")


def test_directory_that_does_not_exist_is_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["report", "/nowhere"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: /nowhere: no such run directory\n"


def test_directory_without_a_run_is_refused_and_stays_as_it_was(run, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for paths in ([tmp_path], [run, tmp_path], [tmp_path, run]):
        with pytest.raises(UserError, match="holds no run, expected one of "):
            write_report(paths)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
