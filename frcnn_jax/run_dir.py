"""The run directory: whose config it holds, and who may continue its run."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from frcnn_jax import distributed
from frcnn_jax.config import (
    Config,
    DistributedConfig,
    Preprocessing,
    ResumeConfig,
)
from frcnn_jax.config.loading import config_from_dict, read_config, save_config
from frcnn_jax.errors import UserError
from frcnn_jax.files import os_errors_as_user_errors

# Fields that change no bit of a run's result.
_NOT_COMPARED = (
    "work_dir",
    "compilation_cache",
    "log_hardest",
    "max_to_keep",
    "resume",
    "distributed",
    "data.num_workers",
)
_COLORS = tuple(field.name for field in dataclasses.fields(Preprocessing))


def match_stored_config(config: Config) -> Config:
    """Returns the config with the preprocessing that the directory's run uses.

    Without a run there, it is the given config.

    Raises:
      UserError: if that run has another config, which `resume.allow_changes` permits.
    """
    path = Path(config.work_dir) / "config.json"
    if not path.exists():
        return config
    stored_config = read_config(path)
    if config.model.channel_order is None:
        colors = {name: getattr(stored_config.model, name) for name in _COLORS}
        model = dataclasses.replace(config.model, **colors)
        config = dataclasses.replace(config, model=model)
    changes = _differences(
        dataclasses.asdict(stored_config), dataclasses.asdict(config)
    )
    if changes and not config.resume.allow_changes:
        raise UserError(
            f"{config.work_dir} holds a run of another config "
            f"({', '.join(changes)}); choose another --work-dir, or go on with the "
            "changes by --resume.allow-changes"
        )
    return config


def write_config(config: Config) -> None:
    """Creates the run directory, if it is new, and stores the config there.

    Raises:
      UserError: if it cannot be written.
    """
    work_dir = Path(config.work_dir)
    config = dataclasses.replace(
        config, resume=ResumeConfig(), distributed=DistributedConfig()
    )
    with os_errors_as_user_errors(work_dir):
        work_dir.mkdir(parents=True, exist_ok=True)
    if distributed.is_main_process():
        save_config(config, work_dir / "config.json")


def check_processes(config: Config) -> None:
    """Checks that every process has the same config.

    Raises:
      UserError: in every process, if one has another than process 0.
    """
    first = config_from_dict(
        json.loads(distributed.broadcast_text(json.dumps(dataclasses.asdict(config)))),
        where="process 0",
    )
    changes = _differences(dataclasses.asdict(first), dataclasses.asdict(config))
    differs = distributed.gather_flags(bool(changes))
    if differs.any():
        names = ", ".join(str(index) for index, other in enumerate(differs) if other)
        listed = f" ({', '.join(changes)})" if changes else ""
        raise UserError(
            f"process {names} has another config than process 0{listed}, expected "
            "the same command for all"
        )


def _differences(
    old: dict[str, Any], new: dict[str, Any], prefix: str = ""
) -> list[str]:
    changes = []
    for name, value in new.items():
        if f"{prefix}{name}" in _NOT_COMPARED:
            continue
        if isinstance(value, dict):
            changes += _differences(old[name], value, f"{prefix}{name}.")
        elif old[name] != value:
            changes.append(f"{prefix}{name}: {old[name]} there, {value} now")
    return changes
