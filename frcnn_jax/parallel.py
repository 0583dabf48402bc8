"""Many devices and many processes: one axis, over which the images are divided.

Parameters are on every device; each device computes its share of a batch. What is true
of one device is true of a mesh of one.
"""

import contextlib
import dataclasses
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from frcnn_jax.config import Config, DistributedConfig
from frcnn_jax.data.records import Batch
from frcnn_jax.errors import UserError

DATA_AXIS = "data"
REPLICATED = PartitionSpec()
DIVIDED = PartitionSpec(DATA_AXIS)

# How long the processes wait for one another to start, ...
_START_SECONDS = 300
# ... to show that they live, and, at the end or after an error, to end.
_ALIVE_SECONDS = 30


def start_processes(config: DistributedConfig) -> None:
    """Joins the other processes, if the config or the environment names any.

    To be called before anything else asks JAX for its devices. Only process 0 tells
    more than errors from here on.

    Raises:
      UserError: if a setting is missing or the others cannot be reached.
    """
    config = _from_environment(config)
    if not config.cluster and not config.coordinator_address:
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
        raise UserError(f"distributed: {str(error).splitlines()[0]}") from None
    if not is_first():
        logging.getLogger("frcnn_jax").setLevel(logging.ERROR)


def _check_coordinator(config: DistributedConfig) -> None:
    """Checks that process 0 can be reached: where it cannot, JAX aborts the process."""
    address = config.coordinator_address
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
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
        except (OSError, OverflowError) as error:
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


def make_mesh() -> Mesh:
    """Puts the devices of all processes in a row."""
    return jax.make_mesh(
        (jax.device_count(),), (DATA_AXIS,), axis_types=(AxisType.Auto,)
    )


def check_batch_size(config: Config, mesh: Mesh) -> None:
    """Checks that every device gets as many images as the others.

    Raises:
      UserError: if the batch cannot be divided so.
    """
    if config.batch_size % (config.micro_batches * mesh.size):
        raise UserError(
            f"batch_size is {config.batch_size}, expected a multiple of {mesh.size} "
            f"devices x micro_batches {config.micro_batches}"
        )


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Puts arrays, the same in every process, on every device."""
    return multihost_utils.host_local_array_to_global_array(tree, mesh, REPLICATED)


def replicated_shapes(tree: Any, mesh: Mesh) -> Any:
    """Makes shapes and types of arrays to those of arrays on every device."""
    sharding = NamedSharding(mesh, REPLICATED)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
    )


def divide(batch: Batch, mesh: Mesh) -> Batch:
    """Puts each process's rows of a batch on its devices."""
    sharding = NamedSharding(mesh, DIVIDED)
    return Batch(
        *(jax.make_array_from_process_local_data(sharding, field) for field in batch)
    )


def each_image(
    function: Callable[[Any, Batch], Any], mesh: Mesh
) -> Callable[[Any, Batch], tuple[Any, Array, Array]]:
    """Jits a function whose result for an image depends on no other image.

    Args:
      function: of arrays that all devices have, and a batch; returns arrays of [B, ..].
      mesh: its devices compute their own images each.

    Returns:
      A function of the same arguments, a batch from `divide`. It returns, on every
      device, the results of all images, their indices and their `image_mask`.
    """

    def told(shared: Any, batch: Batch):
        results = function(shared, batch), batch.indices, batch.image_mask
        return gather_images(results)

    specs = {"in_specs": (REPLICATED, DIVIDED), "out_specs": REPLICATED}
    return jax.jit(jax.shard_map(told, mesh=mesh, check_vma=False, **specs))


def gather_images(tree: Any) -> Any:
    """Gathers arrays of [B, ...] from all devices, inside of `jax.shard_map`."""
    return jax.tree.map(lambda x: jax.lax.all_gather(x, DATA_AXIS, tiled=True), tree)


def shard() -> dict[str, int]:
    """Names this process among all, as the functions of `data.pipeline` ask for it."""
    return {
        "process_index": jax.process_index(),
        "process_count": jax.process_count(),
    }


def is_first() -> bool:
    """Tells whether this is the process that writes files and messages."""
    return jax.process_index() == 0


def from_first(text: str) -> str:
    """Returns the text that process 0 gave; every process must call this."""
    if jax.process_count() == 1:
        return text
    content = np.frombuffer(text.encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
    padded = np.zeros(size, np.uint8)
    padded[: min(size, len(content))] = content[:size]
    return bytes(np.asarray(multihost_utils.broadcast_one_to_all(padded))).decode()


@contextlib.contextmanager
def failing_together() -> Iterator[None]:
    """Makes every process fail where one does, rather than wait for it.

    None leaves before all are through; every process must enter this.

    Raises:
      UserError: the one raised inside, or that another process raised one.
    """
    own = None
    try:
        yield
    except UserError as error:
        own = error
    failed = np.flatnonzero(gather(own is not None))
    if own is not None:
        raise own
    if failed.size:
        raise UserError(f"process {failed[0]} cannot start, see what it says")


def gather(flag: bool) -> np.ndarray:
    """Returns the flag of every process, [P] bool; every process must call this."""
    return np.atleast_1d(multihost_utils.process_allgather(np.bool_(flag)))


def wait_for_all(where: str) -> None:
    """Waits until every process is there."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(where)
