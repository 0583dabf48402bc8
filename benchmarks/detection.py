"""Times detection beside PyTorch's: `python -m benchmarks.detection`.

One resized image of 600 x 800 pixels, VGG16 at full width, 300 proposals, from pixels
on the host to detections on the host. The peer has the same parameters and layers, by
PyTorch and torchvision. Both run in turn in one process, and then each alone in its
own; figures are medians.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable

import jax
import numpy as np

from benchmarks.timing import environment, time_in_turn
from frcnn_jax import distributed
from frcnn_jax.config import ModelConfig
from frcnn_jax.data.records import Batch, empty_batch
from frcnn_jax.detector import make_detect_step
from frcnn_jax.models.parameters import abstract_detector, flatten, random_params

IMAGE_SIZE, CANVAS = (600, 800), (608, 800)
NUM_CLASSES = 20
# So that random parameters find as many objects as trained ones do.
SCORE_FACTOR = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--batch-size", type=int, default=1, help="time ours so, too")
    parser.add_argument("--only", choices=("ours", "peer"), help="one side, alone")
    args = parser.parse_args()
    if args.only:
        side = {"ours": ours, "peer": peer}[args.only]
        print(*time_in_turn([side(1)], args.repeats))
        return
    print(f"{environment()}, medians of {args.repeats}\n")
    print("| | ours, ms | peer, ms | peer / ours |\n|---|---:|---:|---:|")
    sides = [ours(1), peer(1)]
    assert_same(*(side() for side in sides))
    print_row("in turn, one process", *time_in_turn(sides, args.repeats))
    alone = [time_alone(name, args.repeats) for name in ("ours", "peer")]
    print_row("each alone in its process", *alone)
    if args.batch_size > 1:
        (seconds,) = time_in_turn([ours(args.batch_size)], args.repeats)
        each = seconds / args.batch_size
        print(f"\nours, batch of {args.batch_size}: {each * 1e3:.0f} ms an image")


def ours(batch_size: int) -> Callable[[], np.ndarray]:
    config, params = ModelConfig(), parameters()
    mesh = distributed.make_mesh(1)
    step = make_detect_step(abstract_detector(config, NUM_CLASSES)[0], mesh)
    params = distributed.replicate(params, mesh)
    batch = make_batch(batch_size)

    def run() -> np.ndarray:
        detections, _, _ = jax.device_get(step(params, batch))
        return detections.scores[0][detections.mask[0]]

    return run


def peer(batch_size: int) -> Callable[[], np.ndarray]:
    import torch

    from benchmarks.peer_detector import PeerDetector

    device = "cuda" if torch.cuda.is_available() else "cpu"
    detector = PeerDetector(ModelConfig(), flatten(parameters()), device)
    height, width = IMAGE_SIZE
    pixels = make_batch(batch_size).images[0, :height, :width]
    pixels = np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def run() -> np.ndarray:
        return detector(torch.tensor(pixels, device=device)).scores.cpu().numpy()

    return run


def parameters():
    params = random_params(ModelConfig(), NUM_CLASSES, 0)
    params["head"]["score"]["kernel"] *= SCORE_FACTOR
    return params


def make_batch(batch_size: int) -> Batch:
    """The same image so many times, with something to see in every part."""
    coarse = np.random.default_rng(0).integers(0, 256, (38, 50, 3), np.uint8)
    batch = empty_batch(batch_size, CANVAS, max_objects=1)
    height, width = IMAGE_SIZE
    batch.images[:, :height, :width] = np.kron(coarse, np.ones((16, 16, 1), np.uint8))[
        :height, :width
    ]
    return batch._replace(image_sizes=np.full((batch_size, 2), IMAGE_SIZE, np.float32))


def time_alone(name: str, repeats: int) -> float:
    command = [sys.executable, "-m", "benchmarks.detection", "--only", name]
    done = subprocess.run(
        [*command, "--repeats", str(repeats)], check=True, capture_output=True
    )
    return float(done.stdout.split()[-1])


def assert_same(scores: np.ndarray, peer_scores: np.ndarray) -> None:
    """Checks that both sides do the same work."""
    print(f"both find {len(scores)} and {len(peer_scores)} objects\n", file=sys.stderr)
    np.testing.assert_allclose(scores, peer_scores, atol=1e-3)


def print_row(name: str, seconds: float, peer_seconds: float) -> None:
    ratio = peer_seconds / seconds
    print(
        f"| {name} | {seconds * 1e3:.0f} | {peer_seconds * 1e3:.0f} | {ratio:.2f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
