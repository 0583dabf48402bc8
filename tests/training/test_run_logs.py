"""What a run logs, of landscape and portrait photos, with and without a bad one."""

import dataclasses
import io
import struct
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from frcnn_jax.data.loader import TrainLoader
from frcnn_jax.errors import UserError
from frcnn_jax.models import Losses
from frcnn_jax.training import train
from frcnn_jax.weights.checkpoints import BEST_METRIC, read_checkpoint
from tests.helpers import tiny
from tests.helpers.run_files import read_rows
from tests.helpers.voc_folder import VOCFolder, voc_object

CANVASES = LANDSCAPE, PORTRAIT = (48, 64), (64, 48)
TRAIN_IDS = [f"wide{index}" for index in range(8)] + [f"tall{n}" for n in range(3)]
VALIDATION_IDS = ["new0", "new1"]
STEPS_PER_EPOCH = 4 + 2  # of batches of two
BAD_IMAGE = "wide3"

pytestmark = pytest.mark.slow

ROW = {
    *("step", "epoch", "loss", *Losses._fields, "gradient_norm", "learning_rate"),
    *("num_positive_anchors", "num_negative_anchors", "proposal_recall"),
    *("num_positive_rois", "num_negative_rois", "bad_steps"),
    *("images_per_second", "input_wait_share"),
}
VALIDATION = {
    BEST_METRIC,
    "validation_loss",
    *(f"validation_{name}" for name in Losses._fields),
}


def write_photos(root: Path) -> None:
    folder = VOCFolder(root)
    for image_id in TRAIN_IDS + VALIDATION_IDS:
        size = PORTRAIT if image_id.startswith("tall") else LANDSCAPE
        objects = [voc_object("cat", 5, 5, 30, 30), voc_object("dog", 20, 9, 45, 45)]
        folder.add(image_id, objects, size=size)
    folder.split("train", TRAIN_IDS)
    folder.split("new", VALIDATION_IDS)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos") / "voc"
    write_photos(root)
    data = dataclasses.replace(
        tiny.DATA,
        source="voc",
        root=str(root),
        test_split="new",
        shorter_side=48,
        longer_side=64,
        canvases=CANVASES,
    )
    return dataclasses.replace(
        tiny.CONFIG,
        num_steps=2 * STEPS_PER_EPOCH,
        log_every=4,
        checkpoint_every=STEPS_PER_EPOCH,
        data=data,
    )


@pytest.fixture(scope="module")
def run(config, tmp_path_factory) -> tuple[Path, list[str]]:
    """A run with validation; its directory, and the programs it asked for, by name."""
    folder, names = tmp_path_factory.mktemp("runs") / "validated", []

    def listen(event, duration, fun_name="", **_):
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(fun_name)

    config = dataclasses.replace(
        config,
        work_dir=str(folder),
        log_hardest=True,
        data=dataclasses.replace(config.data, validation_split="new"),
    )
    jax.monitoring.register_event_duration_secs_listener(listen)
    train.train(config)
    jax.monitoring.unregister_event_duration_listener(listen)
    return folder, names


def read_values(folder: Path) -> dict[int, dict]:
    """What the event files hold, by step and name."""
    values = {}
    for path in folder.glob("events*"):
        content = path.read_bytes()
        while content:  # length, its checksum, the event, its checksum
            (length,) = struct.unpack_from("<Q", content)
            event = Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            for value in event.summary.value:
                values.setdefault(event.step, {})[value.tag] = value
    return values


def test_each_canvas_is_compiled_once(run):
    assert sum("train_step" in name for name in run[1]) == len(CANVASES)


def test_rows_hold_everything_and_validation_at_checkpoints(run):
    rows = read_rows(run[0], "metrics")
    assert {row["step"]: set(row) for row in rows} == {
        4: ROW,
        6: VALIDATION | {"step"},
        8: ROW,
        12: ROW | VALIDATION,
    }
    for row in rows:
        prefix = "" if "loss" in row else "validation_"
        total = sum(row[f"{prefix}{name}"] for name in Losses._fields)
        assert row[f"{prefix}loss"] == pytest.approx(total, rel=1e-5)
    assert [row["epoch"] for row in rows if "epoch" in row] == [4 / 6, 8 / 6, 2.0]
    assert 0.0 <= rows[-1][BEST_METRIC] <= 1.0


