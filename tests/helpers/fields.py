"""Every field of the config, by its path, and configs that differ in some of them."""

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

from frcnn_jax.config import Config


class Field(NamedTuple):
    """A field of the config that holds no further fields."""

    path: str  # "optimizer.learning_rate"
    section: type  # the dataclass that has it
    type: Any
    default: Any

    @property
    def flag(self) -> str:
        """The field as the command line has it."""
        return f"--{self.path.replace('_', '-')}"

    @property
    def is_number(self) -> bool:
        """Whether it holds numbers, alone or in tuples."""
        return bool({int, float} & set(_atoms(self.type)))


def fields(section: type = Config, prefix: str = "") -> Iterator[Field]:
    """Walks the config."""
    types = typing.get_type_hints(section)
    for field in dataclasses.fields(section):
        path, kind = f"{prefix}{field.name}", types[field.name]
        if dataclasses.is_dataclass(kind):
            yield from fields(kind, f"{path}.")
        else:
            yield Field(path, section, kind, field.default)


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """Turns values by path into what `config.json` holds."""
    tree: dict[str, Any] = {}
    for path, value in values.items():
        *sections, name = path.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[name] = value
    return tree


def replace(config: Any, path: str, value: Any) -> Any:
    """Returns a config with one field replaced."""
    name, _, rest = path.partition(".")
    if rest:
        value = replace(getattr(config, name), rest, value)
    return dataclasses.replace(config, **{name: value})


def _atoms(kind: Any) -> Iterator[Any]:
    arguments = typing.get_args(kind)
    if not arguments:
        yield kind
    for argument in arguments:
        yield from _atoms(argument)
