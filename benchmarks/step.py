"""Times the training step beside PyTorch's: `python -m benchmarks.step`.

The VOC recipe at full width, one image, 20 objects, in float32. The peer has the same
parameters, layers, losses and numbers of samples, by PyTorch and torchvision, and SGD
by its fused kernel. Both run in turn in one process, and then each alone in its own;
figures are medians. `--memory` states what the step needs instead.
"""

import argparse
import dataclasses
import functools
from collections.abc import Callable

from benchmarks import sides, training
from benchmarks.timing import environment
from benchmarks.trainer import Trainer
from frcnn_jax.config import ModelConfig

CANVASES = ((608, 800), (304, 400))
# The canvas of the largest images that the recipe's rule makes, 600 x 1000.
MEMORY_CANVAS, MEMORY_BATCH_SIZES = (608, 1008), (1, 2, 8)
MODEL, PRECISION = ModelConfig(), "float32"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sides.add_arguments(parser, repeats=7)
    parser.add_argument(
        "--canvas", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="only this one"
    )
    parser.add_argument("--memory", action="store_true", help="by size of the batch")
    args = parser.parse_args()
    if args.memory:
        print_memory()
        return
    canvases = [tuple(args.canvas)] if args.canvas else CANVASES
    if args.only:
        sides.time_one(functools.partial(SIDES[args.only], canvases[0]), args.repeats)
        return
    print(f"{environment()}, medians of {args.repeats}\n\n{sides.HEADER}")
    for canvas in canvases:
        sides.compare(
            "benchmarks.step",
            f"{canvas[0]} x {canvas[1]}",
            {name: functools.partial(side, canvas) for name, side in SIDES.items()},
            args.repeats,
            arguments=("--canvas", *map(str, canvas)),
        )


def ours(canvas: tuple[int, int]) -> Callable[[], float]:
    """Returns a function that trains for a step."""
    batch = training.make_batch(canvas, 1)
    return functools.partial(Trainer(MODEL, batch, PRECISION), 1)


def peer(canvas: tuple[int, int]) -> Callable[[], float]:
    """Returns the same function of PyTorch's."""
    from benchmarks.peer_training import PeerTrainer

    batch = training.make_batch(canvas, 1)
    return functools.partial(PeerTrainer(MODEL, batch, PRECISION), 1)


SIDES = {"ours": ours, "peer": peer}


def print_memory() -> None:
    """Compiles the step for each size of a batch, and prints what XLA plans."""
    height, width = MEMORY_CANVAS
    print(f"{environment()}, MiB at {height} x {width}\n")
    print("| batch | blocks 1 and 2 frozen | all trained |\n|---:|---:|---:|")
    for batch_size in MEMORY_BATCH_SIZES:
        batch = training.make_batch(MEMORY_CANVAS, batch_size)
        frozen, trained = (
            Trainer(dataclasses.replace(MODEL, frozen_blocks=each), batch, PRECISION)
            for each in (2, 0)
        )
        row = f"| {batch_size} | {_mebibytes(frozen)} | {_mebibytes(trained)} |"
        print(row, flush=True)


def _mebibytes(trainer: Trainer) -> str:
    return f"{trainer.memory / 2**20:,.0f}"


if __name__ == "__main__":
    main()
