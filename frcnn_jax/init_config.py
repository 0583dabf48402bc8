"""Looks at a folder of annotated images and writes a config that trains on it.

Names of a data set may be hostile: they enter the config as literals only.
"""

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from frcnn_jax.config import DataConfig, ModelConfig, ProposalConfig, Resizing
from frcnn_jax.data import fitting, transforms
from frcnn_jax.data.records import Source
from frcnn_jax.data.sources import FORMATS, Format, open_source
from frcnn_jax.errors import UserError
from frcnn_jax.files import check_new_file, replace_text

_MIN_EPOCHS, _MAX_EPOCHS = 14, 100
_MIN_STEPS = 4000
_FIRST_DROP = 0.7  # of the epochs

# Proposals may have half the side of all but this percentage of the objects.
_PERCENT_TOO_SMALL = 1

_TEMPLATE = '''\
"""Written by `frcnn init-config` for your own images; change whatever you like."""

from frcnn_jax.config import (
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    ProposalConfig,
)


def get_config() -> Config:
    return Config(
        work_dir={work_dir},
        num_epochs={num_epochs},
        checkpoint_every={checkpoint_every},
        data=DataConfig(
            source={source},
            root={root},
            # Splits of this folder: {found}.
{splits}
            class_names=(
{classes}
            ),
            # The images have {smallest} to {largest} pixels (height x width).
            shorter_side={shorter_side},
            longer_side={longer_side},
            # {padding:.0%} of their pixels are padding.
            canvases={canvases},
            # At most {most_objects} in an image so far.
            max_objects={max_objects},
        ),
        model=ModelConfig(
            # ImageNet's VGG16, downloaded at the first start; a file works, too.
            pretrained="hf://timm/vgg16.tv_in1k",
            # {fitting:.0%} of the objects have an anchor of about their shape and size.
            anchor_scales={anchor_scales},
            # The shorter sides of the objects are {shortest} pixels and more.
            proposals=ProposalConfig(min_size={min_size}),
        ),
        optimizer=OptimizerConfig(
            learning_rate=5e-4,
            boundaries=({boundary},),
            boundary_unit="epochs",
        ),
    )
'''

_logger = logging.getLogger(__name__)


def write_config(root: Path, output: Path, source: Format | None = None) -> None:
    """Writes a config that trains on the images of a folder.

    Args:
      root: the folder.
      output: the new Python file.
      source: the format, as `DataConfig.source`; by default it is recognized.

    Raises:
      UserError: if the folder is in no known format or broken, or the file exists.
    """
    if output.suffix != ".py":
        raise UserError(f"{output}: expected the name of a Python file, *.py")
    if output.exists():
        raise UserError(f"{output} exists, expected the name of a new file")
    check_new_file(output)
    root = root.resolve()
    source, found = _recognize(root, source)
    splits = _open_splits(source, root, found)
    values = {
        "work_dir": _literal(f"runs/{output.stem}"),
        "source": _literal(source),
        "root": _literal(str(root)),
        "found": ", ".join(map(_literal, found)),
        **_describe_splits(splits),
        **_fit_sizes(splits),
        **_plan_training(len(splits["train_split"][1].annotations)),
    }
    replace_text(output, _TEMPLATE.format(**values))
    counts = [
        f"{len(each.annotations)} of {name!r} ({field})"
        for field, (name, each) in splits.items()
    ]
    _logger.info("wrote %s: %s images, %s", output, source, ", ".join(counts))


def _recognize(root: Path, source: Format | None) -> tuple[Format, list[str]]:
    """Returns the format of a folder and the splits that it has."""
    if not root.is_dir():
        raise UserError(f"{root} is not a folder")
    formats = FORMATS if source is None else {source: FORMATS[source]}
    found = {name: each.find_splits(root) for name, each in formats.items()}
    names = [name for name, splits in found.items() if splits]
    if not names:
        raise UserError(
            f"{root} has no data set of the format {' or '.join(formats)}, "
            "which docs/custom-data.md describes"
        )
    if len(names) > 1:
        _logger.warning(
            "%s can be read as %s; chose %s, --source chooses another",
            *(root, " and as ".join(names), names[0]),
        )
    return names[0], found[names[0]]


def _cut(name: str) -> tuple[str, str]:
    """Returns a part to train on and one to evaluate on."""
    return f"{name}[:80%]", f"{name}[80%:]"


