"""Devices and processes: one mesh axis, over which the images of a batch are sharded.

Parameters are replicated on every device, and each device computes its share of a
batch. A single device is a mesh of one. SIGTERM, by which a scheduler announces that it
will take the machine away, is also handled here: all processes must stop together.
"""

import contextlib
import dataclasses
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from frcnn_jax.config import Config, DistributedConfig
from frcnn_jax.data.records import Batch
from frcnn_jax.errors import UserError, first_line
from frcnn_jax.files import expand_home

DATA_AXIS = "data"
REPLICATED = PartitionSpec()
BATCH_SHARDED = PartitionSpec(DATA_AXIS)

# How long the processes wait for one another to start, ...
_START_SECONDS = 300
# ... for a sign of life, and, at the end or after an error, to shut down.
_ALIVE_SECONDS = 30


def enable_compilation_cache(folder: str) -> None:
    """Caches compiled programs in a folder, if one is given, for the next start.

    A folder that JAX already has, e.g. by JAX_COMPILATION_CACHE_DIR, takes precedence.
    """
    given = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if folder and not given:
        jax.config.update("jax_compilation_cache_dir", str(expand_home(folder)))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def start_processes(config: DistributedConfig) -> None:
    """Joins the other processes, if config or environment names any, and starts JAX.

    Call this before anything else asks JAX for its devices. From here on only process 0
    logs more than errors.

    Raises:
      UserError: if a setting is missing, the others cannot be reached, or JAX has no
        device.
    """
    config = _from_environment(config)
    if not config.cluster and not config.coordinator_address:
        start_backend()
        return
    settings = {
        name: getattr(config, name)
        for name in ("coordinator_address", "num_processes", "process_id")
    }
    if not config.cluster:
        missing = [name for name, value in settings.items() if value in ("", None)]
        if missing:
            raise UserError(
                f"distributed.{missing[0]} is missing, expected with "
                f"distributed.coordinator_address {config.coordinator_address}"
            )
        settings["cluster_detection_method"] = "deactivate"
    settings["coordinator_address"] = config.coordinator_address or None
    if config.coordinator_address:
        _check_coordinator(config)
    try:
        jax.distributed.initialize(
            **settings,
            initialization_timeout=_START_SECONDS,
            heartbeat_timeout_seconds=_ALIVE_SECONDS,
            shutdown_timeout_seconds=_ALIVE_SECONDS,
        )
    except (RuntimeError, ValueError, TypeError) as error:
        raise UserError(f"distributed: {first_line(error)}") from None
    start_backend()
    if not is_main_process():
        logging.getLogger("frcnn_jax").setLevel(logging.ERROR)


def _check_coordinator(config: DistributedConfig) -> None:
    """Checks that process 0 can be reached: where it cannot, JAX aborts the process."""
    address = config.coordinator_address
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) >= 2**16:
        raise UserError(
            f"distributed.coordinator_address is {address}, expected HOST:PORT"
        )
    if config.process_id in (None, 0):
        return
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"distributed.coordinator_address {address}: no process 0 there "
                    f"within {_START_SECONDS} s ({error})"
                ) from None
        time.sleep(0.5)


def _from_environment(config: DistributedConfig) -> DistributedConfig:
    address = config.coordinator_address or os.environ.get("JAX_COORDINATOR_ADDRESS")
    changes: dict[str, Any] = {"coordinator_address": address or ""}
    for name in ("num_processes", "process_id"):
        variable = f"JAX_{name.upper()}"
        if getattr(config, name) is None and variable in os.environ:
            try:
                changes[name] = int(os.environ[variable])
            except ValueError:
                value = os.environ[variable]
                raise UserError(f"{variable} is {value!r}, expected a number") from None
    return dataclasses.replace(config, **changes)


def start_backend() -> None:
    """Starts JAX on its devices.

    Raises:
      UserError: if it has none of the platform that was asked for.
    """
    try:
        jax.devices()
    # RuntimeError, but a bare AssertionError for a GPU that is not there.
    except (RuntimeError, AssertionError) as error:
        platforms = os.environ.get("JAX_PLATFORMS", "")
        raise UserError(
            f"JAX cannot start (JAX_PLATFORMS={platforms}): {first_line(error)}"
        ) from None


