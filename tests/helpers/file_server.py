"""An HTTP server on this machine for one file, with the faults of real ones."""

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer(ThreadingHTTPServer):
    """Serves `content` at every path."""

    daemon_threads = False  # `server_close` waits for the answers

    def __init__(self, content: bytes) -> None:
        """Listens at a free port."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = content
        self.headers = {"ETag": '"1"'}
        self.status = 200
        self.location = ""  # where it redirects to
        self.has_ranges = True
        self.heeds_if_range = True
        self.sends_length = True
        self.cut_after: int | None = None  # bytes of an answer's body
        self.may_finish = threading.Event()  # unset, it stalls where it would cut
        self.may_finish.set()
        self.requests: list[dict[str, str]] = []  # headers

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/models/weights.npz"


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        server = self.server
        server.requests.append(dict(self.headers))
        if self.path.endswith("/elsewhere"):
            self.send_response(302)
            self.send_header("Location", server.location or server.url)
            self.end_headers()
            return
        if server.status != 200:
            self.send_error(server.status)
            return
        self._send(self._start())

    def _start(self) -> int | None:
        """The first byte that is asked for; None if all of them are."""
        server, wanted = self.server, self.headers.get("Range")
        version = self.headers.get("If-Range")
        if wanted is None or not server.has_ranges:
            return None
        if server.heeds_if_range and version not in server.headers.values():
            return None
        return int(wanted.removeprefix("bytes=").removesuffix("-"))

    def _send(self, start: int | None) -> None:
        server, size = self.server, len(self.server.content)
        if start is not None and start >= size:
            self.send_error(416)
            return
        body = server.content[start or 0 :]
        self.send_response(200 if start is None else 206)
        if start is not None:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        if server.sends_length:
            self.send_header("Content-Length", str(len(body)))
        for name, value in server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: server.cut_after])
        if not server.may_finish.is_set():
            server.may_finish.wait()
            self.wfile.write(body[server.cut_after :])

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the other side was killed
            super().handle()

    def log_message(self, *_: object) -> None:
        """Keeps the tests' output clean."""


@contextlib.contextmanager
def serve(content: bytes) -> Iterator[FileServer]:
    with FileServer(content) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.may_finish.set()
            server.shutdown()
            thread.join()
