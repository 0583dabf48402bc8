"""A config for a folder of annotated images."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from frcnn_jax.cli import main
from frcnn_jax.config import DataConfig
from frcnn_jax.config.loading import load_config
from frcnn_jax.data.loader import choose_canvases
from frcnn_jax.data.sources import FORMATS, open_source
from frcnn_jax.errors import UserError
from frcnn_jax.init_config import write_config
from tests.helpers import formats
from tests.helpers.pictures import save_noise
from tests.helpers.sized import SizedSource


def write(data_format, root, splits=("train", "val", "test"), sizes=((60, 80),) * 4):
    """Writes images of these sizes, filled by an object each, for every split."""
    for split in splits:
        images = [
            save_noise(root.parent / f"photos/{split}{number}.png", size)
            for number, size in enumerate(sizes)
        ]
        formats.write(data_format, SizedSource(sizes), images, root, split)


def init(root, tmp_path, source=None):
    output = tmp_path / "pets.py"
    write_config(root, output, source)
    return load_config(output)


def open_all(config):
    """Opens every split as training does."""
    names = ("train_split", "validation_split", "test_split")
    splits = [getattr(config.data, name) for name in names]
    sources = [open_source(config.data, split) for split in splits if split]
    for source in sources:
        choose_canvases(source, config.data)
        assert source.class_names == sources[0].class_names
    return sources


@pytest.mark.parametrize("data_format", FORMATS)
def test_the_format_is_recognized_and_the_data_open(tmp_path, data_format):
    write(data_format, tmp_path / "data", ["train"])
    config = init(tmp_path / "data", tmp_path)
    assert config.data.source == data_format
    assert Path(config.data.root) == tmp_path / "data"
    assert config.work_dir == "runs/pets"
    assert config.data.class_names == ("thing",)
    train, test = open_all(config)
    assert (len(train.annotations), len(test.annotations)) == (3, 1)


@pytest.mark.parametrize("data_format", ["coco", "csv", "voc"])
def test_splits_are_used_for_what_they_are_called(tmp_path, data_format):
    write(data_format, tmp_path / "data")
    data = init(tmp_path / "data", tmp_path).data
    splits = (data.train_split, data.validation_split, data.test_split)
    assert splits == ("train", "val", "test")
    assert len(open_all(init_again(tmp_path))) == 3


def init_again(tmp_path):
    return load_config(tmp_path / "pets.py")


def test_a_validation_split_is_evaluated_on_if_there_is_no_other(tmp_path):
    write("coco", tmp_path / "data", ["train2017", "val2017"])
    data = init(tmp_path / "data", tmp_path).data
    splits = (data.train_split, data.validation_split, data.test_split)
    assert splits == ("train2017", "", "val2017")


def test_a_split_with_images_of_training_is_not_evaluated_on(tmp_path, caplog):
    write("voc", tmp_path / "data", ["trainval"])
    (lists,) = (tmp_path / "data").glob("ImageSets/Main")
    (lists / "val.txt").write_text("trainval0\n")
    data = init(tmp_path / "data", tmp_path).data
    assert (data.train_split, data.validation_split) == ("trainval[:80%]", "")
    assert data.test_split == "trainval[80%:]"
    assert "split 'val' is not used: it has images of 'trainval'" in caplog.messages


def test_a_broken_split_is_not_evaluated_on(tmp_path, caplog):
    write("csv", tmp_path / "data", ["train", "val"])
    (tmp_path / "data/test.csv").write_text("train0.png,0,0,8,8,thing\na.png,,,,,\n")
    assert init(tmp_path / "data", tmp_path).data.test_split == "val"
    # Once a command has run in this process, what is written is logged, too.
    (message,) = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert message.startswith("split 'test' is not used: ")
    assert "test.csv line 2: image 'a.png' is in none of" in message


def test_sizes_fit_the_images_of_all_splits(tmp_path):
    write("csv", tmp_path / "data", ["train"], [(480, 640)] * 3)
    write("csv", tmp_path / "data", ["test"], [(640, 480)] * 3)
    config = init(tmp_path / "data", tmp_path)
    assert config.data.canvases == ((608, 800), (800, 608))
    open_all(config)


def test_anchors_proposals_and_slots_fit_the_objects(tmp_path):
    root, rows = tmp_path / "data", []
    for name in "abcde":
        save_noise(root / f"{name}.png", (300, 300))
        rows += [f"{name}.png,{9 * n},0,{9 * n + 8},8,cell\n" for n in range(20)]
    (root / "all.csv").write_text("".join(rows))
    config = init(root, tmp_path)
    assert 1.0 in config.model.anchor_scales  # 8 pixels, enlarged twice
    assert config.model.proposals.min_size == 4.0
    assert config.data.max_objects == 32
    assert (config.data.train_split[:3], config.data.test_split[:3]) == ("all", "all")


def test_names_that_are_code_stay_names(tmp_path):
    names = ['"""', "'''", "a\nimport os", "{work_dir}", 'x"),', "\\", "é\u202e\u2028"]
    root = tmp_path / "data"
    save_noise(root / "train" / "a.png")
    content = {
        "categories": [{"id": n, "name": name} for n, name in enumerate(names)],
        "images": [{"id": n, "file_name": "a.png"} for n in range(1)],
        "annotations": [{"image_id": 0, "category_id": 0, "bbox": [1, 2, 30, 40]}],
    }
    strange = root / "train\n    raise SystemExit #.json"
    (root / "train.json").write_text(json.dumps(content))
    strange.write_text(json.dumps(content))
    save_noise(tmp_path / "data/b.png")
    content["images"][0]["file_name"] = "b.png"
    (root / "test.json").write_text(json.dumps(content))
    config = init(root, tmp_path)
    assert config.data.class_names == tuple(names)
    assert {"\u202e", "\u2028"}.isdisjoint((tmp_path / "pets.py").read_text())


