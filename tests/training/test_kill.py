"""A run that is killed goes on as if it had not been, to the bit."""

import subprocess
import time

from benchmarks.kills import has_logged, is_saving_after
from frcnn_jax.training import loop
from tests.helpers import runs


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
    loop.train(runs.config_in(whole))
    kill(killed, is_saving_after(4))
    assert not (killed / "evaluation.json").exists()
    kill(killed, has_logged(6))  # about to write the last one, or writing
    loop.train(runs.config_in(killed))
    runs.assert_same(killed, whole)
