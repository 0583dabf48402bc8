"""Writes roi.npz, the results of torchvision that test_golden.py compares with.

Torch is no dependency of the tests, only of this script. To make the file again, with a
Python that has torch and torchvision (the CPU will do; their versions are kept in the
file):

    python tests/golden/make_roi.py

The entry `cases` is a JSON object: by the name of each case a function of
`frcnn_jax.ops`, its options, and the names of its features and its rois. The arrays are
features/NAME [H, W, C], rois/NAME [R, 4] in pixels as (y_min, x_min, y_max, x_max), and
for each case result/CASE [R, P, Q, C] and gradient/CASE [H, W, C], that of
`(result * cotangent).sum()` in the features, where the cotangent is COTANGENT repeated.
`versions` is a JSON object as well.
"""

import json
from pathlib import Path

import numpy as np

OUTPUT = Path(__file__).with_name("roi.npz")
STRIDE = 16
# Eleven values: prime to the sizes, so that neighbors have different ones.
COTANGENT = np.arange(1, 12, dtype=np.float32)


def main():
    import torch
    import torchvision

    features, rois = inputs(np.random.default_rng(0))
    arrays = {f"features/{name}": array for name, array in features.items()}
    arrays |= {f"rois/{name}": array for name, array in rois.items()}
    cases = {}
    for function, features_name, rois_name, options in choices():
        results = with_gradient(
            {"roi_pool": roi_pool, "roi_align": roi_align}[function],
            features[features_name],
            rois[rois_name],
            options,
        )
        assert all(np.isfinite(array).all() for array in results)
        (height, width), *others = options.values()
        name = "-".join(map(str, (features_name, f"{height}x{width}", *others)))
        cases[name] = {
            "function": function,
            "features": features_name,
            "rois": rois_name,
            "options": options,
        }
        arrays[f"result/{name}"], arrays[f"gradient/{name}"] = results

    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    np.savez_compressed(
        OUTPUT,
        cases=json.dumps(cases),
        versions=json.dumps(versions),
        cotangent=COTANGENT,
        **arrays,
    )
    print(f"{len(cases)} cases, {OUTPUT.stat().st_size} bytes, {versions}")


def inputs(rng):
    """Features by name, and RoIs by the name of the features and what they are for."""
    features = {
        "continuous": rng.normal(size=(19, 13, 2)),
        "relu": np.maximum(rng.normal(size=(18, 13, 2)), 0.0),
        "few_values": rng.integers(0, 3, (19, 13, 2)) / 4,
        "all_equal": np.full((5, 9, 2), -0.5),
        "one_row": rng.integers(-2, 2, (1, 13, 2)),
        "one_cell": np.array([[[1.0, -1.0]]]),
    }
    rois = {}
    for name, array in features.items():
        boxes = rois_of_every_kind(rng, *array.shape[:2])
        touching = [roi for roi in boxes if touches_a_cell(roi, array.shape)]
        rois[f"{name}-round"] = boxes
        # The first ones again at the end: the same number everywhere.
        rois[f"{name}-floor"] = np.resize(touching, boxes.shape)
        # Off the whole pixels: no sample lies on the border between 0 and not 0, where
        # the last bit would decide.
        rois[f"{name}-align"] = boxes + 0.3

    # Edges at half a cell and at the nearest float32 on both sides of it.
    features["half_cells"] = rng.permutation(19 * 13 * 2).reshape(19, 13, 2)
    half = np.float32([-24, -8, 8, 24, 40, 104, 136])
    edges = np.concatenate([np.nextafter(half, -1000), half, np.nextafter(half, 1000)])
    rois["half_cells-round"] = np.sort(rng.choice(edges, (44, 2, 2)), axis=1)
    rois["half_cells-round"] = rois["half_cells-round"].reshape(44, 4)

    # RoIs of 1 to 120 cells, from two places. The length of a bin is rounded, which may
    # give a bin one cell more.
    column = rng.permutation(128)[:, None, None]
    features["lengths"] = np.concatenate([column, -column], axis=2)
    begin = np.repeat([0, 9 * STRIDE], 120)
    length = np.tile(np.arange(120) * STRIDE, 2)
    rois["lengths-round"] = np.stack(
        [begin, 0 * begin, begin + length, 0 * begin], axis=1
    )
    return tuple(
        {name: array.astype(np.float32) for name, array in arrays.items()}
        for arrays in (features, rois)
    )


