"""What must travel with a detector's parameters: checkpoints and files store it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from frcnn_jax.config.loading import dataclass_from_dict
from frcnn_jax.config.schema import DataConfig, ModelConfig, Resizing


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectorSpec:
    """Everything that parameters need to become a detector again."""

    model: ModelConfig  #: its preprocessing is set; `pretrained` is empty
    class_names: tuple[str, ...]  #: L names; empty if unknown
    resizing: Resizing = dataclasses.field(default_factory=Resizing)

    def to_dict(self) -> dict[str, Any]:
        """Returns nested dicts for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, where: str) -> "DetectorSpec":
        """Builds a spec from what `to_dict` returned.

        Args:
          values: nested dicts, as read from JSON.
          where: the file, for the error.

        Raises:
          UserError: if a field is unknown, missing, of the wrong type or impossible.
        """
        return dataclass_from_dict(cls, values, where=where)


def make_spec(
    model: ModelConfig, data: DataConfig, class_names: tuple[str, ...]
) -> DetectorSpec:
    """Describes the detector that a run trains.

    Args:
      model: its network, options and preprocessing.
      data: how its images are resized.
      class_names: L names, in the order of the labels.
    """
    preprocessing = dataclasses.asdict(model.preprocessing)
    return DetectorSpec(
        # Where training started from means nothing on another machine.
        model=dataclasses.replace(model, pretrained="", **preprocessing),
        class_names=tuple(class_names),
        resizing=Resizing.from_config(data),
    )
