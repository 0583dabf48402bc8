"""The run directory: whose config it holds, and who may continue its run."""

import contextlib
import dataclasses
import fcntl
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any

from frcnn_jax import distributed
from frcnn_jax.config import (
    Config,
    DistributedConfig,
    Preprocessing,
    ResumeConfig,
)
from frcnn_jax.config.loading import config_from_dict, read_config, save_config
from frcnn_jax.data.records import abbreviate
from frcnn_jax.errors import UserError
from frcnn_jax.files import expand_home, os_errors_as_user_errors

_LOCK = "run.lock"

# Fields that may differ between the processes of a run.
_PER_PROCESS = (
    *("work_dir", "compilation_cache", "distributed"),
    *("data.image_cache", "data.image_cache_gigabytes", "data.num_workers"),
)
# Fields that change no bit of the parameters after a step, and may change on resume.
_CHANGEABLE_ON_RESUME = (
    *_PER_PROCESS,
    *("num_steps", "num_epochs"),
    *("log_every", "log_hardest", "checkpoint_every", "max_to_keep"),
    "max_bad_steps",
    "resume",
)
_PREPROCESSING_FIELDS = tuple(field.name for field in dataclasses.fields(Preprocessing))


def match_stored_config(config: Config) -> Config:
    """Returns the config with the preprocessing that the directory's run uses.

    Without a run there, it is the given config.

    Raises:
      UserError: if that run has another config, which `resume.allow_changes` permits,
        or the directory holds something other than a run.
    """
    path = Path(config.work_dir) / "config.json"
    if not path.exists():
        _check_unused(config)
        return config
    stored_config = read_config(path)
    if config.model.channel_order is None:
        preprocessing = {
            name: getattr(stored_config.model, name) for name in _PREPROCESSING_FIELDS
        }
        model = dataclasses.replace(config.model, **preprocessing)
        config = dataclasses.replace(config, model=model)
    changes = _differences(
        dataclasses.asdict(stored_config),
        dataclasses.asdict(config),
        _CHANGEABLE_ON_RESUME,
    )
    if changes and not config.resume.allow_changes:
        raise UserError(
            f"{config.work_dir} holds a run of another config "
            f"({', '.join(changes)}); choose another --work-dir, or accept the "
            "changes with --resume.allow-changes"
        )
    return config


@contextlib.contextmanager
def locked(work_dir: Path) -> Iterator[None]:
    """Creates a run directory, if it is new, and keeps other runs out of it.

    Process 0 holds the lock. The system releases it when that process ends, killed or
    not; the file stays.

    Raises:
      UserError: if another run holds it, or the directory cannot be written.
    """
    with contextlib.ExitStack() as held:
        with distributed.raise_on_all_processes(), os_errors_as_user_errors(work_dir):
            work_dir.mkdir(parents=True, exist_ok=True)
            if distributed.is_main_process():
                _lock(held.enter_context((work_dir / _LOCK).open("a")), work_dir)
        yield


def write_config(config: Config) -> None:
    """Stores the config in its run directory.

    Raises:
      UserError: if it cannot be written.
    """
    config = dataclasses.replace(
        config, resume=ResumeConfig(), distributed=DistributedConfig()
    )
    if distributed.is_main_process():
        save_config(config, Path(config.work_dir) / "config.json")


def check_processes(config: Config) -> None:
    """Checks that every process has the same config.

    Raises:
      UserError: in every process, if one has another than process 0.
    """
    first = config_from_dict(
        json.loads(distributed.broadcast_text(json.dumps(dataclasses.asdict(config)))),
        where="process 0",
    )
    changes = _differences(
        dataclasses.asdict(first), dataclasses.asdict(config), _PER_PROCESS
    )
    others = distributed.list_flagged(bool(changes))
    if others:
        listed = f" ({', '.join(changes)})" if changes else ""
        raise UserError(
            f"process {others} has another config than process 0{listed}, expected "
            "the same command for all"
        )


def _check_unused(config: Config) -> None:
    """Checks that a directory without a config has only what a killed start leaves."""
    work_dir = Path(config.work_dir).absolute()
    if not work_dir.is_dir():
        return
    known = {"config.json.tmp", _LOCK}
    # The caches may lie there, too.
    for folder in (config.compilation_cache, config.data.image_cache):
        cache = expand_home(folder or "/").absolute()
        paths = (cache, *cache.parents)
        known |= {path.name for path in paths if path.parent == work_dir}
    with os_errors_as_user_errors(work_dir):
        others = sorted({path.name for path in work_dir.iterdir()} - known)
    if others:
        raise UserError(
            f"{config.work_dir} is not empty and holds no run ({abbreviate(others)}), "
            "expected a new --work-dir or one of an earlier run"
        )


def _lock(file: IO[str], work_dir: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{work_dir}: another process is training there") from None
    except OSError:
        pass  # a file system without locks


def _differences(
    old: dict[str, Any],
    new: dict[str, Any],
    ignored: Collection[str],
    prefix: str = "",
) -> list[str]:
    changes = []
    for name, value in new.items():
        if f"{prefix}{name}" in ignored:
            continue
        if isinstance(value, dict):
            changes += _differences(old[name], value, ignored, f"{prefix}{name}.")
        elif old[name] != value:
            changes.append(f"{prefix}{name}: {old[name]!r} -> {value!r}")
    return changes