def test_a_folder_of_two_formats_is_read_as_either(tmp_path, caplog):
    write("coco", tmp_path / "data", ["train"])
    write("voc", tmp_path / "data", ["other"])
    assert init(tmp_path / "data", tmp_path).data.source == "coco"
    assert any("can be read as coco and as voc" in each for each in caplog.messages)
    (tmp_path / "pets.py").unlink()
    assert init(tmp_path / "data", tmp_path, "voc").data.source == "voc"


def refuse(root, output, message):
    with pytest.raises(UserError, match=message):
        write_config(root, output)


def test_a_mistake_is_refused_and_writes_nothing(tmp_path):
    output = tmp_path / "pets.py"
    (tmp_path / "data").mkdir()
    refuse(tmp_path / "none", output, r"none is not a folder")
    refuse(
        tmp_path / "data", output, r"data has no data set of the format coco or yolo"
    )
    refuse(tmp_path / "data", tmp_path / "pets.txt", r"pets\.txt: expected .* \*\.py")
    save_noise(tmp_path / "data/a.png")
    (tmp_path / "data/all.csv").write_text("a.png,,,,,\n")
    (tmp_path / "data/classes.csv").write_text("cat,0\n")
    refuse(tmp_path / "data", output, r"split 'all\[80%:\]' of .* has no images")
    assert not output.exists()


def test_a_data_set_without_objects_is_refused(tmp_path):
    for name in ("a.png", "b.png"):
        save_noise(tmp_path / "data" / name)
    (tmp_path / "data/train.csv").write_text("a.png,,,,,\n")
    (tmp_path / "data/test.csv").write_text("b.png,,,,,\n")
    (tmp_path / "data/classes.csv").write_text("cat,0\n")
    refuse(
        tmp_path / "data", tmp_path / "pets.py", r"'train' has no objects to train on"
    )


def test_an_existing_file_is_never_overwritten(tmp_path):
    write("csv", tmp_path / "data")
    output = tmp_path / "pets.py"
    output.write_text("mine")
    refuse(tmp_path / "data", output, r"pets\.py exists, expected .* new file")
    assert output.read_text() == "mine"


def test_the_command_writes_a_config(tmp_path):
    write("yolo", tmp_path / "data", ["train"])
    output = tmp_path / "pets.py"
    main(["init-config", str(tmp_path / "data"), str(output)])
    assert load_config(output).data.source == "yolo"


@pytest.mark.parametrize("name", ["BCCD", "VOC2007", "coco128"])
def test_real_data_open_with_their_config(data_root, tmp_path, name):
    config = init(data_root / name, tmp_path)
    sources = open_all(config)
    num_objects = sum(len(each.boxes) for each in sources[0].annotations)
    counts = re.findall(
        r"# (\d+) objects in training", (tmp_path / "pets.py").read_text()
    )
    assert sum(map(int, counts)) == num_objects
    assert len(counts) == len(sources[0].class_names)
    assert isinstance(config.data, DataConfig)
    assert np.all(np.diff(config.model.anchor_scales) > 0)
