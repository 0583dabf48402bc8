"""Downloads from a server on this machine that breaks off, lies or is not there."""

import functools
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from frcnn_jax.errors import UserError
from frcnn_jax.weights import download as module
from frcnn_jax.weights.download import download
from tests.helpers.file_server import serve

pytestmark = pytest.mark.usefixtures("cache")

CONTENT = np.random.default_rng(0).bytes(100_000)
OTHER = np.random.default_rng(1).bytes(100_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HALF = len(CONTENT) // 2


@pytest.fixture
def server():
    with serve(CONTENT) as server:
        yield server


def refusal(url: str, sha256: str = "") -> str:
    with pytest.raises(UserError) as error:
        download(url, sha256)
    assert "\n" not in str(error.value)
    return str(error.value)


def complete_files(cache: Path) -> list[Path]:
    """What a later call would take for a whole file."""
    return [path for path in cache.iterdir() if path.suffix == ".npz"]


def cut_off(server, after: int = HALF) -> None:
    """Downloads so many bytes, and no more."""
    server.cut_after = after
    assert f"broke (after {after} of {len(CONTENT)} bytes)" in refusal(server.url)
    server.cut_after = None


def test_file_is_downloaded_once(server, cache):
    path = download(server.url)
    assert path.read_bytes() == CONTENT
    assert path.parent == cache
    assert path.name.endswith("-weights.npz")
    assert download(server.url) == path
    assert len(server.requests) == 1
    leftovers = {each.suffix for each in cache.iterdir()} - {".npz", ".lock"}
    assert not leftovers


def test_cache_is_beside_that_of_compiled_programs_by_default(monkeypatch, tmp_path):
    monkeypatch.delenv("FRCNN_WEIGHTS_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    path = module._cache_path("https://example.com/a.npz")
    assert path.parent == tmp_path / ".cache/frcnn_jax/weights"


def test_files_of_one_name_at_two_addresses_are_two_files(server):
    first = download(f"{server.url}?version=1")
    server.content = OTHER
    second = download(f"{server.url}?version=2")
    assert (first.read_bytes(), second.read_bytes()) == (CONTENT, OTHER)


@pytest.mark.parametrize("name", ["..", ".", "", "a%2F..%2Fb", "a b", "x" * 300, "..."])
def test_no_name_leads_out_of_the_cache(name, cache):
    path = module._cache_path(f"https://example.com/{name}")
    assert path.parent == cache
    assert len(f"{path.name}.version") < 256


@pytest.mark.parametrize("after", [0, 1, 2, HALF, len(CONTENT) - 1])
def test_rest_of_a_cut_off_download_is_asked_for(after, server, cache):
    cut_off(server, after)
    assert not complete_files(cache)
    assert download(server.url, SHA256).read_bytes() == CONTENT
    assert server.requests[1]["If-Range"] == '"1"'
    assert server.requests[1]["Range"] == f"bytes={max(after - 1, 0)}-"


def test_download_may_break_off_again_and_again(server):
    server.cut_after = 10_000
    for _ in range(3):
        refusal(server.url)
    server.cut_after = None
    assert download(server.url).read_bytes() == CONTENT
    sizes = [9_999, 19_998, 29_997]
    assert [each["Range"] for each in server.requests[1:]] == [
        f"bytes={size}-" for size in sizes
    ]


def test_kill_before_the_renaming_costs_one_byte(server, cache, monkeypatch):
    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", kill)
        with pytest.raises(KeyboardInterrupt):
            download(server.url)
    assert not complete_files(cache)
    assert download(server.url).read_bytes() == CONTENT
    assert server.requests[1]["Range"] == f"bytes={len(CONTENT) - 1}-"


def test_server_without_ranges_sends_the_whole_file_again(server):
    server.has_ranges = False
    cut_off(server)
    assert download(server.url).read_bytes() == CONTENT


@pytest.mark.parametrize("heeds_if_range", [True, False])
@pytest.mark.parametrize("size", [len(OTHER), HALF + 10, 10])
def test_beginning_of_another_version_is_dropped(heeds_if_range, size, server):
    cut_off(server)
    server.heeds_if_range = heeds_if_range
    server.content, server.headers = OTHER[:size], {"ETag": '"2"'}
    assert download(server.url).read_bytes() == OTHER[:size]


@pytest.mark.parametrize(
    ("headers", "version"),
    [
        ({"Last-Modified": "Mon, 01 Jan 2018 00:00:00 GMT"}, "Mon, 01 Jan"),
        ({"ETag": 'W/"1"', "Last-Modified": "Mon, 01 Jan 2018 00:00:00 GMT"}, "Mon,"),
        ({"ETag": 'W/"1"'}, None),
        ({}, None),
    ],
    ids=["date", "weak-and-date", "weak", "none"],
)
def test_rest_is_asked_for_only_of_a_known_version(headers, version, server):
    server.headers = headers
    cut_off(server)
    assert download(server.url).read_bytes() == CONTENT
    if version is None:
        assert "Range" not in server.requests[1]
    else:
        assert server.requests[1]["If-Range"].startswith(version)
        assert server.requests[1]["Range"] == f"bytes={HALF - 1}-"


def test_length_need_not_be_known(server):
    server.sends_length = False
    assert download(server.url).read_bytes() == CONTENT


def test_progress_is_shown_on_a_terminal_only(server, monkeypatch, capsys):
    download(f"{server.url}?quiet")
    assert capsys.readouterr() == ("", "")
    terminal = functools.partial(module.Console, force_terminal=True)
    monkeypatch.setattr(module, "Console", terminal)
    download(server.url)
    assert "100.0/100.0 kB" in capsys.readouterr().err


def test_wrong_sha256_is_refused_and_nothing_kept(server, cache):
    wrong = hashlib.sha256(OTHER).hexdigest()
    message = refusal(server.url, wrong)
    assert f"its SHA-256 is {SHA256}, expected {wrong}" in message
    assert not complete_files(cache)
    assert not list(cache.glob("*.part"))
    assert download(server.url, SHA256).read_bytes() == CONTENT


def test_sha256_is_that_of_the_whole_of_a_resumed_file(server, cache):
    cut_off(server)
    (part,) = cache.glob("*.part")
    part.write_bytes(b"\0" + part.read_bytes()[1:])
    assert "its SHA-256 is" in refusal(server.url, SHA256)
    assert download(server.url, SHA256).read_bytes() == CONTENT


def test_redirect_is_followed_with_the_range(server):
    url = f"{server.url}/elsewhere"
    server.cut_after = HALF
    refusal(url)
    server.cut_after = None
    assert download(url).read_bytes() == CONTENT
    assert server.requests[-1]["Range"] == f"bytes={HALF - 1}-"


def test_redirect_in_a_circle_is_refused(server):
    server.location = url = f"{server.url}/elsewhere"
    assert "infinite loop" in refusal(url)


@pytest.mark.parametrize(
    ("location", "sha256"),
    [("http://example.com/a.npz", ""), ("ftp://example.com/a.npz", SHA256)],
)
def test_redirect_to_where_we_would_not_go_is_refused(location, sha256, server):
    server.location = location
    message = refusal(f"{server.url}/elsewhere", sha256)
    assert message.startswith(f"{location}: expected https://")


def test_address_where_anyone_could_change_the_file_is_refused():
    assert "expected https://" in refusal("http://example.com/a.npz", SHA256[:8])


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_answer_of_the_server_is_reported(status, server, cache):
    server.status = status
    assert f"HTTP Error {status}: " in refusal(server.url)
    server.status = 200
    assert download(server.url).read_bytes() == CONTENT


def test_refused_connection_names_the_way_out():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a.npz"
        message = refusal(url)
    assert "Connection refused" in message
    assert message.endswith("get the file elsewhere and give its path")


@pytest.mark.parametrize(
    "url", ["https://", "https://[::1/a", "https://a b/c", "http://localhost:x/a"]
)
def test_impossible_address_is_refused(url):
    assert refusal(url).startswith(url)


def test_server_that_falls_silent_is_left(server, monkeypatch):
    monkeypatch.setattr(module, "_TIMEOUT", 0.1)
    server.cut_after = HALF
    server.may_finish.clear()
    assert "broke (timed out)" in refusal(server.url)
    server.may_finish.set()
    server.cut_after = None
    assert download(server.url).read_bytes() == CONTENT
    assert server.requests[1]["Range"] == f"bytes={HALF - 1}-"


def test_full_disk_is_reported(server, cache):
    cache.mkdir()
    path = module._cache_path(server.url)
    part = path.with_name(f"{path.name}.part")
    part.symlink_to("/dev/full")
    message = refusal(server.url)
    assert "cannot write" in message
    assert message.endswith("No space left on device")
    part.unlink()
    assert download(server.url).read_bytes() == CONTENT


def test_cache_that_cannot_be_written_is_named(server, cache):
    cache.write_text("no folder")
    assert refusal(server.url).startswith(f"cannot write {cache}: ")


def start_process(url: str) -> subprocess.Popen:
    code = "import sys; from frcnn_jax.weights.download import download as d; "
    return subprocess.Popen([sys.executable, "-c", f"{code} d(sys.argv[1])", url])


def wait_for_part(cache: Path, size: int) -> Path:
    for _ in range(3000):
        for part in cache.glob("*.part"):
            if part.stat().st_size >= size:
                return part
        time.sleep(0.01)
    raise AssertionError("nothing was downloaded")


def test_killed_download_goes_on_where_it_stopped(server, cache):
    server.cut_after = HALF
    server.may_finish.clear()
    process = start_process(server.url)
    # Python's buffer of 8 kB is not in the file yet.
    size = wait_for_part(cache, HALF - 2**13).stat().st_size
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    server.may_finish.set()
    server.cut_after = None
    assert not complete_files(cache)
    assert download(server.url).read_bytes() == CONTENT
    assert server.requests[1]["Range"] == f"bytes={size - 1}-"


def test_several_processes_download_the_file_once(server, cache):
    server.cut_after = HALF
    server.may_finish.clear()
    processes = [start_process(server.url) for _ in range(3)]
    wait_for_part(cache, HALF - 2**13)
    time.sleep(1.0)  # for the others to arrive
    server.may_finish.set()
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert len(server.requests) == 1
    assert [path.read_bytes() for path in complete_files(cache)] == [CONTENT]