def choices():
    """Yields (function, name of the features, name of the rois, options).

    The options are few: the tests compile once for each of them.
    """
    integers = "few_values", "all_equal", "one_row", "one_cell"
    for name in ("continuous", "relu", *integers):
        for size in ((7, 7), (3, 2)):
            for rounding in ("round", "floor"):
                options = {"output_size": size, "rounding": rounding}
                yield "roi_pool", name, f"{name}-{rounding}", options
    options = {"output_size": (7, 7), "rounding": "round"}
    yield "roi_pool", "half_cells", "half_cells-round", options
    options = {"output_size": (7, 1), "rounding": "round"}
    yield "roi_pool", "lengths", "lengths-round", options

    for name, size, ratio, aligned in (
        ("continuous", (7, 7), 2, True),
        ("continuous", (7, 7), 2, False),
        *((name, (3, 2), 1, True) for name in ("continuous", "relu", *integers)),
        *((name, (3, 2), 3, False) for name in ("continuous", "relu", *integers)),
    ):
        options = {"output_size": size, "sampling_ratio": ratio, "aligned": aligned}
        yield "roi_align", name, f"{name}-align", options


def rois_of_every_kind(rng, height, width, count=44):
    """[count, 4] RoIs for a map of height x width cells, about half of them special."""
    bottom, right = height * STRIDE, width * STRIDE
    y, x = bottom / 2, right / 2
    special = [
        [0, 0, bottom, right],  # the whole image
        [0, 0, bottom - 1, right - 1],
        [-500, -500, bottom + 400, right + 500],  # more than that
        [y + 3, x + 1, y + 3, x + 1],  # a point
        [y + 1, x, y + 2, x + 1],  # a pixel
        [0, 0, 0, 0],  # padding
        [-100, x - 20, -40, x + 30],  # outside: above
        [y - 20, -90, y + 30, -50],  # on the left
        [bottom + 25, x - 20, bottom + 90, x + 10],  # below
        [y - 5, right + 25, y + 20, right + 70],  # on the right
        [bottom + 40, right + 40, bottom + 90, right + 70],  # at a corner
        [-50, -30, y, x],  # partly outside, on each side
        [-50, x, y, right + 60],
        [y, -30, bottom + 50, x],
        [y - 20, x - 3, bottom + 50, right + 60],
        [y + 20, x + 20, y - 20, x - 30],  # upside down
        [8, 8, 24, 24],  # edges at half a cell
        [-8, -24, 56, 72],
        [40, 8, 72, 8],
        [7.75, 8.25, 39.75, 40.25],  # and beside it
        [y, 0, y + 2, right],  # long and thin
        [0, x + 5, bottom, x + 6],
    ]
    corner = rng.uniform(-40, [bottom, right], (count - len(special), 2))
    side = rng.uniform(0, [bottom, right], corner.shape) * rng.choice([0.2, 1])
    random = np.concatenate([corner, corner + side], axis=1)
    return np.concatenate([special, random]).astype(np.float32)


def touched(low, high, size):
    """(first cell, end) of the cells between two edges in pixels."""
    begin, end = np.floor(low / STRIDE), np.floor(high / STRIDE) + 1
    return int(np.clip(begin, 0, size)), int(np.clip(end, 0, size))


def touches_a_cell(roi, shape):
    top, bottom = touched(roi[0], roi[2], shape[0])
    left, right = touched(roi[1], roi[3], shape[1])
    return top < bottom and left < right


def with_gradient(function, features, rois, options):
    """The result of a function of [C, H, W] as [R, P, Q, C], and its gradient."""
    import torch

    features = torch.tensor(features.transpose(2, 0, 1), requires_grad=True)
    result = function(features, rois, **options).permute(0, 2, 3, 1)
    cotangent = np.resize(COTANGENT, result.shape)
    result.backward(torch.tensor(cotangent))
    return result.detach().numpy(), features.grad.permute(1, 2, 0).numpy()


def torchvision_rois(rois):
    """[R, 5] rows of the image's index, x1, y1, x2, y2."""
    import torch

    image = np.zeros((len(rois), 1), np.float32)
    return torch.tensor(np.concatenate([image, rois[:, [1, 0, 3, 2]]], axis=1))


def roi_pool(features, rois, output_size, rounding):
    import torchvision

    if rounding == "floor":
        return adaptive_pool(features, rois, output_size)
    return torchvision.ops.roi_pool(
        features[None], torchvision_rois(rois), output_size, spatial_scale=1 / STRIDE
    )


def adaptive_pool(features, rois, output_size):
    """The notebook's way: an adaptive pool of the cells that each RoI touches."""
    import torch

    pooled = []
    for roi in rois:
        top, bottom = touched(roi[0], roi[2], features.shape[1])
        left, right = touched(roi[1], roi[3], features.shape[2])
        cells = features[None, :, top:bottom, left:right]
        pooled.append(torch.nn.functional.adaptive_max_pool2d(cells, output_size))
    return torch.cat(pooled)


def roi_align(features, rois, output_size, **options):
    import torchvision

    return torchvision.ops.roi_align(
        features[None],
        torchvision_rois(rois),
        output_size,
        spatial_scale=1 / STRIDE,
        **options,
    )


if __name__ == "__main__":
    main()
