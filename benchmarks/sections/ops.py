"""The cases of `benchmarks.ops`, in float32, TF32 and bfloat16."""

import functools
from collections.abc import Callable, Iterable, Iterator
from unittest import mock

from benchmarks import ops, training
from benchmarks.figures import Figure, Task, describe, run
from benchmarks.sections.scales import TINY, Scale
from benchmarks.timing import Case, measure
from benchmarks.trainer import matmul_precision
from frcnn_jax.ops import suppression


def tasks(scale: Scale) -> Iterator[Task]:
    groups = [
        ("float32", ops.nms_cases),
        ("float32", _tile_sizes),
        ("float32", functools.partial(ops.roi_cases, "float32")),
        ("bfloat16", functools.partial(ops.roi_cases, "bfloat16")),
        # As PyTorch's convolutions compute in float32 unless told otherwise.
        ("tf32", functools.partial(training.vgg16_cases, "float32")),
        ("bfloat16", functools.partial(training.vgg16_cases, "bfloat16")),
        ("float32", ops.target_cases),
        ("float32", _losses),
    ]
    # All but NMS take long on a CPU.
    for precision, make_cases in groups[:1] if scale is TINY else groups:
        measure_cases = functools.partial(_measure, scale, precision, make_cases)
        yield Task("ops", precision, measure_cases)


def _tile_sizes() -> Iterator[Case]:
    """NMS with other tile sizes: on a GPU its iterations are what takes time."""
    for size in (64, 128, 256, 1024, 2048):
        case = next(ops.nms_cases())
        sizes = {"CPU_TILE_SIZE": size, "ACCELERATOR_TILE_SIZE": size}
        patch = mock.patch.multiple(suppression, **sizes)
        yield case._replace(
            name=f"nms, tiles of {size}", function=patch(case.function), peer=None
        )


def _losses() -> Iterable[Case]:
    batch = training.make_batch((training.HEIGHT, training.WIDTH), 1)
    return [training.no_layers_case(batch)]


def _measure(
    scale: Scale, precision: str, make_cases: Callable[[], Iterable[Case]]
) -> Iterator[Figure]:
    for case in make_cases():
        size = f"{case.size}, {precision}"
        measure_case = functools.partial(_measure_case, scale, case, size)
        with matmul_precision(precision):
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
