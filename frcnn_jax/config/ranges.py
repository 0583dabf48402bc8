"""Types and ranges of the config's fields, stated together, checked in one place.

class DropConfig(Section, path="model.drop"):
    rate: Annotated[float, Range(0, 1, below_high=True)] = 0.5
"""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, ClassVar

from dacite.types import is_instance

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
    """Base of the config's dataclasses, which refuse wrong types and numbers."""

    ranges: ClassVar[Mapping[str, Range]]  # by field
    _types: ClassVar[Mapping[str, Any]]  # by field
    _prefix: ClassVar[str]

    def __init_subclass__(cls, path: str) -> None:
        """Reads the types, and the ranges in them.

        Args:
          path: where the section is in the config, for errors; empty for the whole.
        """
        cls._prefix = f"{path}." if path else ""
        cls._types = typing.get_type_hints(cls)
        cls.ranges = {
            name: item
            for name, hint in typing.get_type_hints(cls, include_extras=True).items()
            for item in getattr(hint, "__metadata__", ())
            if isinstance(item, Range)
        }

    def __post_init__(self) -> None:
        """Refuses wrong types and numbers out of range; takes lists for tuples."""
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            name, expected = field.name, self._types[field.name]
            value = to_tuples(getattr(self, name))
            self._check(is_instance(value, expected), name, _describe(expected))
            object.__setattr__(self, name, value)
        for name, limits in self.ranges.items():
            value = getattr(self, name)
            self._check(value is None or value in limits, name, limits)

    def _check(self, condition: bool, name: str, expected: Any) -> None:
        """Raises an error that names a field, unless the condition is met."""
        if not condition:
            value = getattr(self, name)
            raise UserError(f"{self._prefix}{name} is {value!r}, expected {expected}")


def to_tuples(value: Any) -> Any:
    """Turns lists into tuples, at any depth of tuples and dicts."""
    if isinstance(value, dict):
        return {name: to_tuples(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(map(to_tuples, value))
    return value


def _describe(hint: Any) -> str:
    """Writes a type as in a source file; the values of a literal as a list."""
    choices = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return f"one of {', '.join(map(str, choices))}"
    if type(None) in choices:
        given = [_describe(choice) for choice in choices if choice is not type(None)]
        return " | ".join([*given, "None"])
    return hint.__name__ if isinstance(hint, type) else str(hint)
