"""Loading and storing a `Config`: Python files, the command line, JSON.

A config file is Python with a `get_config()` that returns a `Config`; any field can be
overridden on the command line.
"""

import contextlib
import dataclasses
import importlib.util
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import dacite

from frcnn_jax.config.ranges import to_tuples
from frcnn_jax.config.schema import Config
from frcnn_jax.errors import UserError, first_line
from frcnn_jax.files import replace_text

T = TypeVar("T")


def load_config(path: str | Path) -> Config:
    """Runs a config file's `get_config()`.

    Args:
      path: a Python file.

    Returns:
      Its config, every field checked for its type.

    Raises:
      UserError: if the file is missing or broken, or a field is unknown, of the wrong
        type or impossible.
    """
    if not Path(path).is_file():
        raise UserError(f"--config {path}: no such file")
    spec = importlib.util.spec_from_file_location("config", path)
    if spec is None or spec.loader is None:
        raise UserError(f"--config {path}: expected a Python file, *.py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config()
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (Exception, SystemExit) as error:
        raise UserError(f"{path}: {type(error).__name__}: {error}") from error
    if not isinstance(config, Config):
        raise UserError(f"{path}: get_config() gave {config!r}, expected a Config")
    return config


def override_config(config: Config, arguments: Sequence[str], program: str) -> Config:
    """Applies command-line arguments such as `--optimizer.learning-rate 5e-4`.

    Args:
      config: what the fields are without arguments.
      arguments: the command line without the program and `--config`.
      program: how `--help` calls the program.

    Raises:
      UserError: for an unknown field, a wrong type or an impossible value.
      SystemExit: with code 0, after `--help`.
    """
    import tyro  # here, since only the command line needs it

    names = {argument.split("=")[0].replace("_", "-") for argument in arguments}
    if "--num-steps" in names and "--num-epochs" not in names:
        config = dataclasses.replace(config, num_epochs=None)  # which would win
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            return tyro.cli(Config, default=config, args=list(arguments), prog=program)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(_first_paragraph(message.getvalue())) from None


def config_from_dict(values: Mapping[str, Any], *, where: str) -> Config:
    """Builds a config from nested dicts, as read from `config.json`.

    Args:
      values: field names and values; lists stand for tuples.
      where: the file, for error messages.

    Raises:
      UserError: if a field is unknown, of the wrong type or impossible.
    """
    return dataclass_from_dict(Config, values, where=where)


def dataclass_from_dict(cls: type[T], values: Mapping[str, Any], *, where: str) -> T:
    """Builds a dataclass from nested dicts.

    Args:
      cls: the dataclass.
      values: field names and values; lists stand for tuples.
      where: the file, for error messages.

    Raises:
      UserError: if a field is unknown, of the wrong type or impossible.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{where}: expected a JSON object, got {values!r:.80}")
    try:
        # Not dacite's cast: given a number instead of a tuple, it names no field.
        return dacite.from_dict(cls, to_tuples(values), dacite.Config(strict=True))
    except (dacite.DaciteError, UserError) as error:
        raise UserError(f"{where}: {error}") from None
    except (TypeError, ValueError) as error:  # dacite's, for an object as a tuple
        raise UserError(f"{where}: has a value of a wrong type ({error})") from None


def save_config(config: Config, path: Path) -> None:
    """Writes the config as JSON.

    Args:
      config: of a run.
      path: of the file.

    Raises:
      UserError: if it cannot be written.
    """
    replace_text(path, json.dumps(dataclasses.asdict(config), indent=2) + "\n")


def read_config(path: Path) -> Config:
    """Reads what `save_config` wrote.

    Raises:
      UserError: if the file is missing or not such JSON.
    """
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: {first_line(error)}") from None
    return config_from_dict(values, where=str(path))


def _first_paragraph(text: str) -> str:
    """Extracts the message from the box that tyro draws around an error."""
    lines = [line.strip("│ ") for line in text.splitlines()[1:]]
    rule = next((i for i, line in enumerate(lines) if re.match("[─╰]", line)), None)
    return " ".join(lines[:rule]).strip() or text
