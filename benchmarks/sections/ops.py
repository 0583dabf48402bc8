"""The cases of `benchmarks.ops`, in float32 and bfloat16."""

import functools
from collections.abc import Callable, Iterable, Iterator

from benchmarks import ops, training
from benchmarks.figures import Figure, Task, describe, run
from benchmarks.sections.scales import TINY, Scale
from benchmarks.timing import Case, measure


def tasks(scale: Scale) -> Iterator[Task]:
    both = ("float32", "bfloat16")
    groups = [
        ("float32", ops.nms_cases),
        *((dtype, functools.partial(ops.roi_cases, dtype)) for dtype in both),
        ("float32", ops.target_cases),
        ("float32", _losses),
        *((dtype, functools.partial(training.vgg16_cases, dtype)) for dtype in both),
    ]
    # All but NMS take long on a CPU.
    for dtype, make_cases in groups[:1] if scale is TINY else groups:
        measure_cases = functools.partial(_measure, scale, dtype, make_cases)
        yield Task("ops", dtype, measure_cases)


def _losses() -> Iterable[Case]:
    batch = training.make_batch((training.HEIGHT, training.WIDTH), 1)
    return [training.no_layers_case(batch)]


def _measure(
    scale: Scale, dtype: str, make_cases: Callable[[], Iterable[Case]]
) -> Iterator[Figure]:
    for case in make_cases():
        size = f"{case.size}, {dtype}"
        measure_case = functools.partial(_measure_case, scale, case, size)
        yield from run(Task(case.name, size, measure_case))


def _measure_case(scale: Scale, case: Case, size: str) -> Iterator[Figure]:
    note, repeats = "", 4 * scale.repeats
    try:
        row = measure(case, repeats)
    except Exception as error:  # perhaps the peer's
        note = f"peer failed: {describe(error)}"
        row = measure(case._replace(peer=None), repeats)
    yield Figure(
        case.name,
        size,
        row.seconds,
        row.peer_seconds,
        memory=row.memory,
        compile_seconds=row.compile_seconds,
        note=note,
    )
