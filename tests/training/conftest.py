"""Listening to XLA."""

import jax
import pytest


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
