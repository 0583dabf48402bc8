"""The whole training step can be compiled for a GPU and a TPU.

No such device is needed: lowering finds an operation that a platform does not have.
"""

import dataclasses
import functools
from pathlib import Path

import jax
import pytest

from frcnn_jax import distributed
from frcnn_jax.config import PREPROCESSINGS, Config
from frcnn_jax.config.loading import load_config
from frcnn_jax.models.parameters import abstract_detector
from frcnn_jax.training.compilation import batch_shapes
from frcnn_jax.training.step import init_state, make_train_step
from tests.helpers import tiny
from tests.helpers.lowering import ACCELERATORS, lower

CONFIGS = Path(__file__).parents[2] / "configs"
EMA_DECAY = 0.9

# Changes of the model, and micro-batches.
VARIANTS = {
    "align": ({}, 1),
    "max": ({"pooling": "max", "dropout": 0.5}, 2),
    "floor": ({"pooling": "max", "rounding": "floor", "frozen_blocks": 2}, 1),
    "bfloat16": ({"compute_dtype": "bfloat16"}, 1),
}


def lower_step(config: Config, micro_batches: int) -> str:
    """Returns the StableHLO of the step on the first canvas, for all accelerators."""
    mesh = distributed.make_mesh(1)
    graphdef, params = abstract_detector(config.model, tiny.NUM_CLASSES)
    optimizer = tiny.make_optimizer(config.optimizer, config.model.frozen_blocks)
    new_state = functools.partial(init_state, optimizer=optimizer, seed=0, has_ema=True)
    step = make_train_step(
        graphdef, optimizer, mesh, micro_batches=micro_batches, ema_decay=EMA_DECAY
    )
    canvas, max_objects = config.data.canvases[0], config.data.max_objects
    batch = batch_shapes(2, canvas, max_objects, mesh)
    state = jax.eval_shape(new_state, params)
    return lower(step, state, batch, platforms=ACCELERATORS)


@pytest.mark.parametrize("name", VARIANTS)
def test_training_step_can_be_compiled_for_accelerators(name):
    changes, micro_batches = VARIANTS[name]
    model = dataclasses.replace(tiny.MODEL, **changes)
    config = dataclasses.replace(tiny.CONFIG, model=model)
    assert "stablehlo.convolution" in lower_step(config, micro_batches)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["voc07_vgg16", "notebook"])
def test_full_width_training_step_can_be_compiled_for_accelerators(name):
    config = load_config(CONFIGS / f"{name}.py")
    preprocessing = dataclasses.asdict(PREPROCESSINGS["torchvision"])
    model = dataclasses.replace(config.model, **preprocessing)
    lowered = lower_step(dataclasses.replace(config, model=model), micro_batches=1)
    # 13 of VGG16 and 3 of the region proposal network, forward.
    assert lowered.count("stablehlo.convolution") >= 16