def make_mesh(num_devices: int | None = None) -> Mesh:
    """Arranges devices along the data axis: those of all processes by default.

    Args:
      num_devices: take only this many, the first ones of this process.

    Raises:
      UserError: see `start_backend`.
    """
    start_backend()
    devices = None if num_devices is None else jax.local_devices()[:num_devices]
    shape = (num_devices or jax.device_count(),)
    return jax.make_mesh(
        shape, (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=devices
    )


def check_batch_size(config: Config, mesh: Mesh) -> None:
    """Checks that every device gets the same number of images.

    Args:
      config: batch size and micro-batches.
      mesh: the devices.

    Raises:
      UserError: if the batch cannot be split equally.
    """
    if config.batch_size % (config.micro_batches * mesh.size):
        raise UserError(
            f"batch_size is {config.batch_size}, expected a multiple of {mesh.size} "
            f"devices x micro_batches {config.micro_batches}"
        )


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Puts arrays on every device.

    Args:
      tree: arrays, the same in every process.
      mesh: the devices.
    """
    return multihost_utils.host_local_array_to_global_array(tree, mesh, REPLICATED)


def replicated_shapes(tree: Any, mesh: Mesh) -> Any:
    """Returns the replicated shape and dtype of each array.

    Args:
      tree: arrays, or their shapes and dtypes.
      mesh: the devices.
    """
    sharding = NamedSharding(mesh, REPLICATED)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
    )


def shard_batch(batch: Batch, mesh: Mesh) -> Batch:
    """Puts each process's rows of a batch on its devices.

    Args:
      batch: this process's rows.
      mesh: the devices of all processes.
    """
    sharding = NamedSharding(mesh, BATCH_SHARDED)
    return Batch(
        *(jax.make_array_from_process_local_data(sharding, field) for field in batch)
    )


def jit_per_image(
    function: Callable[[Any, Batch], Any], mesh: Mesh
) -> jax.stages.Wrapped:
    """Jits a function whose result for an image depends on no other image.

    Args:
      function: of arrays that all devices have, and a batch; returns arrays of [B, ..].
      mesh: the devices; each computes its own images.

    Returns:
      A function of the same arguments, a batch from `shard_batch`. It returns, on every
      device, the results of all images, their indices and their `image_mask`.
    """

    def per_image_results(shared: Any, batch: Batch) -> Any:
        results = function(shared, batch), batch.indices, batch.image_mask
        return gather_images(results)

    return jax.jit(
        jax.shard_map(
            per_image_results,
            mesh=mesh,
            in_specs=(REPLICATED, BATCH_SHARDED),
            out_specs=REPLICATED,
            check_vma=False,
        )
    )


def memory_needed(compiled: jax.stages.Compiled) -> tuple[int, int]:
    """Returns the bytes that a device needs to run a program, and its arguments'."""
    analysis = compiled.memory_analysis()
    if analysis is None:  # not every platform reports it
        return 0, 0
    arguments = analysis.argument_size_in_bytes
    outputs = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return arguments + outputs + analysis.temp_size_in_bytes, arguments


def gather_images(tree: Any) -> Any:
    """Gathers arrays of [B, ...] from all devices, inside of `jax.shard_map`."""
    return jax.tree.map(lambda x: jax.lax.all_gather(x, DATA_AXIS, tiled=True), tree)


def process_shard() -> dict[str, int]:
    """Returns this process's index and the count, as the data loader's arguments."""
    return {
        "process_index": jax.process_index(),
        "process_count": jax.process_count(),
    }


def is_main_process() -> bool:
    """Returns whether this is process 0, which writes files and messages."""
    return jax.process_index() == 0


def broadcast_text(text: str) -> str:
    """Returns process 0's text in every process; every process must call this."""
    if jax.process_count() == 1:
        return text
    content = np.frombuffer(text.encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
    padded = np.zeros(size, np.uint8)
    padded[: min(size, len(content))] = content[:size]
    return bytes(np.asarray(multihost_utils.broadcast_one_to_all(padded))).decode()


@contextlib.contextmanager
def raise_on_all_processes() -> Iterator[None]:
    """Raises in every process if one raises, so that none waits for it forever.

    No process leaves the block before all have finished it; every process must enter.

    Raises:
      UserError: the one raised inside, or one that names the process that failed.
    """
    own = None
    try:
        yield
    except UserError as error:
        own = error
    failed = np.flatnonzero(gather_flags(own is not None))
    if own is not None:
        raise own
    if failed.size:
        raise UserError(f"process {failed[0]} cannot start, see its message")


def gather_flags(flag: bool) -> np.ndarray:
    """Returns every process's flag, [P] bool; every process must call this."""
    return np.atleast_1d(multihost_utils.process_allgather(np.bool_(flag)))


def check_same(text: str, what: str) -> None:
    """Checks that all processes have the same text; every process must call this.

    Args:
      text: of this process.
      what: what a process has whose text is another one, for the error.

    Raises:
      UserError: in every process, if one has another text than process 0.
    """
    others = list_flagged(broadcast_text(text) != text)
    if others:
        raise UserError(f"process {others} has {what} than process 0")


def list_flagged(flag: bool) -> str:
    """Lists the processes whose flag is set; every process must call this.

    Returns:
      Their numbers, joined by commas, in every process; empty if there is none.
    """
    return ", ".join(map(str, np.flatnonzero(gather_flags(flag))))


def wait_for_all_processes(name: str) -> None:
    """Waits until every process has called this with the same name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def prime_preemption_sync(start_step: int) -> None:
    """Lets several processes agree on a step even if SIGTERM comes before the first.

    JAX stops after the latest step that any process asked about. Without this that
    would be the first step, which a resumed run never reaches.
    """
    if jax.process_count() > 1:
        multihost_utils.reached_preemption_sync_point(start_step)


@contextlib.contextmanager
def watch_for_preemption() -> Iterator[Callable[[int], bool]]:
    """Yields a function that returns, after each step, whether to save and stop there.

    With several processes JAX makes them agree on a step, whichever got SIGTERM. In a
    thread other than the main one, where Python handles no signals, it never stops.
    """
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    if threading.current_thread() is not threading.main_thread():
        yield lambda step: False
        return
    received = threading.Event()
    previous = signal.signal(signal.SIGTERM, lambda *_: received.set())
    try:
        yield lambda step: received.is_set()
    finally:
        signal.signal(signal.SIGTERM, previous)