def test_tensorboard_has_the_same_scalars(run):
    values = read_values(run[0] / "tensorboard")
    rows = read_rows(run[0], "metrics")
    assert set(values) == {row["step"] for row in rows}
    for row in rows:
        each = values[row.pop("step")]
        scalars = {
            n: v.simple_value for n, v in each.items() if not v.HasField("image")
        }
        assert scalars == pytest.approx(row, rel=1e-6)


def test_tensorboard_has_a_picture_of_each_validation_image(run):
    values = read_values(run[0] / "tensorboard")
    for step, each in values.items():
        names = {name for name, value in each.items() if value.HasField("image")}
        is_validated = step % STEPS_PER_EPOCH == 0
        assert names == {f"validation/{n}" for n in VALIDATION_IDS if is_validated}
    picture = each["validation/new0"].image
    with Image.open(io.BytesIO(picture.encoded_image_string)) as image:
        assert image.size == (picture.width, picture.height)
        assert max(image.size) == 640


def test_report_is_written_at_the_end(run):
    page = (run[0] / "report.html").read_text()
    assert "Missing" not in (run[0] / "report.md").read_text()
    assert all(name in page for name in ("cat", "dog", "Training"))


def test_ten_hardest_images_are_logged_after_each_epoch(run):
    rows = read_rows(run[0], "hardest_images")
    assert [(row["step"], row["epoch"]) for row in rows] == [(6, 1), (12, 2)]
    for row in rows:
        ids = [image["image_id"] for image in row["images"]]
        losses = [image["loss"] for image in row["images"]]
        assert len(set(ids)) == 10
        assert set(ids) < set(TRAIN_IDS)
        assert losses == sorted(losses, reverse=True)


def test_best_checkpoint_is_the_one_of_the_best_row(run):
    rows = [row for row in read_rows(run[0], "metrics") if BEST_METRIC in row]
    best = max(row[BEST_METRIC] for row in rows)
    step = int(Path(read_checkpoint(run[0], "best").source).name)
    assert step in [row["step"] for row in rows if row[BEST_METRIC] == best]


@pytest.fixture
def bad_image(monkeypatch):
    """Gives every object of an image a class that does not exist."""
    batches = TrainLoader.batches

    def spoil(self, start_step):
        for batch in batches(self, start_step):
            is_bad = np.array(TRAIN_IDS)[batch.indices] == BAD_IMAGE
            labels = np.where(is_bad[:, None], np.int32(10**6), batch.labels)
            yield batch._replace(labels=labels)

    monkeypatch.setattr(TrainLoader, "batches", spoil)


def test_bad_image_is_named_counted_and_skipped_until_there_are_too_many(
    bad_image, config, tmp_path, capsys
):
    config = dataclasses.replace(config, work_dir=str(tmp_path), max_bad_steps=2)
    with pytest.raises(UserError, match=r"^2 updates were skipped.*$"):
        train.train(config)
    rows = read_rows(tmp_path, "bad_steps")
    losses = ("roi_classification_loss", "roi_localization_loss")  # both look it up
    named = [f"{name} of image {BAD_IMAGE}" for name in losses]
    assert [row["not_finite"] for row in rows] == [named, named]
    first, second = (row["step"] for row in rows)
    assert first <= STEPS_PER_EPOCH < second
    line = f"step {first}: update skipped, not finite: {', '.join(named)}\n"
    assert capsys.readouterr().out.count(line) == 1
    counts = {row["step"]: row["bad_steps"] for row in read_rows(tmp_path, "metrics")}
    assert counts[max(counts)] == 2
    # The checkpoint after the first epoch is whole, and a run that allows for more
    # bad steps continues from it.
    weights = read_checkpoint(tmp_path)
    assert Path(weights.source).name == str(STEPS_PER_EPOCH)
    assert all(np.isfinite(x).all() for x in weights.arrays.values())

    train.train(dataclasses.replace(config, max_bad_steps=3))
    assert read_rows(tmp_path, "bad_steps") == rows
    metrics = read_rows(tmp_path, "metrics")
    assert [row["step"] for row in metrics] == [4, 8, 12]
    expected = [sum(bad <= row["step"] for bad in (first, second)) for row in metrics]
    assert [row["bad_steps"] for row in metrics] == expected
    weights = read_checkpoint(tmp_path)
    assert all(np.isfinite(x).all() for x in weights.arrays.values())
    assert capsys.readouterr().out.count(line) == 0
