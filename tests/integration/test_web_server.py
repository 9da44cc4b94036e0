"""The server of examples/web against hostile clients: raw sockets and `http.client` on a free port."""

import base64
import contextlib
import functools
import hashlib
import http.client
import importlib.util
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from conftest import REPOSITORY, started

WEB = REPOSITORY / "examples" / "web"
IMPORT_MAP = b'\n{"imports": {}}\n'
# What a browser asks for, and the type it is answered with.
SERVED = {
    "index.html": "text/html; charset=utf-8",
    "runtime.html": "text/html; charset=utf-8",
    "app.js": "text/javascript",
    "style.css": "text/css",
    "site/site.json": "application/json",
    "site/int8-full.tflite": "application/octet-stream",
    "site/samples/00.png": "image/png",
    "node_modules/@litertjs/core/dist/index.js": "text/javascript",
    "node_modules/@litertjs/core/wasm/litert_wasm_internal.wasm": "application/wasm",
}
HIDDEN = (
    "serve.py",
    "prepare.py",
    "package.json",
    ".npmrc",
    ".git/config",
    ".venv/pyvenv.cfg",
    ".env",
    ".secret.js",
    "__pycache__/serve.cpython-311.pyc",
    "node_modules/.package-lock.json",
    "node_modules/@litertjs/core/package.json",
    "node_modules/@litertjs/core/dist/index.js.map",
    "node_modules/other/dist/index.js",
    "site/notes.txt",
    "site/.hidden.tflite",
    "site/samples/photo.svg",
)


@pytest.fixture
def folder(tmp_path):
    """A folder like examples/web, with what must not be seen in it and beside it."""
    folder = tmp_path / "web"
    for name in (*SERVED, *HIDDEN):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(f"content of {name}".encode())
    (folder / "runtime.html").write_bytes(b'<script type="importmap">' + IMPORT_MAP + b"</script>")
    shutil.copy(WEB / "serve.py", folder)
    (tmp_path / "outside.js").write_text("outside")
    return folder