def _open_splits(
    source: Format, root: Path, found: Sequence[str]
) -> dict[str, tuple[str, Source]]:
    """Returns name and content of the splits by the field of the config."""

    def open_split(name: str) -> tuple[str, Source]:
        return name, open_source(DataConfig(source=source, root=str(root)), name)

    whole = _find_split(found, "train") or ("all" if "all" in found else found[0])
    train = open_split(whole)
    train_ids = {annotation.image_id for annotation in train[1].annotations}
    others = {}
    for field, beginning in (("validation_split", "val"), ("test_split", "test")):
        name = _find_split(found, beginning)
        if name is None:
            continue
        try:
            split = open_split(name)
            if not train_ids.isdisjoint(each.image_id for each in split[1].annotations):
                raise UserError(f"it has images of {whole!r}")
        except UserError as error:
            _logger.warning("split %r is not used: %s", name, error)
        else:
            others[field] = split
    if not others:
        train, others["test_split"] = map(open_split, _cut(whole))
    elif "test_split" not in others:
        others["test_split"] = others.pop("validation_split")
    return {"train_split": train, **others}


def _find_split(found: Sequence[str], beginning: str) -> str | None:
    """Returns the shortest name that begins so: `train` rather than `trainval`."""
    names = [name for name in found if name.lower().startswith(beginning)]
    return min(names, key=len, default=None)


def _describe_splits(splits: Mapping[str, tuple[str, Source]]) -> dict[str, object]:
    names = (name for _, split in splits.values() for name in split.class_names)
    class_names = tuple(dict.fromkeys(names))
    _, train = splits["train_split"]
    labels = [label for each in train.annotations for label in each.labels]
    counts = Counter(train.class_names[label] for label in labels)
    most_objects = max(
        int((~each.difficult).sum())
        for _, split in splits.values()
        for each in split.annotations
    )
    return {
        "splits": "\n".join(
            f"            {field}={_literal(name)},  # {len(split.annotations)} images"
            for field, (name, split) in splits.items()
        ),
        "classes": "\n".join(
            f"                {_literal(name)},  # {counts[name]} objects in training"
            for name in class_names
        ),
        "most_objects": most_objects,
        "max_objects": max(8, math.ceil(most_objects * 1.25 / 8) * 8),
    }


def _fit_sizes(splits: Mapping[str, tuple[str, Source]]) -> dict[str, object]:
    """Fits images and canvases to all splits, anchors to the objects trained on."""
    sizes = [a.image_size for _, split in splits.values() for a in split.annotations]
    resizing = fitting.fit_resizing(sizes)
    name, train = splits["train_split"]
    boxes = [each.boxes[~each.difficult] for each in train.annotations]
    box_sizes = [each[:, 2:] - each[:, :2] for each in boxes]
    if not sum(map(len, box_sizes)):
        raise UserError(f"split {name!r} has no objects to train on")
    scales = [
        np.divide(
            transforms.resized_size_of(each.image_size, resizing), each.image_size
        )
        for each in train.annotations
    ]
    anchor_scales, share = fitting.fit_anchor_scales(
        np.concatenate([b * s for b, s in zip(box_sizes, scales, strict=True)]),
        ModelConfig.anchor_ratios,
    )
    shorter_sides = np.concatenate(box_sizes).min(axis=1)
    shortest = math.floor(np.percentile(shorter_sides, _PERCENT_TOO_SMALL))
    return {
        "smallest": "x".join(map(str, min(sizes, key=math.prod))),
        "largest": "x".join(map(str, max(sizes, key=math.prod))),
        "shorter_side": resizing.shorter_side,
        "longer_side": resizing.longer_side,
        "canvases": resizing.canvases,
        "padding": _padding(sizes, resizing),
        "anchor_scales": anchor_scales,
        "fitting": share,
        "shortest": shortest,
        "min_size": float(min(max(shortest // 2, 1), ProposalConfig.min_size)),
    }


def _padding(sizes: Sequence[tuple[int, int]], resizing: Resizing) -> float:
    """Returns the share of the canvases' pixels that no image covers."""
    resized = [transforms.resized_size_of(size, resizing) for size in sizes]
    canvases = [
        resizing.canvases[transforms.require_canvas(size, resizing.canvases, "")]
        for size in resized
    ]
    return 1 - sum(map(math.prod, resized)) / sum(map(math.prod, canvases))


def _plan_training(num_images: int) -> dict[str, object]:
    num_epochs = min(max(_MIN_EPOCHS, math.ceil(_MIN_STEPS / num_images)), _MAX_EPOCHS)
    return {
        "num_epochs": num_epochs,
        "checkpoint_every": min(max(num_images, 100), 5000),
        "boundary": round(_FIRST_DROP * num_epochs),
    }


def _literal(text: str) -> str:
    """Returns a string as Python source that cannot be anything else."""
    literal = repr(text)
    has_quotes = '"' in text or literal[0] == '"'
    return literal if has_quotes else f'"{literal[1:-1]}"'
