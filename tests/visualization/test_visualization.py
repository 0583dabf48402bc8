"""What the pictures of detections and of a run show."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from frcnn_jax.data.records import ImageDetections
from frcnn_jax.errors import UserError
from frcnn_jax.visualization import drawing
from frcnn_jax.visualization.curves import plot_metrics, read_curves
from frcnn_jax.visualization.detections import draw_detections

NAMES = ["cat", "dog"]
GRAY = np.full((480, 640, 3), 128, np.uint8)  # large enough not to be enlarged
BOX = (200.0, 100.0, 300.0, 250.0)


def detections(*boxes, label=0):
    return ImageDetections(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.linspace(0.9, 0.5, len(boxes), dtype=np.float32),
        labels=np.full(len(boxes), label, np.int32),
    )


def ground_truth(*boxes, difficult=False):
    return SimpleNamespace(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.zeros(len(boxes), np.int32),
        difficult=np.full(len(boxes), difficult),
    )


def draw(image=GRAY, **options):
    return np.asarray(draw_detections(image, class_names=NAMES, **options))


def test_a_detection_changes_its_edges_and_not_its_inside():
    picture = draw(detections=detections(BOX, label=1))
    color = drawing.class_color(1)
    assert (picture[200:300, 100] == color).all()
    assert (picture[200:300, 249] == color).all()
    assert (picture[299, 100:250] == color).all()
    np.testing.assert_array_equal(picture[210:290, 110:240], 128)
    np.testing.assert_array_equal(picture[310:, :], 128)


def test_without_boxes_the_image_stays_as_it_is():
    np.testing.assert_array_equal(draw(), GRAY)
    np.testing.assert_array_equal(draw(detections=detections()), GRAY)


def test_the_given_image_is_not_changed():
    image = GRAY.copy()
    draw(image, detections=detections(BOX), ground_truth=ground_truth(BOX))
    np.testing.assert_array_equal(image, GRAY)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((96, 128), (480, 640)), ((1, 1), (640, 640)), ((900, 700), (900, 700))],
)
def test_small_images_are_enlarged_and_large_ones_kept(size, expected):
    picture = draw(np.zeros((*size, 3), np.uint8), detections=detections((0, 0, 1, 1)))
    assert picture.shape == (*expected, 3)


def test_boxes_are_enlarged_with_the_image():
    picture = draw(GRAY[:96, :128], detections=detections((20, 30, 60, 90)))
    color = drawing.class_color(0)
    assert (picture[100:300, 150] == color).all()
    assert (picture[299, 150:450] == color).all()


def test_ground_truth_has_a_panel_of_its_own_and_dashes_in_the_other():
    picture = draw(detections=detections(), ground_truth=ground_truth(BOX))
    height, width, _ = picture.shape
    assert width > 2 * 640
    assert height > 480
    left, right = picture[-480:, :640], picture[-480:, -640:]
    assert (left[200:300, 100] == drawing.class_color(0)).all()
    assert {tuple(pixel) for pixel in right[200:300, 100].tolist()} == {
        (255, 255, 255),
        (0, 0, 0),
    }
    np.testing.assert_array_equal(right[:199], 128)  # no text at the dashes


def test_difficult_objects_look_different():
    plain = draw(ground_truth=ground_truth(BOX))
    difficult = draw(ground_truth=ground_truth(BOX, difficult=True))
    edge = slice(200, 300), 100
    assert (plain[edge] == drawing.class_color(0)).all()
    assert (difficult[edge] == drawing.class_color(0)).all(axis=-1).any()
    assert (difficult[edge] == 0).all(axis=-1).any()


def text_area(*boxes, text="cat 0.90", size=(640, 480)):
    """Returns how many pixels the texts at some boxes take."""
    picture = Image.new("RGB", size, (1, 2, 3))
    colors = [drawing.class_color(0)] * len(boxes)
    drawing.draw_texts(picture, boxes, [text] * len(boxes), colors)
    return int(np.any(np.asarray(picture) != (1, 2, 3), axis=-1).sum())


@pytest.mark.parametrize(
    "box", [(0, 0, 639, 479), (635, 0, 639, 5), (0, 475, 5, 479), (635, 475, 639, 479)]
)
def test_texts_are_wholly_inside_the_picture(box):
    assert text_area(box) == text_area((300, 200, 400, 300))


def test_texts_of_the_same_box_do_not_cover_one_another():
    box = (300, 200, 400, 300)
    assert text_area(box, box, box) == 3 * text_area(box)


def test_a_text_wider_than_the_picture_is_cut_off():
    shown = text_area((0, 100, 30, 200), size=(40, 480))
    assert 0 < shown < text_area((0, 100, 30, 200))


def test_boxes_outside_the_picture_and_without_area_are_drawn_at_its_edge():
    picture = draw(detections=detections((-9, -9, 900, 900), (700, 700, 700, 700)))
    assert (picture[100:400, 0] == drawing.class_color(0)).all()
    assert (picture[100:400, 639] == drawing.class_color(0)).all()


def test_colors_of_twenty_classes_are_different():
    colors = np.array([drawing.class_color(label) for label in range(20)])
    distances = np.abs(colors[:, None] - colors[None]).max(axis=-1)
    assert distances[~np.eye(20, dtype=bool)].min() > 25


@pytest.mark.parametrize(
    "image", [GRAY.astype(np.float32), GRAY[..., 0], np.zeros((4, 4, 4), np.uint8)]
)
def test_an_image_of_another_kind_is_refused(image):
    with pytest.raises(ValueError, match="expected uint8"):
        draw(image)


def write_metrics(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run_rows(num_steps):
    return [
        {"step": step, "loss": 2 / step, "rpn_localization_loss": 0.0}
        | {"learning_rate": 1e-3, "images_per_second": 5.0}
        for step in range(1, num_steps + 1)
    ]


@pytest.mark.parametrize("num_steps", [1, 2, 300])
def test_plot_metrics_writes_a_picture(tmp_path, num_steps):
    metrics = write_metrics(tmp_path / "metrics.jsonl", run_rows(num_steps))
    plot_metrics(metrics, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.format == "PNG"
        assert len(np.unique(np.asarray(picture))) > 10


def test_plot_metrics_takes_the_later_of_two_rows_and_ignores_other_keys(tmp_path):
    rows = run_rows(9)
    once = write_metrics(tmp_path / "once.jsonl", rows)
    evaluation = {"step": 9, "voc07_map": 0.5, "note": "end"}
    bad = {"step": 3, "loss": float("nan"), "rpn_localization_loss": 7.0}
    twice = write_metrics(tmp_path / "twice.jsonl", [bad, *rows, evaluation])
    for path in (once, twice):
        plot_metrics(path, path.with_suffix(".png"))
    assert (tmp_path / "once.png").read_bytes() == (tmp_path / "twice.png").read_bytes()


@pytest.fixture
def plot(tmp_path, monkeypatch):
    """Plots rows and returns matplotlib's figure."""
    figures = []
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *_, **__: figures.append(figure)
    )

    def plot(rows):
        metrics = write_metrics(tmp_path / "metrics.jsonl", rows)
        plot_metrics(metrics, tmp_path / "curves.png")
        return figures[-1]

    return plot