@pytest.fixture
def serve():
    """The module serve.py, loaded anew so that its constants can be changed."""
    spec = importlib.util.spec_from_file_location("serve_for_test", WEB / "serve.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def port(serve, folder):
    """The port of a server of `folder` in this process."""
    with running(serve, folder) as port:
        yield port


@contextlib.contextmanager
def running(serve, folder):
    server = serve.make_server(0, folder)
    thread = threading.Thread(target=functools.partial(server.serve_forever, poll_interval=0.05))
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def process(folder):
    """`serve.py` in a process of its own, and the port that it prints."""
    command = [sys.executable, folder / "serve.py", "--port", "0"]
    with started(command, stderr=subprocess.PIPE, text=True) as process:
        yield process, int(process.stdout.readline().split(":")[2].split("/")[0])


def ask(port, path, method="GET", **headers):
    """The status, headers and body of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, headers=headers)
    reply = connection.getresponse()
    found = reply.status, reply.headers, reply.read()
    connection.close()
    return found


def say(port, request):
    """Everything that the server answers to these bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def raw(port, target, host=b"localhost"):
    """The status of a request whose target no library touches."""
    reply = say(port, b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    return int(reply.split()[1]), reply


# What is served


@pytest.mark.parametrize("path", ["", *SERVED])
def test_what_the_page_needs_is_served(path, port, folder):
    status, headers, body = ask(port, f"/{path}")
    assert status == 200 and body == (folder / (path or "index.html")).read_bytes()
    assert headers["Content-Type"] == SERVED[path or "index.html"]


def test_every_file_of_the_page_is_served(serve):
    """The real folder: what the HTML and the scripts refer to."""
    names = [path.name for path in WEB.iterdir() if path.suffix in (".html", ".js", ".css")]
    with running(serve, WEB) as port:
        assert {"index.html", "runtime.html", "app.js", "style.css"} <= set(names)
        assert [name for name in names if ask(port, f"/{name}")[0] != 200] == []


@pytest.mark.parametrize("path", HIDDEN)
def test_other_files_are_not_served(path, port):
    assert raw(port, b"/" + path.encode())[0] == 404


FOLDERS = (b"/site", b"/site/", b"/site/samples/", b"/node_modules/", b"/node_modules/@litertjs/core/wasm/", b"/.git/")
WAYS_OUT = (
    b"/../outside.js",
    b"/site/../../outside.js",
    b"/site/../serve.py",
    b"/%2e%2e/outside.js",
    b"/..%2foutside.js",
    b"/%2e%2e%2foutside.js",
    b"/%252e%252e%252foutside.js",
    b"/..\\outside.js",
    b"/..%5coutside.js",
    b"/site\\..\\serve.py",
    b"/serve.py%00.js",
    b"/serve.py\x00.js",
    b"/%73erve.py",
    b"/Serve.py",
    b"/serve.py/",
    b"/serve.py;.js",
    b"/serve.py?x=.js",
    b"/serve.py#.js",
    b"//serve.py",
    b"/./serve.py",
    b"/app.js/../serve.py",
    b"/\xff\xfe.js",
    b"/con.js",
    b"file:///etc/passwd",
    b"http://localhost/serve.py",
    b"*",
    b"app.js",
    b"/" + b"a" * 5000 + b".js",
    b"/" + b"a.js/" * 1000,
)


@pytest.mark.parametrize("path", [*FOLDERS, *WAYS_OUT])
def test_no_path_lists_a_folder_or_leads_out(path, port):
    status, reply = raw(port, path)
    assert status in (400, 404) and b"content of" not in reply and b"outside</" not in reply


def test_links_lead_neither_out_nor_to_what_is_hidden(port, folder, tmp_path):
    (folder / "out.js").symlink_to(tmp_path / "outside.js")
    (folder / "hidden.js").symlink_to(folder / "serve.py")
    (folder / "circle.js").symlink_to(folder / "circle.js")
    (folder / "dangling.js").symlink_to(folder / "none.js")
    shutil.rmtree(folder / "site")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "site.json").write_text("outside")
    (folder / "site").symlink_to(tmp_path / "elsewhere")
    for path in ("out.js", "hidden.js", "circle.js", "dangling.js", "site/site.json"):
        assert ask(port, f"/{path}")[0] == 404, path
    (folder / "inside.js").symlink_to(folder / "app.js")
    assert ask(port, "/inside.js")[2] == b"content of app.js"


def test_a_pipe_and_a_folder_with_the_name_of_a_file_are_no_file(port, folder):
    (folder / "folder.js").mkdir()
    subprocess.run(["mkfifo", folder / "pipe.js"], check=True)
    assert ask(port, "/folder.js")[0] == ask(port, "/pipe.js")[0] == 404


# Headers


@pytest.mark.parametrize("path, status", [("/", 200), ("/app.js", 200), ("/serve.py", 404)])
def test_every_reply_has_the_headers_that_protect_it(path, status, port):
    found, headers, _ = ask(port, path)
    assert found == status
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'" and "'unsafe-inline'" not in str(policy)
    hashed = base64.b64encode(hashlib.sha256(IMPORT_MAP).digest()).decode()
    assert policy["script-src"] == f"'self' 'wasm-unsafe-eval' 'sha256-{hashed}'"
    assert not any("*" in allowed or "http" in allowed for allowed in policy.values())


HOSTS = {
    b"localhost": 200,
    b"LocalHost:8000": 200,
    b"127.0.0.1:81": 200,
    b"evil.example": 421,
    b"evil.example:8000": 421,
    b"localhost.evil.example": 421,
    b"127.0.0.1.evil.example": 421,
    b"evil.example@localhost": 421,
    b"localhost@evil.example": 421,
    b"localhost:8000:evil": 421,
    b"localhost, evil.example": 421,
    b"192.168.0.1": 421,
    b"[::]": 421,
    b"": 421,
}


@pytest.mark.parametrize("host", HOSTS)
def test_only_this_machine_s_names_are_answered(host, port):
    """A page of another name that resolves here (DNS rebinding) would read what this one serves."""
    assert raw(port, b"/app.js", host)[0] == HOSTS[host]


def test_one_host_is_named(port):
    assert b" 421 " in say(port, b"GET /app.js HTTP/1.1\r\n\r\n")
    twice = b"GET /app.js HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"
    assert b" 421 " in say(port, twice)
    assert b"content of" not in say(port, b"GET /app.js\r\n\r\n")


# Methods and requests


def test_methods(port):
    status, headers, body = ask(port, "/app.js", "HEAD")
    assert (status, body, headers["Content-Length"]) == (200, b"", str(len("content of app.js")))
    assert ask(port, "/serve.py", "HEAD")[0] == 404 and ask(port, "/app.js", "HEAD", Host="evil.example")[0] == 421
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "BREW", "get"):
        status, _, body = ask(port, "/app.js", method)
        assert status == 501 and b"content of" not in body, method


def test_a_range_is_answered_with_the_whole_file(port):
    """Nothing of the page asks for a part."""
    status, headers, body = ask(port, "/app.js", Range="bytes=0-3")
    assert (status, body) == (200, b"content of app.js") and "Content-Range" not in headers


