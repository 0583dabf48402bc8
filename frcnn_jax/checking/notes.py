"""Notes on what may be worth changing in a data set or its config."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from frcnn_jax.checking.anchors import IOU_THRESHOLDS, AnchorRecall, suggest
from frcnn_jax.data.records import abbreviate

_MUCH_PADDING = 0.25  # of all pixels


def write_notes(
    statistics: Mapping[str, Mapping[str, Any]], anchors: Sequence[AnchorRecall]
) -> list[str]:
    """Writes sentences, each about one figure.

    Args:
      statistics: of each split.
      anchors: the config's, then other ones.
    """
    used = {split: values for split, values in statistics.items() if values["uses"]}
    notes = [note for each in used.items() for note in _note_objects(*each)]
    notes += [note for each in used.items() for note in _note_padding(*each)]
    return [*notes, *_note_anchors(anchors)]


def _note_objects(split: str, values: Mapping[str, Any]) -> Iterator[str]:
    if values["num_empty"]:
        yield (
            f"Images without objects in {split}: {values['num_empty']} of "
            f"{values['num_images']}; data.skip_empty_images leaves them out."
        )
    rows = values["per_class"]
    empty = [name for name, row in rows.items() if not row["num_objects"]]
    if empty:
        yield f"Classes without objects in {split}: {abbreviate(empty)}."
    if values["num_clipped_by_a_pixel"]:
        yield (
            f"Boxes that reach one pixel outside of their image in {split}: "
            f"{values['num_clipped_by_a_pixel']}. They are cut without a warning, as "
            "some programs count pixels from 0 and others from 1."
        )


def _note_padding(split: str, values: Mapping[str, Any]) -> Iterator[str]:
    for canvas, row in values["canvases"].items():
        if row["num_images"] and row["padding"] > _MUCH_PADDING:
            yield (
                f"{row['padding']:.0%} of the canvas {canvas} is padding for the "
                f"{row['num_images']} images of {split} on it: better fitting "
                "data.canvases save time."
            )


def _note_anchors(anchors: Sequence[AnchorRecall]) -> Iterator[str]:
    better = suggest(anchors)
    if better is None:
        return
    options = [
        f"--model.anchor-{name} {' '.join(f'{each:g}' for each in values)}"
        for name, values in (("scales", better.scales), ("ratios", better.ratios))
        if values != getattr(anchors[0], name)
    ]
    now, then = (
        " and ".join(f"{share:.0%}" for share in each.recall)
        for each in (anchors[0], better)
    )
    yield (
        f"Anchors overlap {now} of the objects by IoU "
        f"{' and '.join(map(str, IOU_THRESHOLDS))}; with {' '.join(options)} it "
        f"would be {then}."
    )
