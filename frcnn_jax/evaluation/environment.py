"""Where something was computed: versions and hardware."""

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import jax

_PACKAGES = ("frcnn_jax", "jax", "jaxlib", "flax", "optax", "numpy", "pillow")


def describe_environment() -> dict[str, Any]:
    """Returns the time, versions and devices, for JSON."""
    devices = jax.devices()
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in _PACKAGES},
        },
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "host": f"{processor_name()}, {os.cpu_count()} cores, {platform.system()}",
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # not installed, only on the path
        return "unknown"


def processor_name() -> str:
    """Names the processor; Python itself knows less on Linux."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.machine()
