"""A small HTTP server on loopback that serves files from memory and misbehaves on demand."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Answer:
    """How to answer one request.

    Attributes:
        status: HTTP status; other than 200 is sent without the file.
        body: sent instead of the file.
        cut_at: hang up after this many bytes, though the header promised all.
        pause_at: after this many bytes wait for `go`.
        go: what ends the pause.
        stated: send Content-Length.
        location: where a redirect leads.
    """

    status: int = 200
    body: bytes | None = None
    cut_at: int | None = None
    pause_at: int | None = None
    go: threading.Event | None = None
    stated: bool = True
    location: str = ""


class FileServer:
    """Files by name; `answers` are used up one per request, after them all goes well; `requests` are the paths asked.

    `close` ends every pause, so that no thread outlives its test.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.answers: list[Answer] = []
        self.requests: list[str] = []
        self._pauses: list[threading.Event] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/models/"

    def close(self) -> None:
        for go in self._pauses:
            go.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # noqa: N802 - http.server's name
                server.requests.append(self.path)
                answer = server.answers.pop(0) if server.answers else Answer()
                body = server.files.get(self.path.rpartition("/")[2]) if answer.body is None else answer.body
                try:
                    self._send(answer, body)
                except ConnectionError:  # the client left, as some tests want
                    self.close_connection = True

            def _send(self, answer: Answer, body: bytes | None) -> None:
                status = answer.status if body is not None else 404
                self.send_response(status)
                if answer.location:
                    self.send_header("Location", answer.location)
                content = body if status == 200 else b"no"
                if answer.stated:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                first = answer.pause_at if answer.pause_at is not None else answer.cut_at
                self.wfile.write(content[:first])
                if answer.go is not None:
                    server._pauses.append(answer.go)
                    answer.go.wait(20)
                if answer.cut_at is None and first is not None:
                    self.wfile.write(content[first:])

            def log_message(self, *_: object) -> None:
                """Keep the tests' output clean."""

        return Handler


@contextmanager
def file_server() -> Iterator[FileServer]:
    """Run a server for the length of a block."""
    server = FileServer()
    try:
        yield server
    finally:
        server.close()


def closed_port() -> int:
    """A port of this machine on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
