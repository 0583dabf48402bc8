"""A killed run continues as if nothing had happened, to the bit."""

import subprocess
import time

import pytest

from frcnn_jax.training import train
from tests.helpers import runs
from tests.helpers.run_files import has_logged, is_saving_after

pytestmark = pytest.mark.slow


def kill(folder, has_come) -> None:
    """Starts a run and kills it as soon as its folder is as awaited."""
    with subprocess.Popen(**runs.command(folder)) as process:
        try:
            while not has_come(folder):
                assert process.poll() is None, "it ended before it was to be killed"
                time.sleep(0.001)
        finally:
            process.kill()


def test_twice_killed_run_equals_the_whole_one_bit_for_bit(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train.train(runs.config_in(whole))
    kill(killed, is_saving_after(4))
    assert not (killed / "evaluation.json").exists()
    kill(killed, has_logged(6))  # about to write the last one, or writing
    train.train(runs.config_in(killed))
    runs.assert_same(killed, whole)
