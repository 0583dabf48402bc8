"""Compiles the training step without a device.

`python -m benchmarks.ahead_of_time cuda` needs no accelerator, only XLA's compiler for
one, which the extra `cuda` or `tpu` installs. It prints the memory that XLA plans for
the step of the VOC recipe; with `--out` it writes the compiled programs, too: which
kernels run, in which layouts, and what the loops repeat.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from benchmarks import training
from benchmarks.trainer import MATMUL_PRECISIONS, in_precision, matmul_precision
from frcnn_jax import distributed
from frcnn_jax.config import ModelConfig
from frcnn_jax.models.parameters import abstract_detector
from frcnn_jax.training.compilation import compile_steps

# As XLA describes an H200 to its compiler.
_H200 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 4800000000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 151397597184
  cuda_compute_capability { major: 9 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
device_description_str: "NVIDIA H200"
"""
_TOPOLOGIES: dict[str, Callable[[], topologies.TopologyDescription]] = {
    "cuda": lambda: topologies.get_topology_desc(
        "h200", "cuda", target_config=_H200, topology="1x1x1"
    ),
    "tpu": lambda: topologies.get_topology_desc("v5e:2x2", "tpu"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("platform", choices=_TOPOLOGIES, help="an H200, or a TPU v5e")
    parser.add_argument("--canvas", type=int, nargs=2, default=(608, 1008))
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 2, 8])
    parser.add_argument(
        "--precisions",
        nargs="+",
        default=["tf32", "bfloat16"],
        choices=MATMUL_PRECISIONS,
    )
    parser.add_argument("--out", type=Path, help="folder for the programs")
    args = parser.parse_args()
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"  # there is no driver
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"  # nor a TPU host's metadata
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_autotune_level=0"  # no GPU to time
    try:
        device = _TOPOLOGIES[args.platform]().devices[0]
    except (NotImplementedError, RuntimeError) as error:
        sys.exit(f"no compiler for {args.platform}: {error}; install that extra")
    if args.out:
        args.out.mkdir(exist_ok=True, parents=True)
    height, width = args.canvas
    print(f"{device.device_kind}, jax {jax.__version__}, {height} x {width}\n")
    print("| precision | batch | MiB | compiled in, s |\n|---|---:|---:|---:|")
    for precision in args.precisions:
        for batch_size in args.batch_sizes:
            began = time.perf_counter()
            step = _compile(device, (height, width), batch_size, precision)
            seconds = time.perf_counter() - began
            memory = distributed.memory_needed(step)[0] / 2**20
            row = f"| {precision} | {batch_size} | {memory:,.0f} | {seconds:.0f} |"
            print(row, flush=True)
            if args.out:
                name = f"{args.platform}-{height}x{width}-{precision}-{batch_size}.hlo"
                (args.out / name).write_text(step.as_text())


def _compile(
    device: jax.Device, canvas: tuple[int, int], batch_size: int, precision: str
) -> jax.stages.Compiled:
    """Compiles the step from the shapes of its arguments."""
    mesh = Mesh([device], (distributed.DATA_AXIS,))
    model = in_precision(ModelConfig(), precision)
    step, init = training.make_step(model, mesh)
    _, shapes = abstract_detector(model, training.NUM_CLASSES)
    state = distributed.replicated_shapes(jax.eval_shape(init, shapes), mesh)
    with matmul_precision(precision):
        return compile_steps(
            step,
            state,
            mesh,
            canvases=[canvas],
            batch_size=batch_size,
            max_objects=training.MAX_BOXES,
        )[canvas]


if __name__ == "__main__":
    main()
