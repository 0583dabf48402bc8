"""Latency and throughput of detection beside PyTorch's, from host to host."""

import functools
from collections.abc import Iterator

import jax

from benchmarks.detection import make_batch, ours, peer
from benchmarks.figures import Figure, Task, describe
from benchmarks.flops import detection_flops, peak
from benchmarks.sections.scales import Scale, Setting
from benchmarks.timing import time_in_turn
from benchmarks.training import NUM_CLASSES

NAME = "detection"


def tasks(scale: Scale) -> Iterator[Task]:
    for setting in scale.settings():
        # Of one image it is the latency.
        is_wanted = setting.batch_size in (1, scale.batch_sizes[0])
        if is_wanted and setting.canvas == scale.canvases[0]:
            measure = functools.partial(_measure, scale, setting)
            yield Task(NAME, str(setting), measure)


def _measure(scale: Scale, setting: Setting) -> Iterator[Figure]:
    precision, canvas, batch_size = setting
    batch = make_batch(batch_size, canvas)
    notes, runs = [], [ours(batch, scale.model, precision)]
    try:
        runs.append(peer(batch, scale.model, precision))
        runs[1]()
    except Exception as error:
        notes.append(f"no peer: {describe(error)}")
        del runs[1:]
    counts = [str(len(run())) for run in runs]
    notes.append(f"objects found {', '.join(counts)}")
    seconds, *peer_seconds = time_in_turn(runs, 4 * scale.repeats)
    flops = batch_size * detection_flops(scale.model, NUM_CLASSES, canvas)
    limit = peak(jax.devices()[0].device_kind, precision)
    yield Figure(
        NAME,
        str(setting),
        seconds,
        *peer_seconds,
        images_per_second=batch_size / seconds,
        utilization=limit and flops / seconds / limit,
        note="; ".join(notes),
    )