def test_hostile_requests_are_refused_and_the_server_goes_on(port):
    long = b"x" * 100_000
    host = b"Host: localhost\r\n"
    for request, status in (
        (b"GET /" + long + b" HTTP/1.1\r\n" + host + b"\r\n", 414),
        (b"GET /app.js HTTP/1.1\r\n" + host + b"X: " + long + b"\r\n\r\n", 431),
        (b"GET /app.js HTTP/1.1\r\n" + host + b"X: y\r\n" * 1000 + b"\r\n", 431),
        (b"GET /app.js HTTP/9.9\r\n" + host + b"\r\n", 505),
        (b"GET /app.js FTP/1.1\r\n" + host + b"\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),  # TLS
        (b"a b c d e\r\n\r\n", 400),
    ):
        assert b"%d" % status in say(port, request)[:1000], request[:40]
    assert say(port, b"\r\n") == b""
    assert ask(port, "/app.js")[0] == 200


# Slow and many clients


def test_a_client_that_says_nothing_or_half_a_line_is_left(serve, folder):
    serve.Handler.timeout = 0.3
    with running(serve, folder) as port:
        for begun in (b"", b"GET /app.js HT", b"GET /app.js HTTP/1.1\r\nHost: loc"):
            say(port, begun)  # returns when the server closes
        assert ask(port, "/app.js")[0] == 200


def test_a_client_that_says_a_byte_at_a_time_is_left(serve, folder):
    serve.LONGEST = 0.5
    with running(serve, folder) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(b"GET /app.js HTTP/1.1\r\nX: ")
        with pytest.raises(ConnectionError):
            while True:
                connection.sendall(b"y")
                time.sleep(0.02)


def test_a_client_that_does_not_read_is_left(serve, folder):
    """What it asked for is larger than what the sockets hold."""
    serve.LONGEST = 3
    with open(folder / "site" / "large.tflite", "wb") as file:
        file.truncate(64 << 20)
    with running(serve, folder) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        before = threading.active_count()
        connection.sendall(b"GET /site/large.tflite HTTP/1.1\r\nHost: localhost\r\n\r\n")
        _wait(lambda: threading.active_count() > before)
        _wait(lambda: threading.active_count() <= before)


@pytest.mark.long
def test_a_thousand_idle_connections(serve, folder):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    serve.Handler.timeout = 1.0
    try:
        with running(serve, folder) as port, contextlib.ExitStack() as idle:
            before, most = threading.active_count(), 0
            for _ in range(1000):
                idle.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
                most = max(most, threading.active_count() - before)
            assert 0 < most <= serve.MOST_CONNECTIONS
            _wait(lambda: threading.active_count() == before)
            assert ask(port, "/app.js")[0] == 200
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _wait(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


# The command


def test_it_listens_on_this_machine_alone(serve, folder):
    with serve.make_server(0, folder) as server:
        assert server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_without_a_word(ending, process):
    server, port = process
    with socket.create_connection(("127.0.0.1", port), timeout=20):  # an open connection holds nothing up
        assert ask(port, "/app.js")[0] == 200
        server.send_signal(ending)
        assert server.wait(20) == 0
    assert server.stderr.read() == ""


def test_clients_that_leave_in_the_middle_print_nothing(process, folder):
    server, port = process
    with open(folder / "site" / "large.tflite", "wb") as file:
        file.truncate(64 << 20)
    for begun in (b"", b"GET /app.js HT", b"GET /site/large.tflite HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(begun)
            if begun.endswith(b"\n"):
                connection.recv(100)
            linger = (1).to_bytes(4, sys.byteorder) + bytes(4)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)  # the client resets the connection
    assert ask(port, "/app.js")[0] == 200
    server.send_signal(signal.SIGTERM)
    assert server.wait(20) == 0 and server.stderr.read() == ""


def test_a_port_that_cannot_be_had_gets_one_sentence(process, folder):
    _, used = process
    for port, sentence in (
        (used, f"--port {used} cannot be listened on: Address already in use"),
        (70000, "--port must be 0 to 65535, got 70000"),
        (-1, "--port must be 0 to 65535, got -1"),
        ("x", "--port: invalid int value: 'x'"),
    ):
        command = [sys.executable, folder / "serve.py", "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        assert done.returncode == 2 and sentence in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


def test_a_terminal_is_not_written_to_by_a_path(process):
    server, port = process
    raw(port, b"/\x1b[31mred\x07.js")
    raw(port, b"/none.js")
    server.send_signal(signal.SIGTERM)
    said = server.communicate()[1]
    assert "\x1b" not in said and "\x07" not in said and len(said.splitlines()) <= 2
