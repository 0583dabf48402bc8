"""Times detection beside PyTorch's: `python -m benchmarks.detection`.

One resized image of 600 x 800 pixels, VGG16 at full width, 300 proposals, from pixels
on the host to detections on the host. The peer has the same parameters and layers, by
PyTorch and torchvision. Both run in turn in one process, and then each alone in its
own; figures are medians.
"""

import argparse
import sys
from collections.abc import Callable

import jax
import numpy as np

from benchmarks import sides
from benchmarks.timing import environment, time_in_turn
from benchmarks.trainer import in_precision, matmul_precision
from frcnn_jax import distributed
from frcnn_jax.config import ModelConfig
from frcnn_jax.data.records import Batch, empty_batch
from frcnn_jax.detector import make_detect_step
from frcnn_jax.models.parameters import (
    Params,
    abstract_detector,
    flatten,
    random_params,
)

CANVAS, NUM_EMPTY_ROWS = (608, 800), 8
MODEL, NUM_CLASSES = ModelConfig(), 20
# So that random parameters find as many objects as trained ones do.
SCORE_FACTOR = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sides.add_arguments(parser, repeats=11)
    parser.add_argument("--batch-size", type=int, default=1, help="time ours so, too")
    args = parser.parse_args()
    both = {"ours": lambda: ours(make_batch(1)), "peer": lambda: peer(make_batch(1))}
    if args.only:
        sides.time_one(both[args.only], args.repeats)
        return
    print(f"{environment()}, medians of {args.repeats}\n\n{sides.HEADER}")
    sides.compare(
        "benchmarks.detection", "detection", both, args.repeats, check=assert_same
    )
    if args.batch_size > 1:
        (seconds,) = time_in_turn([ours(make_batch(args.batch_size))], args.repeats)
        each = seconds / args.batch_size
        print(f"\nours, batch of {args.batch_size}: {each * 1e3:.0f} ms an image")


def ours(
    batch: Batch, model: ModelConfig = MODEL, precision: str = "tf32"
) -> Callable[[], np.ndarray]:
    """Returns a function that detects and returns the first image's scores."""
    mesh = distributed.make_mesh(1)
    graphdef, _ = abstract_detector(in_precision(model, precision), NUM_CLASSES)
    step = make_detect_step(graphdef, mesh)
    params = distributed.replicate(parameters(model), mesh)
    with matmul_precision(precision):
        compiled = step.lower(params, batch).compile()

    def run() -> np.ndarray:
        detections, _, _ = jax.device_get(compiled(params, batch))
        return detections.scores[0][detections.mask[0]]

    return run


def peer(
    batch: Batch, model: ModelConfig = MODEL, precision: str = "tf32"
) -> Callable[[], np.ndarray]:
    """Returns the same function of PyTorch's."""
    import torch

    from benchmarks.peer_detector import PeerDetector

    detector = PeerDetector(model, flatten(parameters(model)), precision)
    height, width = batch.image_sizes[0].astype(int)
    pixels = np.ascontiguousarray(
        batch.images[:, :height, :width].transpose(0, 3, 1, 2)
    )

    def run() -> np.ndarray:
        found = detector(torch.tensor(pixels, device=detector.device))
        first, *_ = [each.scores.cpu().numpy() for each in found]
        return first

    return run


def parameters(model: ModelConfig) -> Params:
    params = random_params(model, NUM_CLASSES, 0)
    params["head"]["score"]["kernel"] *= SCORE_FACTOR
    return params


def make_batch(batch_size: int, canvas: tuple[int, int] = CANVAS) -> Batch:
    """The same image this many times, with something to see in every part."""
    rng = np.random.default_rng(0)
    batch = empty_batch(batch_size, canvas, max_objects=1)
    height, width = image_size = canvas[0] - NUM_EMPTY_ROWS, canvas[1]
    coarse = rng.integers(0, 256, (-(-height // 16), -(-width // 16), 3), np.uint8)
    batch.images[:, :height] = np.kron(coarse, np.ones((16, 16, 1), np.uint8))[
        :height, :width
    ]
    return batch._replace(image_sizes=np.full((batch_size, 2), image_size, np.float32))


def assert_same(scores: np.ndarray, peer_scores: np.ndarray) -> None:
    """Checks that both sides do the same work."""
    print(f"both find {len(scores)} and {len(peer_scores)} objects\n", file=sys.stderr)
    np.testing.assert_allclose(scores, peer_scores, atol=1e-3)


if __name__ == "__main__":
    main()
