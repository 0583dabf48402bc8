"""Reads batches ahead, in threads or in worker processes, through grain."""

import atexit
import gc
import multiprocessing
import os
import signal
import threading
import time
import weakref
from collections.abc import Generator

import grain
import numpy as np
from absl import flags
from grain.multiprocessing import SharedMemoryArray

from frcnn_jax.data.records import Batch
from frcnn_jax.errors import UserError

# Per process, and counted in batches: grain's default would buffer 500 of them.
_NUM_AHEAD = 4
_MAX_THREADS = 4

# Smaller arrays come from a worker through its pipe: a block of shared memory each
# would cost more than the copy.
_MIN_SHARED_BYTES = 2**16

# The largest block from which glibc learns, see `_keep_freed_memory`.
_LEARNED_BYTES = 31 * 2**20

# Iterators with workers that still exist.
_open_iterators: weakref.WeakSet[Generator[Batch]] = weakref.WeakSet()


def read_ahead(batches: grain.MapDataset, num_workers: int) -> Generator[Batch]:
    """Iterates over batches that are read ahead, in their order.

    Args:
      batches: a data set of `Batch`, picklable if there are workers.
      num_workers: processes that read; 0 reads in threads of this one.

    Returns:
      An iterator. Its `close()` ends the processes; so does letting it go.

    Raises:
      UserError: while iterating, if a worker process died.
    """
    if not flags.FLAGS.is_parsed():
        # Grain's worker processes ask for absl's flags, which only absl.app parses.
        flags.FLAGS.mark_as_parsed()
    _keep_freed_memory()
    # More threads than cores only take one another's time and memory.
    num_threads = (os.cpu_count() or 1) // max(num_workers, 1)
    num_threads = max(1, min(num_threads, _MAX_THREADS))
    dataset = batches.to_iter_dataset(grain.ReadOptions(num_threads, _NUM_AHEAD))
    if not num_workers:
        return _iterate(dataset)
    options = grain.experimental.DatasetOptions(min_shm_size=_MIN_SHARED_BYTES)
    dataset = grain.experimental.WithOptionsIterDataset(dataset, options)
    workers = grain.multiprocessing.MultiprocessingOptions(num_workers=num_workers)
    dataset = dataset.mp_prefetch(workers, _init_worker).map(_copy)
    return _close_at_exit(_iterate(dataset))


def _init_worker(worker_index: int, num_workers: int) -> None:
    """Prepares a worker, which ends when the training process does, and not before.

    Both SIGTERM and Ctrl-C reach it, too, but the last steps may still need it.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _keep_freed_memory()


def _exit_with_parent() -> None:
    """Ends this process when its parent has ended, even by SIGKILL."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _keep_freed_memory() -> None:
    """Makes the process reuse freed memory, up to 62 MiB, instead of returning it.

    glibc gives back more than twice the largest block that it has seen freed. Fresh
    pages took a quarter of the time that an image takes.
    """
    np.empty(_LEARNED_BYTES, np.uint8)


def _iterate(dataset: grain.IterDataset) -> Generator[Batch]:
    iterator = iter(dataset)
    try:
        yield from iterator
    except RuntimeError as error:
        # Only its text distinguishes it from an error of the source.
        if "Worker process was terminated unexpectedly" not in str(error):
            raise
        raise UserError(
            "a data worker process died (killed? out of memory?); lower "
            "data.num_workers or batch_size, or resume the run unchanged"
        ) from error
    finally:
        iterator.close()


def _copy(batch: Batch) -> Batch:
    """Copies a worker's batch out of shared memory, which this frees."""
    return Batch(*map(np.array, batch))


def _close_at_exit(iterator: Generator[Batch]) -> Generator[Batch]:
    """Closes an iterator before Python exits, unless that has happened."""
    # Grain frees memory in a thread that an exit stops: let one array wait for it at a
    # time, not 50.
    SharedMemoryArray.enable_async_del(max_outstanding_requests=1)
    _open_iterators.add(iterator)
    atexit.unregister(_free_shared_memory)
    atexit.register(_free_shared_memory)
    return iterator


def _free_shared_memory() -> None:
    """Frees all shared memory: Python would report what is left as leaked."""
    for iterator in list(_open_iterators):
        iterator.close()
    gc.collect()  # An iterator at its end is part of a cycle with its last batches.
    time.sleep(0.1)  # For the thread that frees.
