"""Reports what an import did."""

from collections.abc import Iterable, Mapping

from frcnn_jax.weights.published import count_published
from frcnn_jax.weights.record import Weights


def describe(
    weights: Weights,
    loaded: Iterable[str],
    shapes: Mapping[str, tuple[int, ...]],
) -> list[str]:
    """Returns lines on what was loaded, skipped and missing.

    Args:
      weights: from `read_weights`.
      loaded: names of the parameters that the detector takes.
      shapes: all parameters of the detector, by name.
    """
    loaded = set(loaded)
    skipped = [name for name in weights.arrays if name not in loaded]
    missing = [name for name in shapes if name not in loaded]
    known = []
    if published := count_published(weights.arrays):
        num_arrays = sum(name.startswith("backbone.") for name in weights.arrays)
        known = [
            f"  Caffe's published convolutions: {published} of {num_arrays} arrays"
        ]
    classes = []
    if weights.spec is not None:
        names = ", ".join(weights.spec.class_names) or "not named"
        classes = [f"  classes: {names}"]
    return [
        f"{weights.source}: {weights.layout}{weights.note}",
        *known,
        f"  loaded: {_layers(loaded) or 'nothing'}",
        f"  skipped: {_layers([*skipped, *weights.unknown]) or 'nothing'}",
        f"  missing, random: {_layers(missing) or 'nothing'}",
        f"  pixels: {weights.preprocessing or 'not known; the config must say it'}",
        *classes,
    ]


def _layers(names: Iterable[str]) -> str:
    """Lists layers instead of their kernels and biases, and VGG16's as a range."""
    layers = sorted(
        {name.removesuffix(".kernel").removesuffix(".bias") for name in names}
    )
    convolutions = [name for name in layers if name.startswith("backbone.")]
    others = [name for name in layers if not name.startswith("backbone.")]
    if len(convolutions) > 2:
        convolutions = [f"{convolutions[0]}..{convolutions[-1]}"]
    return ", ".join(convolutions + others)
