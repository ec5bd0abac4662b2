"""Serves the live page on this machine alone: the loopback address, GET, and no file that a path could name."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from evotext.reports import live

LOOPBACK = "127.0.0.1"


@contextmanager
def serving(pages: Mapping[str, Callable[[], str]], *, port: int) -> Iterator[str]:
    """Serve these pages, each made anew for each request, while the block runs; yield the address.

    pages: by path. port: 0 for any that is free. Raise ValueError for one that cannot be had.
    """
    lock = threading.Lock()  # one request at a time reads the runs

    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = "evotext", ""
        timeout = 10

        def do_GET(self) -> None:
            # A page elsewhere may have its own name point here (DNS rebinding); its browser says that name.
            if self.headers.get("Host") not in (f"{LOOPBACK}:{server.server_port}", f"localhost:{server.server_port}"):
                self._reply(403, "expected a request to this address itself")
                return
            page = pages.get(self.path.partition("?")[0])
            if page is None:
                self._reply(404, "no such page")
                return
            try:
                with lock:
                    text = page()
            except (OSError, ValueError) as error:
                self._reply(503, f"not yet: {error}")
                return
            self._reply(200, text, kind="text/html")

        def _reply(self, status: int, text: str, kind: str = "text/plain") -> None:
            body = text.encode("utf-8", errors="replace")
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Security-Policy", live.POLICY)
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: the terminal shows how the runs are."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Say nothing: a browser that leaves is no error."""

    try:
        server = Server((LOOPBACK, port), Handler)
    except OSError as error:
        raise ValueError(f"port: expected a free one, or 0 for any, got {port}: {error.strerror}") from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
