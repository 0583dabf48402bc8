"""Measures all on an accelerator, unattended: `python -m benchmarks.accelerator`.

Each section runs in its own process, so that one that fails, hangs or crashes does not
affect the others. What a section has measured when its time is up counts. The
table comes last; without an NVIDIA GPU everything is measured on the CPU.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.figures import Figure, format_table

# Sections in the order of their worth, and their shares of the time. What one leaves
# over is shared among those after it.
SHARES = {
    "step": 45,
    "ops": 14,
    "profile": 10,
    "inputs": 8,
    "detection": 12,
    "compilation": 14,
    "tests": 12,
}
SEPARATE = "blood_cells"  # takes minutes by itself: only if it is asked for
# For a section whose time is up to write what it has at hand.
GRACE_S = 5.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    choices = (*SHARES, SEPARATE)
    parser.add_argument("--only", nargs="+", choices=choices, help="these sections")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all of them")
    parser.add_argument("--json", type=Path, help="file for the same figures")
    parser.add_argument("--tiny", action="store_true", help="small and quick, to test")
    parser.add_argument(
        "--data",
        default=os.environ.get("FRCNN_DATA", ""),
        help="folder that has BCCD/ and vgg16/, for blood_cells and tests",
    )
    args = parser.parse_args()

    began = time.monotonic()
    sections, figures = args.only or list(SHARES), []
    if SEPARATE in sections and not args.data:
        parser.error(f"{SEPARATE} needs --data")
    with tempfile.TemporaryDirectory() as cache:
        environment = _environment(cache, args.data)
        machine = describe_machine(environment)
        for index, section in enumerate(sections):
            shares = [SHARES.get(name, 100) for name in sections[index:]]
            left = 60.0 * args.minutes - (time.monotonic() - began)
            seconds = left * shares[0] / sum(shares)
            figures += measure(section, seconds, environment, tiny=args.tiny)
            title = f"{machine}; {time.monotonic() - began:.0f} s"
            if args.json:  # now, in case that this process is killed
                rows = [figure._asdict() for figure in figures]
                content = {"machine": title, "figures": rows}
                args.json.write_text(json.dumps(content, indent=1))
    print(f"\n{title}\n\n{format_table(figures)}")


def measure(
    section: str, seconds: float, environment: dict[str, str], *, tiny: bool
) -> list[Figure]:
    """Runs a section, for at most this long, and returns its figures."""
    print(f"{section}: {seconds:.0f} s at most", flush=True)
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as output:
        command = [sys.executable, "-m", "benchmarks.sections", section]
        command += ["--output", output.name, *["--tiny"] * tiny]
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        problem = _wait(process, max(seconds - GRACE_S, 1.0))
        lines = Path(output.name).read_text().splitlines()
    figures = [Figure(**json.loads(line)) for line in lines]
    return figures + [Figure(section, "", note=problem)] * bool(problem)


def describe_machine(environment: dict[str, str]) -> str:
    """Asks a separate process, so that this one never holds the device."""
    code = "from benchmarks.timing import environment; print(environment())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE
    )
    return done.stdout.decode().strip()


def _environment(cache: str, data: str) -> dict[str, str]:
    changes = {
        "FRCNN_DATA": data,
        # Sections compile the same programs; each is slow to compile once.
        "JAX_COMPILATION_CACHE_DIR": cache,
        "TF_CPP_MIN_LOG_LEVEL": "3",  # XLA's messages would bury the rows
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # PyTorch needs memory, too
    }
    if shutil.which("nvidia-smi"):  # or JAX may fall back to the CPU silently
        changes["JAX_PLATFORMS"] = os.environ.get("JAX_PLATFORMS", "cuda,cpu")
    return os.environ | changes


def _wait(process: subprocess.Popen, seconds: float) -> str:
    """Waits for a process and ends it, with all it started; returns what went wrong."""
    try:
        code = process.wait(seconds)
        return f"ended with exit code {code}" if code else ""
    except subprocess.TimeoutExpired:
        process.terminate()  # it writes what it was at
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return "out of time, killed" if process.wait() else ""


if __name__ == "__main__":
    main()
