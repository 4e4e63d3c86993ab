"""An S3 server on loopback, and what stands between it and its clients on a bad day.

The server is moto's, with one request at a time: its check and its write of a conditional put are two steps, S3's are
one. ``Trouble`` passes requests on to it and plays a fault at some PUTs.
"""

import http.client
import logging
import threading
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

HOST = "127.0.0.1"

PASSING = ("lost", "late", "refused", "throttled", "torn")
"""What happens to one PUT: written, but the answer never arrives; written, but the answer is 500; 500 and nothing is
written; 503 and nothing is written; cut off in the middle of the upload."""

LASTING = ("expired", "silenced")
"""From one PUT on the client's credentials are worth nothing (403); or that PUT is written, its answer never arrives,
and from then on they are worth nothing."""


@contextmanager
def server() -> Iterator[int]:
    """The port of a server that runs meanwhile."""
    backend, one = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def app(environ, start_response):
        with one:
            return backend(environ, start_response)

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = make_server(HOST, 0, app, threaded=True, request_handler=_Prompt)
    with _serving(running):
        yield running.server_port


def make_bucket(port: int, name: str) -> None:
    """A new, empty bucket."""
    connection = http.client.HTTPConnection(HOST, port)
    connection.request("PUT", f"/{name}")
    assert connection.getresponse().status == 200
    connection.close()


def environment(port: int) -> dict[str, str]:
    """What a client's environment says of a server at this port."""
    return {
        "AWS_ENDPOINT_URL": f"http://{HOST}:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
    }


REFUSED = {"refused": 500, "throttled": 503, "expired": 403}


class _Prompt(MotoRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer goes out in several writes


class Trouble:
    """A server before the server: ``puts`` counts the PUTs; those whose number is in ``at`` meet ``fault``."""

    def __init__(self, behind: int):
        self.behind, self.port = behind, 0
        self.expect()

    def expect(self, fault: str = "", at: Container[int] = (), expires: int | None = None) -> None:
        """Counts from 0 again. ``expires``: after so many requests of any kind the credentials are worth nothing."""
        self.fault, self.at, self.puts, self.left = fault, at, 0, expires

    def next(self, put: bool) -> str:
        """What the next request meets."""
        met = put and self.puts in self.at
        self.puts += put
        if self.left == 0:
            return "expired"
        if self.left:
            self.left -= 1
        if met and self.fault in LASTING:
            self.left = 0
        return self.fault if met else ""

    @contextmanager
    def running(self) -> Iterator["Trouble"]:
        """Serves meanwhile."""

        class Handler(_Handler):
            behind, next = self.behind, self.next

        running = ThreadingHTTPServer((HOST, 0), Handler)
        running.daemon_threads = True
        self.port = running.server_port
        with _serving(running):
            yield self


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    behind: int
    next: Callable[[bool], str]

    def meet(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = type(self).next(self.command == "PUT")
        if fault in REFUSED:
            self._answer(REFUSED[fault], [], b"")
        elif fault == "torn":
            self._tear(body)
        else:
            status, headers, answer = self._forward(body)
            if fault == "late":
                self._answer(500, [], b"")
            elif fault in ("lost", "silenced"):
                self.close_connection = True
            else:
                self._answer(status, headers, answer)

    do_GET = do_HEAD = do_POST = do_DELETE = do_PUT = meet

    def _forward(self, body):
        connection = http.client.HTTPConnection(HOST, self.behind)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        found = answer.status, answer.getheaders(), answer.read()
        connection.close()
        return found

    def _tear(self, body):
        connection = http.client.HTTPConnection(HOST, self.behind)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            connection.putheader(name, value)
        connection.endheaders(body[: len(body) // 2])
        connection.close()
        self.close_connection = True

    def _answer(self, status, headers, body):
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("connection", "content-length", "transfer-encoding"):
                self.send_header(name, value)
        length = dict(headers).get("Content-Length", len(body)) if self.command == "HEAD" else len(body)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        with suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(body)

    def log_message(self, *args):
        """Says nothing."""


@contextmanager
def _serving(running):
    thread = threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        running.shutdown()
        running.server_close()
        thread.join()