def legend_texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_plot_metrics_dashes_validation_losses_in_the_color_of_the_training_loss(plot):
    rows = run_rows(40)
    for row in rows[9::10]:
        row |= {"validation_loss": 0.5, "validation_rpn_localization_loss": 0.25}
    rows[-1]["validation_loss"] = None  # was not finite
    figure = plot(rows)
    lines = {tuple(line.get_ydata()): line for line in figure.axes[0].get_lines()}
    for name, values in (("loss", (0.5,) * 3), ("rpn localization", (0.25,) * 4)):
        (training,) = (line for line in lines.values() if name in line.get_label()[:16])
        validation = lines[values]
        assert validation.get_color() == training.get_color()
        assert (training.get_linestyle(), validation.get_linestyle()) == ("-", "--")
        assert validation.get_marker() == "."
    assert len(legend_texts(figure)) == 2
    assert legend_texts(figure)[0].endswith(" (0.5)")


def test_plot_metrics_gives_recall_and_precision_an_axis_from_0_to_1(plot):
    rows = [row | {"proposal_recall": 0.25} for row in run_rows(20)]
    assert len(plot(run_rows(20)).axes) == 2
    assert legend_texts(plot(rows))[2:] == ["proposal recall: 0.250"]
    rows[9]["validation_voc07_map"] = 0.5
    figure = plot(rows)
    assert len(figure.axes) == 3
    bottom, top = figure.axes[1].get_ylim()
    assert -0.1 < bottom <= 0.0
    assert 1.0 <= top < 1.1
    assert legend_texts(figure)[3:] == ["validation VOC07 mAP: 0.500"]


def test_plot_metrics_marks_the_rows_with_bad_steps(plot):
    rows = [row | {"bad_steps": 0} for row in run_rows(6)]
    assert len(legend_texts(plot(rows))) == 2
    for row in rows[2:]:
        row["bad_steps"] = 2
    rows[5]["bad_steps"] = 3
    figure = plot(rows)
    assert legend_texts(figure)[2:] == ["updates skipped, not finite: 3"]
    (crosses,) = (
        line for line in figure.axes[0].get_lines() if line.get_marker() == "x"
    )
    assert crosses.get_xdata().tolist() == [3, 6]


def test_plot_metrics_without_a_learning_rate(tmp_path):
    metrics = write_metrics(tmp_path / "metrics.jsonl", [{"step": 1, "loss": 1.0}])
    plot_metrics(metrics, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got none"),
        ('{"step": 1, "voc07_map": 0.5}\n', "got none"),
        ('{"step": 1, "loss": 1.0}\n{"step": 2, "lo\n', r"line 2: .*step"),
        ("[1, 2]\n", "line 1"),
        ('{"step": 1, "loss": 1.0, "\xff": 0}\n', "cannot be read: 'utf-8' codec"),
    ],
)
def test_plot_metrics_names_the_file_and_what_is_wrong(tmp_path, text, message):
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=message) as caught:
        plot_metrics(metrics, tmp_path / "curves.png")
    assert str(metrics) in str(caught.value)


def test_a_row_that_a_kill_cut_off_is_left_out(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "lo')
    steps, losses = read_curves(metrics)["loss"]
    assert (steps.tolist(), losses.tolist()) == ([1], [1.0])


def test_plot_metrics_names_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"missing\.jsonl"):
        plot_metrics(tmp_path / "missing.jsonl", tmp_path / "curves.png")


def test_importing_does_not_import_matplotlib():
    program = (
        "import sys\n"
        "from frcnn_jax.visualization import curves, detections\n"
        "sys.exit('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
