"""Static files over HTTP, for this machine alone, with the headers that the page needs."""

from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from camo import CamoError
from camo.photos.files import reason

HOST = "127.0.0.1"
POLICY = (  # no other host, no inline script; blob: is what the page itself makes of photos
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",  # these two isolate the page, which browsers ask for before they allow threads
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".onnx": "application/octet-stream",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
}


class Handler(SimpleHTTPRequestHandler):
    """Serves files of one folder, lists none, and writes no log.

    A request under another name than this machine's own is refused: a page of another site cannot read along by pointing its name here.
    """

    extensions_map = TYPES  # not the system's own table, which differs from machine to machine
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """A file."""
        if self._known_host():
            super().do_GET()

    def do_HEAD(self) -> None:
        """A file's headers."""
        if self._known_host():
            super().do_HEAD()

    def _known_host(self) -> bool:
        name = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if name in {HOST, "localhost"}:
            return True
        self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
        return False

    def list_directory(self, path: object) -> None:
        """No listings."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def end_headers(self) -> None:
        """Add the page's headers to every answer."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *args: object) -> None:
        """Nothing: the terminal is for faults."""


def server(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server for a folder, which listens already; ``serve_forever()`` runs it. Port 0 is any free one. Raises CamoError for a port in use."""
    try:
        return ThreadingHTTPServer((HOST, port), partial(Handler, directory=str(folder)))
    except OSError as error:
        raise CamoError(f"--port {port}: cannot be used ({reason(error)})") from error
