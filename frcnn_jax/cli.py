"""The command line: `frcnn train` (also `train.py`) and `frcnn evaluate`.

A user's mistake ends with one line on standard error and exit code 2.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from frcnn_jax.config import Config
from frcnn_jax.config_files import load_config, override_config
from frcnn_jax.errors import UserError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the `frcnn` command."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = _Parser(prog="frcnn", description="Faster R-CNN (VGG16) in JAX.")
    parser.add_argument(
        "command",
        choices=["train", "evaluate"],
        help="`frcnn COMMAND --help` tells more",
    )
    commands = {"train": train, "evaluate": evaluate}
    _exit_cleanly(
        lambda: commands[parser.parse_args(arguments[:1]).command](arguments[1:])
    )


def train(arguments: Sequence[str] | None = None) -> None:
    """Trains and evaluates: `--config PATH [--field value ...]`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    _exit_cleanly(lambda: _train(arguments))


def evaluate(arguments: Sequence[str]) -> None:
    """Evaluates a run's last checkpoint: `--work-dir DIR [--split NAME]`."""
    parser = _Parser(
        prog="frcnn evaluate", description="Evaluates a run's last checkpoint."
    )
    parser.add_argument("--work-dir", type=Path, required=True, help="run directory")
    parser.add_argument("--split", help="split to evaluate; by default the test split")
    options = parser.parse_args(arguments)
    _start()
    from frcnn_jax.training import loop

    loop.evaluate(options.work_dir, options.split)


def _train(arguments: Sequence[str]) -> None:
    parser = _Parser(prog="train.py", add_help=False)
    parser.add_argument("--config", type=Path)
    options, overrides = parser.parse_known_args(arguments)
    if options.config is None and not {"-h", "--help"} & set(overrides):
        raise UserError("--config is missing, expected e.g. --config configs/shapes.py")
    config = load_config(options.config) if options.config else Config()
    config = override_config(config, overrides, "train.py --config PATH")
    _start()
    from frcnn_jax.training import loop

    loop.train(config)


def _start() -> None:
    """Sets up messages. JAX is imported only after this, so that --help is quick."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("frcnn_jax").setLevel(logging.INFO)


def _exit_cleanly(function: Callable[[], None]) -> None:
    try:
        function()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
