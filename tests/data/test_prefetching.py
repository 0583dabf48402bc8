"""Worker processes that die, and errors that are the source's own."""

import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from frcnn_jax.config import DataConfig
from frcnn_jax.data.loader import evaluation_batches
from frcnn_jax.errors import UserError
from tests.helpers.batches import train_batches
from tests.helpers.sized import SizedSource

ROOT = Path(__file__).parents[2]
ONE_WORKER = DataConfig(
    shorter_side=16, longer_side=16, canvases=((16, 16),), max_objects=1, num_workers=1
)
TWO_WORKERS = dataclasses.replace(ONE_WORKER, num_workers=2)


class FailingSource(SizedSource):
    """A source with an error in its code."""

    def read_image(self, index):
        raise RuntimeError("bug in a source")


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_killed_worker_is_one_clear_line_within_seconds(num_workers):
    others = set(multiprocessing.active_children())
    source = SizedSource([(16, 16)] * 5)
    config = dataclasses.replace(ONE_WORKER, num_workers=num_workers)
    batches = train_batches(source, config, batch_size=2, seed=0)
    next(batches)
    workers = set(multiprocessing.active_children()) - others
    assert len(workers) == num_workers
    os.kill(workers.pop().pid, signal.SIGKILL)
    start = time.monotonic()
    with pytest.raises(UserError, match=r"worker process died.*num_workers") as error:
        list(itertools.islice(batches, 100))  # What was read before may still come.
    assert time.monotonic() - start < 20.0
    assert "\n" not in str(error.value)
    assert not set(multiprocessing.active_children()) - others


def test_sigterm_leaves_the_workers_to_the_run():
    others = set(multiprocessing.active_children())
    batches = train_batches(
        SizedSource([(16, 16)] * 5), ONE_WORKER, batch_size=2, seed=0
    )
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - others
    os.kill(worker.pid, signal.SIGTERM)
    assert len(list(itertools.islice(batches, 100))) == 100
    assert worker.is_alive()
    batches.close()
    assert not worker.is_alive()


# Has read a batch from each worker, says so, and waits. Background jobs of a shell
# ignore Ctrl-C, and so would the script.
WAITING_SCRIPT = """
import signal
import time
from tests.data.test_prefetching import TWO_WORKERS
from tests.helpers.batches import train_batches
from tests.helpers.sized import SizedSource

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    source = SizedSource([(8, 8)] * 5)
    batches = train_batches(source, TWO_WORKERS, batch_size=2, seed=0)
    next(batches), next(batches)
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_a_killed_process_and_say_nothing(tmp_path, signal_number):
    (tmp_path / "script.py").write_text(WAITING_SCRIPT)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "script.py"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout.readline() == "ready\n"
        if signal_number == signal.SIGINT:
            os.killpg(process.pid, signal_number)  # as the terminal does
        else:
            process.send_signal(signal_number)
        # It returns when the last process that may write to the pipes has ended.
        _, errors = process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    # The script's own traceback after Ctrl-C is the only one.
    assert errors.count("Traceback") == (signal_number == signal.SIGINT)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_runtime_error_of_the_source_stays_what_it_is(num_workers):
    source = FailingSource([(16, 16)] * 2)
    config = dataclasses.replace(ONE_WORKER, num_workers=num_workers)
    batches = evaluation_batches(source, config, batch_size=2)
    with pytest.raises(RuntimeError, match="bug in a source"):
        next(batches)


def test_closing_ends_the_workers():
    others = set(multiprocessing.active_children())
    source = SizedSource([(16, 16)] * 20)
    batches = evaluation_batches(source, ONE_WORKER, batch_size=2)
    next(batches)
    assert set(multiprocessing.active_children()) - others
    batches.close()
    assert not set(multiprocessing.active_children()) - others


def test_letting_go_ends_the_workers():
    others = set(multiprocessing.active_children())
    source = SizedSource([(16, 16)] * 20)
    batches = evaluation_batches(source, ONE_WORKER, batch_size=2)
    next(batches)
    del batches
    assert not set(multiprocessing.active_children()) - others


# One iterator is read to its end, another is left open.
SCRIPT = """
import itertools
from frcnn_jax.data.loader import evaluation_batches
from tests.data.test_prefetching import TWO_WORKERS
from tests.helpers.batches import train_batches
from tests.helpers.sized import SizedSource

if __name__ == "__main__":
    source = SizedSource([(8, 8)] * 20)
    whole = list(evaluation_batches(source, TWO_WORKERS, batch_size=2))
    open_end = train_batches(source, TWO_WORKERS, batch_size=2, seed=0)
    print(len(whole), len(list(itertools.islice(open_end, 3))))
"""


def test_a_process_with_workers_exits_silently(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, script],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("10 3\n", "")
