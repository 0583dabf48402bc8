"""Fixtures for all tests."""

import os
from collections.abc import Mapping
from pathlib import Path

import jax
import pytest

_OPTIONS = {
    "jax_numpy_rank_promotion": "raise",
    "jax_default_matmul_precision": "highest",
    "jax_persistent_cache_min_compile_time_secs": 0.3,
}
_DEFAULT_DATA = Path(__file__).parents[1] / ".." / "shared" / "data"


@pytest.fixture(scope="package", autouse=True)
def _jax_options(tmp_path_factory):
    """Sets JAX's options for all of tests/, and not for the doctests of frcnn_jax/.

    What several tests compile is compiled once, through a cache that starts empty.
    """
    cache = str(tmp_path_factory.mktemp("compilation_cache"))
    options = _OPTIONS | {"jax_compilation_cache_dir": cache}
    previous = {name: getattr(jax.config, name) for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
    yield
    for name, value in previous.items():
        jax.config.update(name, value)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data sets; skips the test where it is absent."""
    root = find_data(os.environ)
    if not root.is_dir():
        pytest.skip(f"no data at {root}; set FRCNN_DATA to the folder that has BCCD")
    return root


@pytest.fixture
def compilations():
    """One entry for each time that XLA is asked for a program during the test."""
    seconds = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            seconds.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seconds
    jax.monitoring.unregister_event_duration_listener(listen)


def find_data(environment: Mapping[str, str]) -> Path:
    """Returns where the variable says that the data are; empty, it says nothing."""
    return Path(environment.get("FRCNN_DATA") or _DEFAULT_DATA).resolve()
