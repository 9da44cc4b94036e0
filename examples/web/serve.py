"""Serves the page in this folder to the browsers of this machine, and nothing else.

python serve.py --port 8000
"""

import argparse
import base64
import contextlib
import functools
import hashlib
import os
import re
import signal
import sys
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FOLDER = Path(__file__).parent
ADDRESS = "127.0.0.1"
MOST_CONNECTIONS = 64  # at a time; a browser opens six
LONGEST = 60  # seconds that a connection may take in all
# The page, what prepare.py makes of a model, and LiteRT.js. Nothing is decoded: no such name needs it.
SERVED = re.compile(
    r"/[\w-]+\.(html|js|css)"
    r"|/site/(site\.json|[\w-][\w.-]*\.tflite|samples/[\w-]+\.png)"
    r"|/node_modules/@litertjs/[\w-]+/(dist|wasm)/[\w-]+\.(js|wasm)",
    re.ASCII,
)
# A page of another name may resolve to this address (DNS rebinding), and would read what is served.
HOST = re.compile(r"(localhost|127\.0\.0\.1)(:[0-9]+)?", re.IGNORECASE)
IMPORT_MAP = re.compile(rb'<script type="importmap">(.*?)</script>', re.DOTALL)
# Threads need a page that is cross-origin isolated, which the first two headers make it.
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


class Server(ThreadingHTTPServer):
    """A thread a connection, of which there are `MOST_CONNECTIONS`, none longer than `LONGEST`."""

    request_queue_size = 64

    def __init__(self, folder, port):
        self._begun = {}  # of every open connection, when
        self.policy = content_security_policy(folder)
        super().__init__((ADDRESS, port), functools.partial(Handler, directory=folder))

    def process_request(self, request, client_address):
        if len(self._begun) >= MOST_CONNECTIONS:
            self.shutdown_request(request)
            return
        self._begun[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        self._begun.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self):
        for request, begun in list(self._begun.items()):
            if time.monotonic() - begun > LONGEST:
                with contextlib.suppress(OSError):  # it is closed already
                    request.shutdown(2)

    def handle_error(self, request, client_address):
        error = sys.exception()
        if not isinstance(error, (ConnectionError, TimeoutError)):  # who left is told nothing
            print(f"A request failed: {error}", file=sys.stderr)


class Handler(SimpleHTTPRequestHandler):
    timeout = 10  # seconds that a client may do nothing
    extensions_map = {
        ".html": "text/html; charset=utf-8",
        ".js": "text/javascript",
        ".css": "text/css",
        ".json": "application/json",
        ".png": "image/png",
        ".wasm": "application/wasm",
        ".tflite": "application/octet-stream",
    }

    def send_head(self):
        hosts = self.headers.get_all("Host", [])
        if len(hosts) == 1 and HOST.fullmatch(hosts[0]):
            return super().send_head()
        self.send_error(421, explain=f"This page is at http://localhost:{self.server.server_port}/.")

    def translate_path(self, path):
        return served_file(self.directory, path) or ""  # no file has that name

    def end_headers(self):
        for name, value in {**HEADERS, "Content-Security-Policy": self.server.policy}.items():
            self.send_header(name, value)
        super().end_headers()

    def log_request(self, code="-", size="-"):
        pass  # errors are printed, what went well is not

    def log_error(self, format, *arguments):
        if not isinstance(arguments[0], TimeoutError):  # a browser opens connections in advance
            super().log_error(format, *arguments)


def served_file(folder, path):
    """The file that the path of a request names, or None. Links are followed to other such files only."""
    name = path.split("?")[0]
    name = "/index.html" if name == "/" else name
    if not SERVED.fullmatch(name):
        return None
    try:
        file, root = os.path.realpath(f"{folder}{name}", strict=True), os.path.realpath(folder)
    except OSError:
        return None
    found = "/" + Path(os.path.relpath(file, root)).as_posix()
    return file if SERVED.fullmatch(found) and os.path.isfile(file) else None


def content_security_policy(folder):
    """What the page may load and run: its own files, WebAssembly, and the import map in `runtime.html` by its hash."""
    import_map = IMPORT_MAP.search((Path(folder) / "runtime.html").read_bytes().replace(b"\r\n", b"\n"))[1]
    hashed = base64.b64encode(hashlib.sha256(import_map).digest()).decode()
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src 'self' 'wasm-unsafe-eval' 'sha256-{hashed}'",
            "worker-src 'self'",
            "connect-src 'self'",
            "style-src 'self'",
            "img-src 'self' blob: data:",
            "frame-src 'self'",
            "frame-ancestors 'self'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def make_server(port=0, folder=FOLDER):
    """A server of `folder` on this machine's own address; port 0 takes a free one, `server_port` says which.

    Raises:
        OSError: the port is in use, or not allowed.
    """
    return Server(folder, port)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    port = parser.parse_args().port
    if not 0 <= port <= 65535:
        parser.error(f"--port must be 0 to 65535, got {port}")
    try:
        server = make_server(port)
    except OSError as error:
        parser.error(f"--port {port} cannot be listened on: {error.strerror}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with server, contextlib.suppress(KeyboardInterrupt):
        print(f"Open http://localhost:{server.server_port}/ (Ctrl-C ends it)", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
