"""Times the ops beside torchvision's and prints a table: `python -m benchmarks.ops`.

Ours and the peer's run in turn in one process; figures are medians. Without torch and
torchvision only ours are timed. Ratios are what counts: machines differ, and one
machine differs from hour to hour.
"""

import argparse
import functools
import sys
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import peers, training
from benchmarks.timing import (
    HEADER,
    Case,
    Row,
    environment,
    keep_freed_memory,
    measure,
)
from frcnn_jax import ops

IMAGE_SIZE = (608, 800)  # pixels
MAP_SIZE = (50, 50, 512)
NUM_ROIS, STRIDE = 128, 16


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    groups = ("nms", "roi", "targets", "step", "vgg16")
    parser.add_argument("--only", choices=groups, help="one group of cases")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument(
        "--check", action="store_true", help="fail if a target is missed"
    )
    args = parser.parse_args()
    if args.check and peers.torch is None:
        parser.error("--check compares with torch and torchvision, install them")

    keep_freed_memory()
    print(f"{environment()}, {args.dtype}, medians of {args.repeats}\n\n{HEADER}")
    cases = {
        "nms": nms_cases(),
        "roi": roi_cases(args.dtype),
        "targets": target_cases(),
        "step": training.step_cases(),
        "vgg16": training.vgg16_cases(args.dtype),
    }
    rows = []
    for group in [args.only] if args.only else groups:
        for case in cases[group]:
            rows.append(measure(case, args.repeats))
            print(rows[-1], flush=True)
    if misses := missed_targets(rows):
        print("\nmissed:", *misses, sep="\n")
    if misses and args.check:
        sys.exit(1)


def missed_targets(rows: Sequence[Row]) -> list[str]:
    """Returns a line for each ratio that falls short of its target."""
    misses = [
        f"{row.case.name}, {row.case.size}: peer / ours is {row.ratio:.2f}, "
        f"expected >= {row.case.min_ratio}"
        for row in rows
        if row.ratio and row.case.min_ratio and row.ratio < row.case.min_ratio
    ]
    seconds = {row.case.name: row.seconds for row in rows}
    if training.STEP in seconds:
        share = seconds[training.NO_LAYERS] / seconds[training.STEP]
        line = f"{training.NO_LAYERS}: {share:.1%} of the {training.STEP}"
        print(f"\n{line}")
        if share > training.MAX_SHARE:
            misses.append(f"{line}, expected <= {training.MAX_SHARE:.0%}")
    return misses


def nms_cases() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    for num_boxes, max_outputs, min_ratio in ((12_000, 2_000, 20), (6_000, 300, 80)):
        boxes = random_boxes(rng, num_boxes)
        scores = rng.random(num_boxes, np.float32)
        yield Case(
            "nms",
            f"{num_boxes:,} -> {max_outputs:,}, IoU 0.7",
            functools.partial(ops.nms, iou_threshold=0.7, max_outputs=max_outputs),
            (boxes, scores),
            peers.nms(boxes, scores, 0.7),
            min_ratio=min_ratio,
        )
    # A box for each class of each RoI, near one another, as the RoI head makes them.
    boxes = np.repeat(random_boxes(rng, 300), 20, axis=0)
    boxes += rng.normal(0.0, 4.0, boxes.shape).astype(np.float32)
    scores = rng.random(len(boxes), np.float32)
    classes = np.tile(np.arange(20, dtype=np.int32), 300)
    for max_outputs in (300, 6_000):
        yield Case(
            "batched_nms",
            f"300 boxes x 20 classes -> {max_outputs:,}, IoU 0.3",
            functools.partial(
                ops.batched_nms, iou_threshold=0.3, max_outputs=max_outputs
            ),
            (boxes, scores, classes),
            peers.batched_nms(boxes, scores, classes, 0.3),
            min_ratio=2 if max_outputs == 300 else None,
        )


def roi_cases(dtype: str) -> Iterator[Case]:
    rng = np.random.default_rng(0)
    features = jnp.maximum(rng.normal(size=MAP_SIZE), 0.0).astype(dtype)
    corners = np.sort(rng.uniform(0, STRIDE * MAP_SIZE[0], (NUM_ROIS, 2, 2)), axis=1)
    rois = corners.reshape(NUM_ROIS, 4).astype(np.float32)
    cotangent = jnp.asarray(rng.normal(size=(NUM_ROIS, 7, 7, MAP_SIZE[2])), dtype)
    size = f"{NUM_ROIS} RoIs, {'x'.join(map(str, MAP_SIZE))}"
    ops_options = {"roi_pool": {}, "roi_align": {"sampling_ratio": 2, "aligned": True}}
    for name, options in ops_options.items():
        pool = functools.partial(getattr(ops, name), **options)
        peer = functools.partial(peers.roi, name, features, rois, **options)

        def with_gradient(features, rois, cotangent, pool=pool):
            pooled, pull_back = jax.vjp(lambda x: pool(x, rois), features)
            return pooled, pull_back(cotangent)

        yield Case(
            f"{name} forward",
            size,
            pool,
            (features, rois),
            peer(),
            min_ratio=1.0 if name == "roi_pool" else None,
        )
        yield Case(
            f"{name} forward + gradient",
            size,
            with_gradient,
            (features, rois, cotangent),
            peer(cotangent=cotangent),
            min_ratio=1.2 if name == "roi_pool" else 1.0,
        )


def target_cases() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    anchors = ops.grid_anchors(MAP_SIZE[:2], ops.base_anchors())
    image_size = np.array([800.0, 800.0], np.float32)
    gt_boxes = random_boxes(rng, 20)
    yield Case(
        "anchor_targets",
        f"{len(anchors):,} anchors, 20 boxes",
        ops.anchor_targets,
        (jax.random.key(0), anchors, gt_boxes, np.ones(20, bool), image_size),
        goal="<= 8 ms",
    )


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """[count, 4] boxes within the image, sides of about 90 pixels, log-normal."""
    centers = rng.uniform(0.0, IMAGE_SIZE, (count, 2))
    sides = np.exp(rng.normal(4.5, 0.7, (count, 2)))
    boxes = np.concatenate([centers - sides / 2, centers + sides / 2], axis=1)
    return np.clip(boxes, 0.0, IMAGE_SIZE * 2).astype(np.float32)


if __name__ == "__main__":
    main()
