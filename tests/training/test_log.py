"""What a run prints, on a terminal and elsewhere."""

import json

import pytest

from frcnn_jax.training.log import RunLog

ROW = {
    "loss": 2.964,
    "rpn_classification_loss": 0.685,
    "rpn_localization_loss": 0.023,
    "roi_classification_loss": 2.003,
    "roi_localization_loss": 0.253,
    "num_positive_rois": 7.5,
    "proposal_recall": 0.94,
    "gradient_norm": 12.5,
    "epoch": 3.5,
    "bad_steps": 0,
    "images_per_second": 123.45,
    "input_wait_share": 0.034,
    "learning_rate": 0.001,
}
VALIDATION = {"validation_loss": 3.456, "validation_voc07_map": 0.512}
LOSSES = "loss 2.964 (rpn class 0.685, box 0.023; roi class 2.003, box 0.253)"


def make_log(folder, log_hardest=True):
    return RunLog(folder, 0, 70_000, log_hardest)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (ROW, f"{LOSSES}, recall 0.94, 123.5 images/s, input wait 3%"),
        (
            ROW | VALIDATION,
            f"{LOSSES}, recall 0.94, validation 3.456, mAP 51.2%, 123.5 images/s, "
            "input wait 3%",
        ),
        (VALIDATION, "validation 3.456, mAP 51.2%"),
        ({"validation_loss": 3.456}, "validation 3.456"),
        (
            {"bad_steps": 2, "images_per_second": 9.0, "input_wait_share": 1.0},
            "9.0 images/s, input wait 100%",
        ),
    ],
)
def test_row_is_printed_in_one_line_of_155_columns(row, expected, tmp_path, capsys):
    with make_log(tmp_path) as log:
        log.write(60_000, row)
    printed = capsys.readouterr().out
    assert printed == f"step 60000: {expected}\n"
    assert len(printed) <= 156


def test_terminal_shows_the_same_lines_above_a_bar(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with make_log(tmp_path) as log:
        log.write(60_000, ROW)
    printed = capsys.readouterr().out
    assert f"step 60000: {LOSSES}" in printed
    assert "60000/70000" in printed


def test_value_that_is_not_finite_is_null_in_the_file(tmp_path):
    with make_log(tmp_path) as log:
        log.write(
            4, {"validation_loss": float("nan"), "loss": float("inf"), "epoch": 1}
        )
    expected = {"step": 4, "validation_loss": None, "loss": None, "epoch": 1}
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == expected


def test_ids_are_printed_as_they_are(tmp_path, capsys):
    with make_log(tmp_path) as log:
        log.write_bad([{"step": 3, "not_finite": ["gradient of images [red]a:x:"]}])
    line = "step 3: update skipped, not finite: gradient of images [red]a:x:\n"
    assert capsys.readouterr().out == line


def test_first_of_the_hardest_images_are_printed(tmp_path, capsys):
    losses = [None, 3.0, 2.5, 2.0, 1.0, 0.5]
    images = [{"image_id": f"a{i}", "loss": loss} for i, loss in enumerate(losses)]
    row = {"step": 9, "epoch": 3, "images": images}
    with make_log(tmp_path) as log:
        log.write_hardest([row])
    line = (
        "epoch 3: largest losses: a0 not finite, a1 3.00, a2 2.50, a3 2.00, a4 1.00\n"
    )
    assert capsys.readouterr().out == line
    assert json.loads((tmp_path / "hardest_images.jsonl").read_text()) == row


def test_hardest_images_are_logged_on_request_only(tmp_path, capsys):
    with make_log(tmp_path, log_hardest=False) as log:
        log.write_hardest([{"step": 9, "epoch": 3, "images": []}])
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "hardest_images.jsonl").exists()


def test_log_leaves_the_files_of_others_alone(tmp_path):
    (tmp_path / "notes.jsonl").write_text('{"step": 9}\n{"text": "mine"}\n')
    (tmp_path / "metrics.csv").write_text("mine")
    with make_log(tmp_path) as log:
        log.write(4, ROW)
    assert (tmp_path / "notes.jsonl").read_text().count("\n") == 2
    assert (tmp_path / "metrics.csv").read_text() == "mine"


@pytest.mark.parametrize(
    "damage", ["\0\0\0\n", "[]\n", "{}\n", '{"step": "x"}\n', "\xff\n"]
)
def test_line_that_is_no_row_is_dropped_on_resume(damage, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 2}\n' + damage.encode("latin-1") + b'{"step": 4}\n')
    with RunLog(tmp_path, 4, 70_000, log_hardest=False):
        pass
    assert path.read_text() == '{"step": 2}\n{"step": 4}\n'


def test_resumed_log_drops_what_will_be_logged_again(tmp_path):
    with make_log(tmp_path) as log:
        for step in (2, 4, 6):
            log.write(step, ROW)
            log.write_bad([{"step": step - 1, "not_finite": ["gradient"]}])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # cut off
    with RunLog(tmp_path, 4, 70_000, log_hardest=False):
        pass
    for name, steps in (("metrics", [2, 4]), ("bad_steps", [1, 3])):
        lines = (tmp_path / f"{name}.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == steps
