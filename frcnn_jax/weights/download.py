"""Downloads files over HTTP into a cache; a file gets its name when it is complete.

A file is written as `NAME.part`, and renamed when it is complete and its SHA-256 is
the expected one. `NAME.version` holds the server's name for that version of the file,
so that a later attempt can request the rest of the same one (RFC 9110, section 13.1.5).
Other processes wait for the one that downloads.

urllib suffices for that. pooch does not resume, and requests and httpx leave all of
this to their user.
"""

import hashlib
import http.client
import logging
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import filelock
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from frcnn_jax.errors import UserError, first_line
from frcnn_jax.files import expand_home, os_errors_as_user_errors

_DEFAULT_CACHE = "~/.cache/frcnn_jax/weights"
_TIMEOUT = 60.0  # seconds without a byte
_BLOCK_SIZE = 2**20  # bytes
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")

_logger = logging.getLogger(__name__)


def download(url: str, sha256: str = "") -> Path:
    """Downloads a file, unless it is in the cache.

    The cache is the folder in the environment variable FRCNN_WEIGHTS_CACHE, by default
    `~/.cache/frcnn_jax/weights`. A partial download is kept and resumed.

    Args:
      url: `https://`. `http://` is accepted from this machine, or with a whole SHA-256;
        otherwise anyone in between could change the file.
      sha256: how the file's SHA-256 begins; empty if unknown.

    Returns:
      The file's path in the cache.

    Raises:
      UserError: if the server does not send all of it, its SHA-256 is another, or the
        cache cannot be written.
    """
    _check_url(url, sha256)
    path = _cache_path(url)
    if path.exists():
        return path
    with os_errors_as_user_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{path}.lock"):
            if not path.exists():  # another process may have been faster
                _fetch(url, path, sha256)
    return path


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_url(url: str, sha256: str) -> None:
    try:
        scheme, host = urlsplit(url).scheme, urlsplit(url).hostname
    except ValueError as error:
        raise UserError(f"{url}: {error}") from None
    is_http_enough = host in _LOCAL_HOSTS or len(sha256) == 64
    if scheme != "https" and not (scheme == "http" and is_http_enough):
        raise UserError(f"{url}: expected https://, or http:// with #sha256=...")


def _cache_path(url: str) -> Path:
    folder = expand_home(os.environ.get("FRCNN_WEIGHTS_CACHE") or _DEFAULT_CACHE)
    # Files of one name at two addresses are two files.
    prefix = hashlib.sha256(url.encode()).hexdigest()[:12]
    name = re.sub(r"[^\w.-]", "_", urlsplit(url).path.rpartition("/")[2])
    return folder / f"{prefix}-{name[-100:]}"


def _fetch(url: str, path: Path, sha256: str) -> None:
    """Downloads a file, from where the last attempt broke off, and checks it."""
    part, version = (
        path.with_name(f"{path.name}.{end}") for end in ("part", "version")
    )
    _logger.info("downloading %s", url)
    response, start = _open_rest(url, sha256, part, version)
    with response, part.open("r+b" if start else "wb") as file:
        if not start:  # the content of an older version is gone by now
            version.write_text(_version_of(response))
        file.seek(start)
        _copy(response, file, url)
    digest = file_sha256(part)
    if not digest.startswith(sha256):
        part.unlink()
        raise UserError(f"{url}: its SHA-256 is {digest}, expected {sha256}")
    os.replace(part, path)
    version.unlink()
    _logger.info("wrote %s, SHA-256 %s", path, digest)


def _open_rest(
    url: str, sha256: str, part: Path, version: Path
) -> tuple[http.client.HTTPResponse, int]:
    """Requests the rest of a file, or all of it if the server cannot send the rest.

    Args:
      url: of the file.
      sha256: how its SHA-256 begins.
      part: the beginning of the file, if it exists.
      version: what `_version_of` returned for that beginning.

    Returns:
      The response, and where in the file it begins.
    """
    known = version.read_text() if part.exists() and version.exists() else ""
    if known:
        # From the last byte on, because a whole file has no rest.
        start = max(part.stat().st_size - 1, 0)
        response = _open(url, sha256, {"Range": f"bytes={start}-", "If-Range": known})
        if response.status == 200:  # it has another version, or never sends parts
            return response, 0
        if _is_rest(response, start, known):
            return response, start
        response.close()
    return _open(url, sha256, {}), 0


def _version_of(response: http.client.HTTPResponse) -> str:
    """Returns what `If-Range` takes; empty if the server sends no version."""
    etag = response.headers.get("ETag", "")
    is_strong = etag.startswith('"')  # a weak one may stand for other bytes
    return etag if is_strong else response.headers.get("Last-Modified", "")


def _is_rest(response: http.client.HTTPResponse, start: int, version: str) -> bool:
    """Returns whether a server sent the requested part; some ignore `If-Range`."""
    headers = response.headers
    return (
        response.status == 206
        and headers.get("Content-Range", "").startswith(f"bytes {start}-")
        and version in (headers.get("ETag", version), headers.get("Last-Modified"))
    )


def _open(url: str, sha256: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    # Some servers refuse urllib by its name.
    request = urllib.request.Request(url, headers={"User-Agent": "frcnn_jax"} | headers)
    opener = urllib.request.build_opener(_CheckedRedirects(sha256))
    try:
        return opener.open(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and "Range" in headers:
            return error  # type: ignore[return-value]  # no such part; a response, too
        error.close()
        reason = first_line(error)
    except urllib.error.URLError as error:
        cause = error.reason
        reason = cause if isinstance(cause, str) else first_line(cause)
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = first_line(error)
    raise UserError(
        f"{url}: cannot be downloaded ({reason}); without a network, get the file "
        "elsewhere and give its path"
    )


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects only to where `download` may go."""

    def __init__(self, sha256: str) -> None:
        self._sha256 = sha256

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        try:
            _check_url(newurl, self._sha256)
        except UserError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _copy(response: http.client.HTTPResponse, file: IO[bytes], url: str) -> None:
    """Appends the body to a file, with a progress bar on a terminal."""
    start = file.tell()
    length = response.headers.get("Content-Length", "")
    total = start + int(length) if length.isdecimal() else None
    console = Console(stderr=True)
    columns = (
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", completed=start, total=total)
        for block in _blocks(response, url):
            file.write(block)
            bar.advance(task, len(block))
    if total is not None and file.tell() < total:
        raise UserError(_broken(url, f"after {file.tell()} of {total} bytes"))


def _blocks(response: http.client.HTTPResponse, url: str) -> Iterator[bytes]:
    try:
        # What is there, without waiting for a whole block: it may be the last.
        while block := response.read1(_BLOCK_SIZE):
            yield block
    except (OSError, http.client.HTTPException) as error:
        raise UserError(_broken(url, first_line(error))) from None


def _broken(url: str, how: str) -> str:
    return f"{url}: the connection broke ({how}); the same command resumes the download"
