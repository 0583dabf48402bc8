"""Ranges of the config's numbers, stated with their types and checked in one place.

class DropConfig(Section, path="model.drop"):
    rate: Annotated[float, Range(0, 1, below_high=True)] = 0.5
"""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, ClassVar

from frcnn_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers that a field may have, or each number of a tuple."""

    low: float
    high: float
    above_low: bool = False  # without `low` itself
    below_high: bool = False  # without `high` itself

    def __contains__(self, value: Any) -> bool:
        """Returns whether a number, or each of a nested tuple, lies in the range."""
        if isinstance(value, tuple):
            return all(item in self for item in value)
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        is_above = self.low < value if self.above_low else self.low <= value
        return is_above and (
            value < self.high if self.below_high else value <= self.high
        )

    def __str__(self) -> str:
        """Describes the range, for the end of an error."""
        low = "above" if self.above_low else "at least"
        high = "below" if self.below_high else "at most"
        return f"{low} {self.low:,}, {high} {self.high:,}"


class Section:
    """Base of the config's dataclasses, which refuse numbers out of their ranges."""

    ranges: ClassVar[Mapping[str, Range]]  # by field
    _prefix: ClassVar[str]

    def __init_subclass__(cls, path: str) -> None:
        """Reads the ranges from the types.

        Args:
          path: where the section is in the config, for errors; empty for the whole.
        """
        cls._prefix = f"{path}." if path else ""
        cls.ranges = {
            name: item
            for name, hint in typing.get_type_hints(cls, include_extras=True).items()
            for item in getattr(hint, "__metadata__", ())
            if isinstance(item, Range)
        }

    def __post_init__(self) -> None:
        """Refuses numbers out of range; None stands for an absent one."""
        for name, limits in self.ranges.items():
            value = getattr(self, name)
            self._check(value is None or value in limits, name, limits)

    def _check(self, condition: bool, name: str, expected: Any) -> None:
        """Raises an error that names a field, unless the condition is met."""
        if not condition:
            value = getattr(self, name)
            raise UserError(f"{self._prefix}{name} is {value}, expected {expected}")
