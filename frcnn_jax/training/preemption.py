"""SIGTERM, by which a scheduler announces that the machine is taken away soon."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils


def stop_after(start_step: int) -> None:
    """Lets a signal from now on, as while compiling, stop several processes in a step.

    JAX agrees on the step after the latest that any process asked for; without this
    that is the first step, which a resumed run does not come by.
    """
    if jax.process_count() > 1:
        multihost_utils.reached_preemption_sync_point(start_step)


@contextlib.contextmanager
def watch_for_preemption() -> Iterator[Callable[[int], bool]]:
    """Gives a function that tells, after each step, whether to save and stop there.

    With several processes JAX agrees on a step with them, whichever got the signal.
    """
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    received = threading.Event()
    previous = signal.signal(signal.SIGTERM, lambda *_: received.set())
    try:
        yield lambda step: received.is_set()
    finally:
        signal.signal(signal.SIGTERM, previous)
