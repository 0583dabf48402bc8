"""Many processes, and many devices, make the run that one of them makes.

The processes are real ones on this machine; with little optimization, so that they
compile quickly.
"""

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from frcnn_jax import distributed
from frcnn_jax.config import Config, DistributedConfig
from frcnn_jax.errors import UserError
from frcnn_jax.weights.checkpoints import read_checkpoint
from tests.helpers.run_files import TIMES, read_rows

ROOT = Path(__file__).parents[2]
MINUTES = 60.0

pytestmark = pytest.mark.slow

# More detections than tests.tiny has, so that some of them are right so early.
CONFIG = """
import dataclasses
from frcnn_jax.config import DetectionConfig
from tests.helpers import tiny

def get_config():
    data = dataclasses.replace(tiny.DATA, validation_split="test")
    detection = DetectionConfig(score_threshold=0.0, max_detections=50)
    model = dataclasses.replace(tiny.MODEL, detection=detection)
    changes = {"num_steps": 5, "checkpoint_every": 3, "log_every": 1}
    return dataclasses.replace(tiny.CONFIG, data=data, model=model, **changes)
"""


class Commands:
    """Starts commands as users do, each of which may be several processes."""

    def __init__(self, folder: Path) -> None:
        """Keeps what is compiled, and the config file, in the folder."""
        self.folder = folder
        self._environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
            "PYTHONPATH": str(ROOT),
        }
        (folder / "config.py").write_text(CONFIG)

    def start(self, *arguments: str, num_devices: int = 1, **environment: str):
        """Starts one process of Python."""
        flags = f"--xla_force_host_platform_device_count={num_devices}"
        quick = "--xla_backend_optimization_level=0"
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=self._environment | {"XLA_FLAGS": f"{flags} {quick}"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def start_two(self, *arguments: str, num_devices: int = 1):
        """Starts two processes, which know of each other by their environment."""
        return [
            self.start(*arguments, num_devices=num_devices, **settings)
            for settings in two_settings()
        ]

    def train(self, work_dir: str, *arguments: str) -> list[str]:
        """The arguments of a training command."""
        config, work_dir = self.folder / "config.py", self.folder / work_dir
        files = ["--config", str(config), "--work-dir", str(work_dir)]
        return ["train.py", *files, *arguments]


def two_settings() -> list[dict[str, str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    both = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    return [both | {"JAX_PROCESS_ID": str(index)} for index in range(2)]


def as_flags(settings: dict[str, str]) -> list[str]:
    """Turns variables of the environment into the flags of the same meaning."""
    flags = []
    for name, value in settings.items():
        field = name.removeprefix("JAX_").lower().replace("_", "-")
        flags += [f"--distributed.{field}", value]
    return flags


def end(*processes, code: int = 0) -> list[tuple[str, str]]:
    """Waits for processes; returns what each wrote to its output and its errors."""
    try:
        written = [process.communicate(timeout=5 * MINUTES) for process in processes]
    finally:
        for process in processes:
            process.kill()
    codes = [process.returncode for process in processes]
    assert codes == [code] * len(processes), written
    return written


def wait_until(condition, process) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def rows_without_times(work_dir: Path) -> list[dict[str, float]]:
    rows = read_rows(work_dir)
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def steps_in(work_dir: Path) -> list[int]:
    names = [path.name for path in (work_dir / "checkpoints").iterdir()]
    return sorted(int(name) for name in names if name.isdecimal())


def read_evaluation(work_dir: Path) -> dict:
    return json.loads((work_dir / "evaluation.json").read_text())


def assert_same_but_for_rounding(evaluation: dict, expected: dict) -> None:
    """Compares evaluations; scores, and what is made from them, may be rounded."""
    for name in ("split", "num_images", "step", "detector", "detection"):
        assert evaluation.pop(name) == expected.pop(name)
    # Not that of the detector, whose parameters may be rounded.
    fingerprints = [each.pop("fingerprints")["data"] for each in (evaluation, expected)]
    assert fingerprints[0] == fingerprints[1]
    for name in ("voc07_map", "area_map", "coco"):
        assert evaluation[name] == expected[name]
    assert flatten(evaluation) == pytest.approx(
        flatten(expected), rel=1e-3, abs=1e-5, nan_ok=True
    )


def flatten(value, path: str = "") -> dict:
    """Lists the values of nested dictionaries and lists by their path."""
    if not isinstance(value, dict | list):
        return {path: math.nan if value is None else value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    parts = [flatten(item, f"{path}/{name}") for name, item in items]
    return {name: each for part in parts for name, each in part.items()}


@pytest.fixture(scope="module")
def commands(tmp_path_factory) -> Commands:
    return Commands(tmp_path_factory.mktemp("processes"))


@pytest.fixture(scope="module")
def whole(commands) -> Path:
    """The run of one process on one device."""
    end(commands.start(*commands.train("whole")))
    return commands.folder / "whole"


@pytest.fixture(scope="module")
def shared(commands) -> tuple[Path, list, list]:
    """The run of two: one gets SIGTERM, then the same command continues.

    The run directory, what the stopped ones wrote, what the others wrote.
    """
    work_dir = commands.folder / "shared"
    stopped = [
        commands.start(*commands.train("shared", *as_flags(settings)))
        for settings in two_settings()
    ]
    wait_until((work_dir / "config.json").exists, stopped[0])
    stopped[1].send_signal(signal.SIGTERM)
    first = end(*stopped)
    assert steps_in(work_dir) == [1]
    return work_dir, first, end(*commands.start_two(*commands.train("shared")))


def test_sigterm_to_one_process_saves_and_ends_both(shared):
    _, written, _ = shared
    assert "saved step 1" in written[0][1]


def test_two_processes_make_the_run_of_one(whole, shared):
    work_dir, _, _ = shared
    rows, expected_rows = map(rows_without_times, (work_dir, whole))
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    for row, expected in zip(rows, expected_rows, strict=True):
        assert row == pytest.approx(expected, rel=1e-4, abs=1e-6)
    params = read_checkpoint(work_dir).arrays
    for name, expected in read_checkpoint(whole).arrays.items():
        np.testing.assert_allclose(params[name], expected, rtol=1e-3, atol=1e-5)
    assert_same_but_for_rounding(*map(read_evaluation, (work_dir, whole)))
    assert read_evaluation(whole)["voc07_map"] > 0.0


def test_only_the_first_process_prints_and_logs(shared):
    _, *runs = shared
    for (printed, messages), (others, other_messages) in runs:
        assert "step " in printed
        assert "compiled in" in messages
        # What JAX itself says has its own marks.
        assert not [line for line in others.splitlines() if "[Gloo]" not in line]
        assert "compiled in" not in other_messages
        assert "SIGTERM;" not in other_messages


def test_processes_and_devices_share_an_evaluation(commands, whole, tmp_path):
    copy = shutil.copytree(whole, tmp_path / "copy")
    (copy / "evaluation.json").unlink()
    main = "from frcnn_jax import cli; cli.main()"
    arguments = ["-c", main, "evaluate", "--work-dir", str(copy)]
    end(*commands.start_two(*arguments, num_devices=4))
    assert_same_but_for_rounding(*map(read_evaluation, (copy, whole)))


def test_run_of_eight_devices_is_continued_and_read_by_one(commands):
    for step in ("2", "3"):
        arguments = commands.train("eight", "--batch-size", "8", "--num-steps", step)
        end(commands.start(*arguments, num_devices=8))
    work_dir = commands.folder / "eight"
    assert [row["step"] for row in read_rows(work_dir)] == [1, 2, 3]
    assert jax.device_count() == 1
    read_checkpoint(work_dir)


def test_processes_of_different_configs_are_refused(commands, tmp_path):
    arguments = commands.train("refused")
    # XLA may log lines of its own where it finds a program in the cache.
    fresh = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path)}
    processes = [
        commands.start(*arguments, "--seed", str(index), **settings, **fresh)
        for index, settings in enumerate(two_settings())
    ]
    for _, errors in end(*processes, code=2):
        assert "process 1 has another config than process 0" in errors
        assert errors.count("\n") == 1
    assert "seed: 0 -> 1" in errors
    assert not (commands.folder / "refused").exists()


def in_two(commands: Commands, program: str):
    """Starts two processes that run a function between joining and ending."""
    begin = "from frcnn_jax import cli, distributed; import os, signal, sys"
    join = "distributed.start_processes(cli.Config().distributed)"
    return commands.start_two("-c", f"{begin}\n{join}\n{program}")


def test_mistake_in_one_process_ends_both(commands):
    program = """
def function():
    with distributed.raise_on_all_processes():
        if not distributed.is_main_process():
            raise cli.UserError("no such folder")
cli._exit_cleanly(function)
"""
    (_, other), (_, own) = end(*in_two(commands, program), code=2)
    assert own == "error: no such folder\n"
    assert other == "error: process 1 cannot start, see its message\n"


@pytest.mark.parametrize("killed", [0, 1])
def test_processes_do_not_wait_for_a_killed_one(commands, killed):
    program = f"""
distributed.wait_for_all_processes("here")
if int(os.environ["JAX_PROCESS_ID"]) == {killed}:
    os.kill(os.getpid(), signal.SIGKILL)
distributed.wait_for_all_processes("there")
"""
    processes = in_two(commands, program)
    began = time.monotonic()
    for process in processes:
        process.communicate(timeout=2 * MINUTES)
        assert process.returncode != 0
    assert time.monotonic() - began < 1.5 * MINUTES


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"JAX_NUM_PROCESSES": "2"}, "process_id is missing"),
        ({"JAX_PROCESS_ID": "1"}, "num_processes is missing"),
        ({"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES is 'two'"),
        (
            {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"},
            "no process 0 there within 0 s",
        ),
        *(
            (
                {
                    "JAX_COORDINATOR_ADDRESS": address,
                    "JAX_NUM_PROCESSES": "2",
                    "JAX_PROCESS_ID": "0",
                },
                f"coordinator_address is {address}, expected HOST:PORT",
            )
            for address in ("here", "here:99999")
        ),
    ],
)
def test_settings_without_sense_are_named(settings, message, monkeypatch):
    nowhere = two_settings()[0]["JAX_COORDINATOR_ADDRESS"]
    for name, value in ({"JAX_COORDINATOR_ADDRESS": nowhere} | settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "_START_SECONDS", 0)
    with pytest.raises(UserError, match=message):
        distributed.start_processes(DistributedConfig())


@pytest.mark.parametrize(("batch_size", "micro_batches"), [(4, 1), (12, 1), (8, 2)])
def test_batch_that_devices_cannot_share_is_refused(batch_size, micro_batches):
    config = Config(batch_size=batch_size, micro_batches=micro_batches)
    mesh = AbstractMesh((8,), (distributed.DATA_AXIS,))
    with pytest.raises(UserError, match=rf"is {batch_size}, .* multiple of 8 devices"):
        distributed.check_batch_size(config, mesh)
