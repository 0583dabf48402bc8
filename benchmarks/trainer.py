"""Our training step, compiled for one batch, as `benchmarks.peer_training` has it."""

import contextlib
import dataclasses
import time
from collections.abc import Iterable

import jax

from benchmarks import training
from frcnn_jax import distributed
from frcnn_jax.config import ModelConfig
from frcnn_jax.data.records import Batch
from frcnn_jax.models.parameters import random_params

# As JAX names them. By default products of float32 are TF32 on a GPU.
MATMUL_PRECISIONS = {
    "float32": "highest",
    "tf32": "default",
    "bfloat16": "default",
}


class Trainer:
    """A compiled step and its state; call it with a number of steps to train."""

    def __init__(self, model: ModelConfig, batch: Batch, precision: str) -> None:
        """Traces and compiles the step, and puts state and batch on the device.

        Args:
          model: sizes and options.
          batch: that every step trains on.
          precision: float32, tf32 or bfloat16.
        """
        model = in_precision(model, precision)
        params = random_params(model, training.NUM_CLASSES, 0)
        mesh = distributed.make_mesh(1)
        step, init = training.make_step(model, mesh)
        self._state = distributed.replicate(init(params), mesh)
        self.batch = self.place(batch)
        began = time.perf_counter()
        with matmul_precision(precision):
            lowered = step.lower(self._state, self.batch)
        traced = time.perf_counter()
        self._step = lowered.compile()
        self.trace_seconds = traced - began
        self.compile_seconds = time.perf_counter() - traced
        self.memory = distributed.memory_needed(self._step)[0]

    @property
    def program(self) -> str:
        """The text of the compiled program."""
        return self._step.as_text()

    @staticmethod
    def place(batch: Batch) -> Batch:
        """Copies a batch to the device; `batch` is the one that is trained on."""
        return distributed.shard_batch(batch, distributed.make_mesh(1))

    def __call__(self, num_steps: int) -> float:
        """Trains, and returns the mean loss of the last step's images."""
        for _ in range(num_steps):
            self._state, metrics = self._step(self._state, self.batch)
        return float(metrics.losses.total.mean())  # waits for the device

    def train_on(self, batches: Iterable[Batch]) -> None:
        """Trains on batches from the host."""
        for batch in batches:
            self.batch = self.place(batch)
            self._state, metrics = self._step(self._state, self.batch)
        jax.block_until_ready(metrics)


def in_precision(model: ModelConfig, precision: str) -> ModelConfig:
    dtype = "bfloat16" if precision == "bfloat16" else "float32"
    return dataclasses.replace(model, compute_dtype=dtype)


def matmul_precision(precision: str) -> contextlib.AbstractContextManager[None]:
    """Returns the context to trace in."""
    return jax.default_matmul_precision(MATMUL_PRECISIONS[precision])
