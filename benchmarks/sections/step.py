"""Speed of the training step beside PyTorch's."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from benchmarks import training
from benchmarks.figures import Figure, Task, describe
from benchmarks.flops import peak, training_flops
from benchmarks.sections.scales import TINY, Scale, Setting
from benchmarks.timing import time_in_turn
from benchmarks.trainer import Trainer
from frcnn_jax.config import AnchorTargetConfig, ProposalTargetConfig
from frcnn_jax.models.parameters import flatten, random_params

NAME, SAME_LOSS = "training step", "loss beside the peer's"


def tasks(scale: Scale) -> Iterator[Task]:
    first, *others = [
        Task(NAME, str(setting), functools.partial(_compare, scale, setting))
        for setting in scale.settings()
    ]
    yield from (first, Task(SAME_LOSS, "", _compare_losses), *others)


def _compare(scale: Scale, setting: Setting) -> Iterator[Figure]:
    batch = training.make_batch(setting.canvas, setting.batch_size)
    trainer = Trainer(scale.model, batch, setting.precision)
    peers, notes = _peers(scale, setting)
    num_steps = trainer.steps_within(scale.seconds_per_run)
    runs = [functools.partial(run, num_steps) for run in (trainer, *peers.values())]
    seconds, *peer_seconds = (
        each / num_steps for each in time_in_turn(runs, scale.repeats)
    )
    notes += [
        f"peer {name} {each * 1e3:.1f} ms"
        for name, each in zip(peers, peer_seconds, strict=True)
    ]
    flops = setting.batch_size * training_flops(
        scale.model, training.NUM_CLASSES, setting.canvas
    )
    notes.append(f"XLA counts {trainer.counted_flops / flops:.2f} of the FLOPs")
    limit = peak(jax.devices()[0].device_kind, setting.precision)
    yield Figure(
        NAME,
        str(setting),
        seconds,
        min(peer_seconds, default=None),
        images_per_second=setting.batch_size / seconds,
        utilization=limit and flops / seconds / limit,
        memory=trainer.memory,
        peer_memory=max((peer.memory() for peer in peers.values()), default=0) or None,
        compile_seconds=trainer.compile_seconds,
        note="; ".join(notes),
    )


def _peers(scale: Scale, setting: Setting) -> tuple[dict[str, Any], list[str]]:
    """Returns PyTorch's steps by name, each run once, and why one is missing."""
    try:
        from benchmarks.peer_training import PeerTrainer
    except ImportError as error:
        return {}, [f"no peer: {describe(error)}"]
    params = flatten(random_params(scale.model, training.NUM_CLASSES, 0))
    batch = training.make_batch(setting.canvas, setting.batch_size)
    peers, notes = {}, []
    # Compiling takes long: the first canvas and size of a batch will do.
    is_first = setting[1:] == scale.settings()[0][1:]
    for name in ("eager", "compiled")[: 2 if is_first else 1]:
        try:
            peer = PeerTrainer(
                scale.model,
                params,
                batch,
                setting.precision,
                is_compiled=name == "compiled",
            )
            peer(1)
            peers[name] = peer
        except Exception as error:
            notes.append(f"peer {name} failed: {describe(error)}")
    return peers, notes


def _compare_losses() -> Iterator[Figure]:
    """Checks on a tiny detector that both sides compute the same loss.

    They draw their samples by other random numbers, so all candidates are taken.
    """
    model = dataclasses.replace(
        TINY.model,
        anchor_targets=AnchorTargetConfig(num_samples=10_000, positive_fraction=1.0),
        proposal_targets=ProposalTargetConfig(num_samples=500, positive_fraction=1.0),
    )
    setting = Setting("float32", TINY.canvases[0], 2)
    peers, notes = _peers(TINY._replace(model=model), setting)
    if peers:
        batch = training.make_batch(setting.canvas, setting.batch_size)
        losses = {"ours": Trainer(model, batch, setting.precision)(1)}
        losses |= {f"peer {name}": peer(1) for name, peer in peers.items()}
        np.testing.assert_allclose(list(losses.values()), losses["ours"], rtol=1e-4)
        notes += [f"{name} {loss:.6f}" for name, loss in losses.items()]
    yield Figure(SAME_LOSS, str(setting), note="; ".join(notes))
