"""Speed of the training step beside PyTorch's."""

import concurrent.futures
import dataclasses
import functools
import gc
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import jax

from benchmarks import training
from benchmarks.figures import Figure, Task, describe, run
from benchmarks.flops import peak, training_flops
from benchmarks.sections.scales import TINY, Scale, Setting
from benchmarks.timing import time_in_turn, times_within
from benchmarks.trainer import Trainer
from frcnn_jax.config import AnchorTargetConfig, ProposalTargetConfig

if TYPE_CHECKING:
    from benchmarks.peer_training import PeerTrainer

NAME, SAME_LOSS = "training step", "loss beside the peer's"
EAGER, COMPILED = "eager", "by torch.compile"
# Programs that are compiled at once: XLA uses one core for each most of the time.
NUM_COMPILED = 8


def tasks(scale: Scale) -> Iterator[Task]:
    settings = scale.settings()
    compare = functools.partial(_compare_all, scale)
    first, *others = [
        settings[begin : begin + NUM_COMPILED]
        for begin in range(0, len(settings), NUM_COMPILED)
    ]
    yield Task(NAME, str(first[0]), functools.partial(compare, first, EAGER))
    yield Task(SAME_LOSS, "", _compare_losses)
    # That takes long, so only once.
    yield Task(NAME, str(first[0]), functools.partial(compare, first[:1], COMPILED))
    for each in others:
        yield Task(NAME, str(each[0]), functools.partial(compare, each, EAGER))


def _compare_all(
    scale: Scale, settings: Sequence[Setting], peer: str
) -> Iterator[Figure]:
    """Compiles our steps side by side, then times one after the other."""
    pool = concurrent.futures.ThreadPoolExecutor()
    trainers = {each: pool.submit(_make_trainer, scale, each) for each in settings}
    pool.shutdown(wait=False)
    concurrent.futures.wait(trainers.values())  # unlike the pool's, TimeUp ends it
    for setting in settings:
        make = trainers.pop(setting).result  # freed once it is measured
        compare = functools.partial(_compare, scale, setting, make, peer)
        yield from run(Task(NAME, str(setting), compare))


def _make_trainer(scale: Scale, setting: Setting) -> Trainer:
    batch = training.make_batch(setting.canvas, setting.batch_size)
    return Trainer(scale.model, batch, setting.precision)


def _compare(
    scale: Scale, setting: Setting, make: Callable[[], Trainer], peer: str
) -> Iterator[Figure]:
    trainer = make()
    num_steps = times_within(trainer, scale.seconds_per_run)
    runs = [functools.partial(trainer, num_steps)]
    seconds = time_in_turn(runs, scale.repeats)
    peer_memory, note = None, "time was up before the peer"
    try:
        peer_trainer = _make_peer(scale, setting, peer)
        peer_memory = peer_trainer.memory() or None
        runs.append(functools.partial(peer_trainer, num_steps))
        seconds = time_in_turn(runs, scale.repeats)
        note = f"peer {peer}"
    except Exception as error:
        note = f"no peer {peer}: {describe(error)}"
    finally:  # TimeUp costs the peer's part only
        yield _figure(
            scale, setting, trainer, [each / num_steps for each in seconds]
        )._replace(peer_memory=peer_memory, note=note)


def _figure(
    scale: Scale, setting: Setting, trainer: Trainer, seconds: Sequence[float]
) -> Figure:
    flops = setting.batch_size * training_flops(
        scale.model, training.NUM_CLASSES, setting.canvas
    )
    limit = peak(jax.devices()[0].device_kind, setting.precision)
    return Figure(
        NAME,
        str(setting),
        *seconds,
        images_per_second=setting.batch_size / seconds[0],
        utilization=limit and flops / seconds[0] / limit,
        memory=trainer.memory,
        compile_seconds=trainer.compile_seconds,
    )


def _make_peer(scale: Scale, setting: Setting, name: str) -> "PeerTrainer":
    """Returns PyTorch's step, run once.

    Raises:
      ImportError: without torch and torchvision.
    """
    from benchmarks.peer_training import PeerTrainer

    gc.collect()  # what earlier peers hold
    batch = training.make_batch(setting.canvas, setting.batch_size)
    peer = PeerTrainer(
        scale.model, batch, setting.precision, is_compiled=name == COMPILED
    )
    peer(1)
    return peer


def _compare_losses() -> Iterator[Figure]:
    """Checks on a tiny detector that both sides compute the same loss.

    They draw their samples by other random numbers, so all candidates are taken.
    """
    model = dataclasses.replace(
        TINY.model,
        anchor_targets=AnchorTargetConfig(num_samples=10_000, positive_fraction=1.0),
        proposal_targets=ProposalTargetConfig(num_samples=500, positive_fraction=1.0),
    )
    scale = TINY._replace(model=model)
    setting = Setting("float32", TINY.canvases[0], 2)
    loss = _make_trainer(scale, setting)(1)
    notes, deviation = [f"ours {loss:.6f}"], 0.0
    for name in (EAGER, COMPILED):
        try:
            other = _make_peer(scale, setting, name)(1)
        except Exception as error:
            notes.append(f"no peer {name}: {describe(error)}")
        else:
            notes.append(f"peer {name} {other:.6f}")
            deviation = max(deviation, abs(other - loss) / loss)
    note = "; ".join(notes)
    if not deviation <= 1e-4:
        raise ValueError(f"{note}; expected the same to 1e-4")
    yield Figure(SAME_LOSS, str(setting), note=note)
