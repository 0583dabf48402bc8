"""Where the time of a training step goes, by the part of the program it is spent in.

JAX's profiler records which instruction of the compiled program ran when, and the
program's text says from which line of Python each one came.
"""

import collections
import functools
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import jax

from benchmarks import training
from benchmarks.figures import Figure, Task
from benchmarks.sections.scales import Scale, Setting
from benchmarks.timing import time_in_turn
from benchmarks.trainer import Trainer

NUM_STEPS = 5
IDLE, OTHER = "idle", "other"

# The part of the step that each file is. An instruction belongs to the innermost of the
# calls it comes from that is in one of these files.
_PARTS = (
    ("ops/suppression.py", "NMS"),
    ("ops/proposals.py", "proposals without NMS"),
    ("ops/range_max.py", "RoI pooling"),
    ("ops/roi.py", "RoI pooling"),
    ("ops/targets.py", "targets"),
    ("ops/sampling.py", "targets"),
    ("ops/losses.py", "losses"),
    ("models/roi_head.py", "fc"),
    ("models/rpn.py", "convolutions"),
    ("models/vgg16.py", "convolutions"),
    ("models/layers.py", "convolutions"),
    ("models/faster_rcnn.py", "other parts of the model"),
    ("training/step.py", "optimizer"),
    ("optax/", "optimizer"),
)
# For kernels that no call is known of: of libraries, or put in by XLA.
_KERNELS = (
    (re.compile(r"conv|cudnn|[fdw]grad|fprop|winograd", re.IGNORECASE), "convolutions"),
    (re.compile(r"gemm|gemv|cublas|cutlass|nvjet|splitk", re.IGNORECASE), "fc"),
    (re.compile(r"copy|transpose|memcpy|memset", re.IGNORECASE), "copies"),
)


class Span(NamedTuple):
    """Something that a stream of the device did."""

    name: str
    instruction: str  # of the compiled program; empty if the profile names none
    begin: float  # nanoseconds
    end: float


def tasks(scale: Scale) -> Iterator[Task]:
    first = scale.settings()[0]
    for batch_size in sorted({1, first.batch_size}, reverse=True):
        setting = first._replace(batch_size=batch_size)
        measure = functools.partial(_profile, scale, setting)
        yield Task("shares of the training step", str(setting), measure)


def _profile(scale: Scale, setting: Setting) -> Iterator[Figure]:
    batch = training.make_batch(setting.canvas, setting.batch_size)
    trainer = Trainer(scale.model, batch, setting.precision)
    trainer(2)
    (seconds,) = time_in_turn([functools.partial(trainer, NUM_STEPS)], scale.repeats)
    yield Figure("without the profiler", str(setting), seconds / NUM_STEPS)
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            trainer(NUM_STEPS)
        (path,) = Path(folder).rglob("*.xplane.pb")
        streams = read_streams(str(path))
    parts = instruction_parts(trainer.program)
    seconds = time_by_part(streams, parts)
    total = sum(seconds.values())
    for part, each in seconds.most_common():
        note = f"{each / total:.1%} of the step"
        yield Figure(part, str(setting), each / NUM_STEPS, note=note)


def instruction_parts(program: str) -> dict[str, str]:
    """Returns the part of the step that each kernel of a compiled program is.

    The text begins with tables: of files; of places in them; and of frames, which are a
    place and the frame that called it.
    """
    files = dict(_table(program, "FileNames", r'(\d+) "(.*)"'))
    places = dict(_table(program, "FileLocations", r"(\d+) \{file_name_id=(\d+) "))
    rows = _table(
        program,
        "StackFrames",
        r"(\d+) \{file_location_id=(\d+)(?: parent_frame_id=(\d+))?\}",
    )
    # Some versions of XLA print a caller's number plus one; the first frame has none.
    offset = int(rows[0][2] or 0) if rows else 0
    frames = {
        int(number): (files[places[place]], int(caller or offset) - offset)
        for number, place, caller in rows
    }
    instructions = re.findall(
        r"^\s*(?:ROOT )?%?([\w.-]+) = .*stack_frame_id=(\d+)", program, re.MULTILINE
    )
    return {
        _as_kernel(name): _part_of_frame(int(frame), frames)
        for name, frame in instructions
    }


def _as_kernel(instruction: str) -> str:
    """Returns the name of the kernel that XLA makes of an instruction.

    In a CUDA graph it has a number of its own after it.
    """
    return re.sub(r"__\d+$", "", re.sub(r"\W", "_", instruction))


def _table(program: str, name: str, row: str) -> list[tuple[str, ...]]:
    """Returns what a pattern finds in the lines of a table."""
    match = re.search(rf"^{name}\n(.+?)\n\n", program, re.MULTILINE | re.DOTALL)
    return re.findall(row, match[1]) if match else []


def _part_of_frame(number: int, frames: Mapping[int, tuple[str, int]]) -> str:
    while number in frames:
        path, number = frames[number]
        for fragment, part in _PARTS:
            if fragment in path:
                return part
    return OTHER


def read_streams(path: str) -> list[list[Span]]:
    """Reads what each stream of the device did from a profile."""
    planes = list(jax.profiler.ProfileData.from_file(path).planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:GPU")]
    lines = [line for plane in devices or planes for line in plane.lines]
    if devices:  # whose other lines would sum the streams up
        lines = [line for line in lines if line.name.startswith("Stream")] or lines
    streams = []
    for line in lines:
        spans = [
            Span(event.name, str(dict(event.stats).get("hlo_op", "")), begin, end)
            for event in line.events
            for begin, end in [(event.start_ns, event.start_ns + event.duration_ns)]
        ]
        # The host does more than run the program.
        spans = [span for span in spans if devices or span.instruction]
        spans.sort(key=lambda span: (span.begin, -span.end))
        streams += [spans] * bool(spans)
    return streams


def time_by_part(
    streams: list[list[Span]], parts: Mapping[str, str]
) -> collections.Counter[str]:
    """Sums the seconds of each part, and those in which no stream was busy.

    A loop's span holds those of its body, which are subtracted from its own.
    """
    seconds: collections.Counter[str] = collections.Counter()
    for spans in streams:
        open_spans: list[tuple[Span, str]] = []
        for span in spans:
            while open_spans and open_spans[-1][0].end <= span.begin:
                open_spans.pop()
            part, duration = _part(span, parts), (span.end - span.begin) / 1e9
            seconds[part] += duration
            if open_spans:
                seconds[open_spans[-1][1]] -= duration
            open_spans.append((span, part))
    seconds[IDLE] = _idle_seconds(streams)
    return seconds


def _part(span: Span, parts: Mapping[str, str]) -> str:
    for name in (span.instruction, span.name):
        if _as_kernel(name) in parts:
            return parts[_as_kernel(name)]
    return next(
        (part for pattern, part in _KERNELS if pattern.search(span.name)), OTHER
    )


def _idle_seconds(streams: list[list[Span]]) -> float:
    spans = sorted((s for spans in streams for s in spans), key=lambda s: s.begin)
    idle, busy_until = 0.0, spans[0].begin
    for span in spans:
        idle += max(0.0, span.begin - busy_until)
        busy_until = max(busy_until, span.end)
    return idle / 1e9
