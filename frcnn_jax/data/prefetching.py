"""Reads batches ahead, in threads or in worker processes, through grain."""

import signal
from collections.abc import Generator

import grain
import numpy as np
from absl import flags

from frcnn_jax.data.records import Batch
from frcnn_jax.errors import UserError

# Per process, and counted in batches: grain's default would buffer 500 of them.
_NUM_THREADS = 4


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
    read_options = grain.ReadOptions(_NUM_THREADS, _NUM_THREADS)
    workers = grain.multiprocessing.MultiprocessingOptions(num_workers=num_workers)
    dataset = batches.to_iter_dataset(read_options)
    if num_workers:
        dataset = dataset.mp_prefetch(workers, _outlive_sigterm)
    return _iterate(dataset.map(_copy) if num_workers else dataset)


def _outlive_sigterm(worker_index: int, num_workers: int) -> None:
    """Ignores SIGTERM in a worker: the last steps may still need it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


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
            "data.num_workers or batch_size, or continue the run as it is"
        ) from error
    finally:
        iterator.close()


def _copy(batch: Batch) -> Batch:
    """Copies a worker's batch out of shared memory, which this frees."""
    return Batch(*map(np.array, batch))
