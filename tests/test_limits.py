"""Limits: what a client may send, how long it may take, and how many there may be."""

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import psutil
import pytest

from litestar_app.http.clients import get_network
from litestar_app.server import protocol
from litestar_app.server.protocol import MAX_PIPELINED, MAX_REFUSED, Connections, LimitedProtocol, Limits
from tests.service import ANANYA, Service, serve_app

Send = Callable[[dict[str, Any]], Any]
SHORT = Limits(head_timeout=0.4, body_timeout=0.4, send_timeout=0.4, interval=0.05)
LONG = Limits(interval=0.05)
HOST = b"Host: x\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST
POST = b"POST / HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
PROBLEM = "application/problem+json"


class Application:
    """Echoes bodies; `/wait` waits before it reads, `/late` before it sends one.

    `/flood` sends without an end, `/large` sends much at once.
    """

    def __init__(self) -> None:
        self.log: list[str] = []
        self.scopes: list[dict[str, Any]] = []
        self.go_on = False

    async def __call__(self, scope: dict[str, Any], receive: Callable[[], Any], send: Send) -> None:
        self.scopes.append(scope)
        self.log.append(scope["path"])
        if scope["path"] == "/wait":
            await self._wait()
        body = b"" if scope["path"] == "/ignore" else await self._read(receive)
        if scope["path"] == "/large":
            body = bytes(32 * 1024 * 1024)
        is_flood = scope["path"] == "/flood"
        fields = [] if is_flood else [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        if scope["path"] == "/late":
            await self._wait()
        if is_flood:
            flooding = asyncio.ensure_future(self._flood(send))
            assert (await receive())["type"] == "http.disconnect"
            flooding.cancel()
        await send({"type": "http.response.body", "body": body})
        self.log.append(f"{scope['path']} done")

    async def _wait(self) -> None:
        while not self.go_on:  # noqa: ASYNC110  another thread says so
            await asyncio.sleep(0.01)

    async def _read(self, receive: Callable[[], Any]) -> bytes:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.log.append("disconnected")
            body, more = body + message.get("body", b""), message.get("more_body", False)
        return body

    async def _flood(self, send: Send) -> None:
        while True:
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})


class Client:
    """A connection on which anything can be sent."""

    def __init__(self, port: int, address: str = "127.0.0.1") -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.bind((address, 0))
        self.socket.settimeout(60)
        self.socket.connect(("127.0.0.1", port))
        self.file = self.socket.makefile("rb")

    def send(self, *parts: bytes) -> "Client":
        for part in parts:
            self.socket.sendall(part)
            time.sleep(0.01 if len(parts) > 1 else 0)
        return self

    def receive(self, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        """Receive one response of several, all with a Content-Length."""
        status = int(self.file.readline().split()[1])
        fields = {}
        while line := self.file.readline().strip().decode():
            name, _, value = line.partition(": ")
            fields[name.lower()] = value
        if status == 100:
            return self.receive(method)
        return status, fields, b"" if method == "HEAD" else self.file.read(int(fields["content-length"]))

    def receive_problem(self) -> tuple[int, str]:
        """Receive a problem document, and see that the connection ends."""
        status, fields, body = self.receive()
        problem = json.loads(body)
        assert (fields["content-type"], fields["connection"], problem["status"]) == (PROBLEM, "close", status)
        assert fields["x-content-type-options"] == "nosniff"
        assert ("retry-after" in fields) == (status == 503)
        assert self.is_closed()
        return status, problem["detail"]

    def is_closed(self) -> bool:
        """Wait for the end of the connection; what the server had still sent is an error."""
        try:
            return self.file.read(1) == b""
        except ConnectionResetError:
            return True

    def drain(self) -> int:
        """Read to the end, and return how many bytes came."""
        received = 0
        try:
            while part := self.file.read1(65536):
                received += len(part)
        except ConnectionResetError:
            pass
        return received

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


Serve = Callable[..., Any]


@contextmanager
def serve(limits: Limits, **options: Any) -> Iterator[tuple[Application, Callable[..., Client]]]:
    """Serve the application above; yield it, and what connects to it."""
    app = Application()
    clients: list[Client] = []

    def connect(address: str = "127.0.0.1") -> Client:
        clients.append(Client(port, address))
        return clients[-1]

    with serve_app(app, limits, lifespan="off", **options) as url:
        port = int(url.rpartition(":")[2])
        try:
            yield app, connect
        finally:
            app.go_on = True
            for client in clients:
                client.close()


def wait_until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.01)


MALFORMED = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "unknown method": b"FOO / HTTP/1.1\r\n" + HOST + b"\r\n",
    "target with a space": b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n",
    "target with a NUL": b"GET /\0 HTTP/1.1\r\n" + HOST + b"\r\n",
    "bare LF after the request line": b"GET / HTTP/1.1\n" + HOST + b"\r\n",
    "bare LF after a field": GET + b"X: y\n\r\n",
    "bare CR in a field": GET + b"X: y\rz\r\n\r\n",
    "bare LF at the end of the head": GET + b"\n",
    "obs-fold": GET + b"X: y\r\n z\r\n\r\n",
    "space before the colon": GET + b"X : y\r\n\r\n",
    "space before the first field": b"GET / HTTP/1.1\r\n X: y\r\n" + HOST + b"\r\n",
    "no colon": GET + b"X\r\n\r\n",
    "no name": GET + b": y\r\n\r\n",
    "NUL in a name": GET + b"X\0: y\r\n\r\n",
    "NUL in a value": GET + b"X: \0\r\n\r\n",
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": GET + b"Host: y\r\n\r\n",
    "no host in Host": b"GET / HTTP/1.1\r\nHost: a/b@c\r\n\r\n",
    "half an address in Host": b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
    "Content-Length and Transfer-Encoding": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding and Content-Length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two Content-Lengths": POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
    "list of Content-Lengths": POST + b"Content-Length: 1, 1\r\n\r\na",
    "Content-Length with a sign": POST + b"Content-Length: +1\r\n\r\na",
    "Content-Length without digits": POST + b"Content-Length: \r\n\r\na",
    "Content-Length beyond 64 bits": POST + b"Content-Length: 99999999999999999999\r\n\r\na",
    "Transfer-Encoding: gzip": POST + b"Transfer-Encoding: gzip\r\n\r\n",
    "Transfer-Encoding: gzip, chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked, gzip": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "two Transfer-Encodings": POST + 2 * b"Transfer-Encoding: chunked\r\n" + b"\r\n0\r\n\r\n",
    "Transfer-Encoding: xchunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding with a control character": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding in HTTP/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}  # fmt: skip
MALFORMED |= {
    f"target {target}": b"GET %b HTTP/1.1\r\n%b\r\n" % (target.encode(), HOST)
    for target in (
        "*", "*/x", "*?x", "http:///", "http://", "http:/x", "http://:80/", "http://u@x/", "http://u:p@x/",
        "http://x@/", "http://x:y/", "http://x:80:80/", "http://[::1/", "http://[x]/", "http://x\\y/", 'http://x"/',
        "ftp://x/", "httpx://x/", "x", "x:80", "file:///x",
    )
}  # fmt: skip
MALFORMED |= {
    "absolute target without a Host": b"GET http://x/ HTTP/1.1\r\n\r\n",
    "absolute target with two Hosts": b"GET http://x/ HTTP/1.1\r\n" + 2 * HOST + b"\r\n",
    "absolute target with a malformed Host": b"GET http://x/ HTTP/1.1\r\nHost: a/b\r\n\r\n",
}
MALFORMED_BODIES = {
    "no size": b"zz\r\n",
    "size with 0x": b"0x1\r\na\r\n0\r\n\r\n",
    "size with a sign": b"-1\r\na",
    "size with a blank": b"1 \r\na\r\n0\r\n\r\n",
    "size beyond 64 bits": b"fffffffffffffffff\r\na",
    "more than the size": b"1\r\nab\r\n0\r\n\r\n",
    "bare LF after a size": b"1\na\r\n0\r\n\r\n",
    "bare LF after an extension": b"1;a\na\r\n0\r\n\r\n",
    "bare LF after a chunk": b"1\r\na\n0\r\n\r\n",
    "Content-Length as a trailer": b"0\r\nContent-Length: 1\r\n\r\n",
}  # fmt: skip


@pytest.fixture(scope="module")
def echo() -> Iterator[tuple[Application, Callable[..., Client]]]:
    """An application within generous limits, which a module shares."""
    with serve(LONG) as served:
        yield served


@pytest.mark.parametrize("request_", MALFORMED.values(), ids=MALFORMED)
def test_malformed_head_never_reaches_the_application(echo: Any, request_: bytes) -> None:
    """RFC 9112: what two programs could read in two ways is nobody's request."""
    app, connect = echo
    app.log.clear()
    assert connect().send(request_ + b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n").receive_problem()[0] == 400
    assert app.log == []


@pytest.mark.parametrize("body", MALFORMED_BODIES.values(), ids=MALFORMED_BODIES)
def test_malformed_body_ends_the_connection(echo: Any, body: bytes) -> None:
    app, connect = echo
    app.log.clear()
    assert connect().send(CHUNKED + body + b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n").receive_problem()[0] == 400
    wait_until(lambda: "disconnected" in app.log)
    assert not {"/ done", "/smuggled"} & {*app.log[: app.log.index("disconnected")]}


OTHERS = [
    (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 505, "Expected HTTP/1.1 or HTTP/1.0, got HTTP/2.0"),
    (b"GET / HTTP/1.2\r\n" + HOST + b"\r\n", 505, "Expected HTTP/1.1 or HTTP/1.0, got HTTP/1.2"),
    (b"GET / HTTP/3.0\r\n" + HOST + b"\r\n", 505, "Expected HTTP/1.1 or HTTP/1.0, got HTTP/3.0"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "Expected HTTP/1.1 or HTTP/1.0, got HTTP/2.0"),
    (b"GET /\r\n\r\n", 505, "Expected HTTP/1.1 or HTTP/1.0, got HTTP/0.9"),
    (b"CONNECT / HTTP/1.1\r\n" + HOST + b"\r\n", 501, "CONNECT is for proxies"),
    (
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
        414,
        "The target of the request is over 16384 bytes",
    ),
    (GET + b"X: " + b"a" * 65_536 + b"\r\n\r\n", 431, "The header section is over 65536 bytes"),
    (GET + b"X: y\r\n" * 12_000 + b"\r\n", 431, "The header section is over 65536 bytes"),
]


@pytest.mark.parametrize(("request_", "status", "detail"), OTHERS, ids=lambda value: str(value)[:30])
def test_other_requests_that_are_rejected(echo: Any, request_: bytes, status: int, detail: str) -> None:
    _, connect = echo
    assert connect().send(request_).receive_problem() == (status, detail)


TARGETS = [
    (b"GET http://a.example HTTP/1.1", "/", b"", b"a.example"),
    (b"GET http://a.example?x=/y?z HTTP/1.1", "/", b"x=/y?z", b"a.example"),
    (b"GET HTTPS://A.Example:8443/b%20c?x HTTP/1.1", "/b c", b"x", b"A.Example:8443"),
    (b"GET http://[::1]:80//b HTTP/1.1", "//b", b"", b"[::1]:80"),
    (b"GET http://a.example/http://b.example/ HTTP/1.1", "/http://b.example/", b"", b"a.example"),
    (b"GET http://a.example/#@b.example/ HTTP/1.1", "/", b"", b"a.example"),
    (b"GET /http://b.example/?y HTTP/1.1", "/http://b.example/", b"y", b"x"),
    (b"OPTIONS * HTTP/1.1", "/", b"", b"x"),
    (b"OPTIONS http://a.example HTTP/1.1", "/", b"", b"a.example"),
    (b"GET http://a.example/b HTTP/1.0", "/b", b"", b"a.example"),
]


@pytest.mark.parametrize(("line", "path", "query", "host"), TARGETS, ids=lambda value: str(value)[:40])
def test_target_has_several_forms(echo: Any, line: bytes, path: str, query: bytes, host: bytes) -> None:
    """RFC 9112, 3.2: the authority of one in absolute form replaces Host, and its path may be missing."""
    app, connect = echo
    for fields in (HOST, HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n"):
        assert connect().send(line + b"\r\n" + fields + b"\r\n").receive()[0] == 200
        scope = app.scopes[-1]
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        assert (scope["path"], scope["query_string"], hosts) == (path, query, [host])


def test_target_without_a_host_field_names_the_host(echo: Any) -> None:
    app, connect = echo
    assert connect().send(b"GET http://a.example HTTP/1.0\r\n\r\n").receive()[0] == 200
    assert app.scopes[-1]["headers"] == [(b"host", b"a.example")]


ENDLESS = [
    (GET + b"X: ", b"a" * 65_536, 431),
    (b"GET /", b"a" * 65_536, 414),
    (GET, b"X: y\r\n" * 1000, 431),
    (CHUNKED + b"0\r\nX: ", b"a" * 65_536, 431),
    (CHUNKED + b"1;", b"a" * 65_536, 431),
]


@pytest.mark.parametrize(("head", "part", "status"), ENDLESS, ids=["value", "target", "fields", "trailer", "extension"])
def test_endless_head_is_not_read_to_its_end(echo: Any, head: bytes, part: bytes, status: int) -> None:
    """The parser would collect it, and copy all of it for each part that comes."""
    _, connect = echo
    client = connect().send(head, *[part] * 20)
    assert client.receive_problem()[0] == status
    endless = connect().send(head)
    with pytest.raises(OSError, match=r"reset|Broken pipe"):  # that of a client that goes on without reading
        endless.send(*[part] * 100_000)


def test_head_up_to_the_limit_is_served(echo: Any) -> None:
    _, connect = echo
    fields = b"X: " + b"a" * 60_000 + b"\r\n\r\n"
    assert connect().send(GET + fields).receive()[0] == 200
    assert connect().send(GET, *(fields[at : at + 1500] for at in range(0, len(fields), 1500))).receive()[0] == 200
    assert connect().send(b"GET /" + b"a" * 16_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n").receive()[0] == 200
    # the body before it is no part of a head
    body = b"a" * 150_000
    post = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    client = connect()
    with ThreadPoolExecutor() as pool:
        pool.submit(client.send, post + GET[:9], GET[9:] + b"\r\n")
        assert [client.receive()[2] for _ in range(2)] == [body, b""]


@pytest.mark.parametrize(
    ("chunk", "count", "status"),
    [
        (b"1;" + b"x" * 5000 + b"\r\na\r\n", 12, 200),
        (b"1;" + b"x" * 5000 + b"\r\na\r\n", 1000, 431),
        (b"1\r\na\r\n", 10_000, 200),
        (b"1\r\na\r\n", 1_000_000, 431),
        (b"2\r\n8,\r\n", 200_000, 200),
    ],
    ids=["extensions", "many extensions", "tiny", "many tiny", "small"],
)
def test_chunks_are_bounded_together(echo: Any, chunk: bytes, count: int, status: int) -> None:
    """Each costs time, and a body of few bytes may have no end of them."""
    _, connect = echo
    client = connect()
    with ThreadPoolExecutor() as pool, contextlib.suppress(OSError):
        sent = pool.submit(client.send, CHUNKED + chunk * count + b"0\r\n\r\n")
        assert client.receive()[0] == status
        sent.result()


@pytest.mark.parametrize(
    "part", [b"10000\r\n" + b"a" * 65_536 + b"\r\n", b"1\r\na\r\n" * 10_000], ids=["large", "tiny"]
)
def test_body_that_nobody_wants_is_not_read_for_ever(echo: Any, part: bytes) -> None:
    """The response has been sent: as it is without a key, before the body is looked at."""
    _, connect = echo
    client = connect().send(CHUNKED.replace(b"/", b"/ignore", 1) + part)
    assert client.receive()[0] == 200
    with pytest.raises(OSError, match=r"reset|Broken pipe"):
        client.send(*[part] * 1500)


def test_pipelined_requests_are_bounded() -> None:
    with serve(LONG) as (app, connect):
        client = connect().send(b"GET /wait HTTP/1.1\r\n" + HOST + b"\r\n" + (GET + b"\r\n") * 100)
        wait_until(lambda: "/wait" in app.log)
        app.go_on = True
        assert [client.receive()[0] for _ in range(1 + MAX_PIPELINED)] == [200] * (1 + MAX_PIPELINED)
        detail = "Too many requests at once on one connection; retry later"
        assert client.receive_problem() == (503, detail)


def test_head_that_is_not_read_yet_is_not_late() -> None:
    """Behind two pipelined requests, the service stops to read."""
    with serve(SHORT) as (app, connect):
        client = connect().send(b"GET /wait HTTP/1.1\r\n" + HOST + b"\r\n" + GET + b"\r\n" + GET)
        time.sleep(SHORT.head_timeout * 3)
        app.go_on = True
        client.send(b"\r\n")
        assert [client.receive()[0] for _ in range(3)] == [200, 200, 200]


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_requests_that_keep_working(echo: Any, size: int) -> None:
    """Pipelined, in pieces of any size: bodies, chunks with trailers, HEAD, an upgrade, HTTP/1.0 as the last."""
    app, connect = echo
    app.scopes.clear()
    upgrade = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
    requests = [
        b"\r\n" + POST + b"Content-Length: 3\r\n\r\nabc",
        CHUNKED + b"1;x=y\r\na\r\n2\r\nbc\r\n0\r\nIf-Match: x\r\n\r\n",
        GET + upgrade + b"\r\n",
        POST + upgrade + b"Content-Length: 3\r\n\r\nabc",
        CHUNKED[:-2] + upgrade + b"\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET http://a.example/ HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
    ]
    text = b"".join(requests)
    client = connect().send(*(text[at : at + size] for at in range(0, len(text), size)))
    bodies = [client.receive("HEAD" if request.startswith(b"HEAD") else "GET")[2] for request in requests]
    assert bodies == [b"abc", b"abc", b"", b"abc", b"abc", b"", b"", b""]
    assert client.is_closed()
    assert b"if-match" not in {name for scope in app.scopes for name, _ in scope["headers"]}


def test_head_goes_out_with_the_body(echo: Any) -> None:
    """As ASGI wants it, and in one segment."""
    app, connect = echo
    app.go_on = False
    client = connect().send(GET.replace(b"/", b"/late", 1) + b"\r\n")
    client.socket.settimeout(0.3)
    with pytest.raises(TimeoutError):
        client.socket.recv(1)
    app.go_on = True
    client.socket.settimeout(60)
    assert client.receive()[0] == 200


def test_rejected_head_has_no_body(echo: Any) -> None:
    _, connect = echo
    client = connect().send(b"HEAD / HTTP/1.1\r\nHost: a/b\r\n\r\n")
    assert client.receive("HEAD")[::2] == (400, b"")
    assert client.is_closed()


def test_rejection_waits_for_the_responses_before_it() -> None:
    with serve(SHORT) as (app, connect):
        wait = b"GET /wait HTTP/1.1\r\n" + HOST + b"\r\n"
        clients = [
            connect().send(wait + b"FOO\r\n\r\n"),
            connect().send(wait + GET + b"\r\n" + b"FOO\r\n\r\n"),
            connect().send(wait + CHUNKED + b"zz\r\n"),
        ]
        time.sleep(SHORT.head_timeout * 2)
        app.go_on = True
        assert [clients[0].receive()[0], clients[0].receive_problem()[0]] == [200, 400]
        assert [clients[1].receive()[0] for _ in range(2)] + [clients[1].receive_problem()[0]] == [200, 200, 400]
        assert [clients[2].receive()[0], clients[2].receive_problem()[0]] == [200, 400]


STALLED_BODY = POST + b"Content-Length: 10\r\n\r\n"
LATE = [
    (GET, b"", 408, "The header section has taken over 0.4 s"),
    (GET + b"X: ", b"a", 408, "The header section has taken over 0.4 s"),
    (STALLED_BODY, b"", 408, "The body has brought less than 500 bytes a second"),
    (POST + b"Content-Length: 10000\r\n\r\n", b"a", 408, "The body has brought less than 500 bytes a second"),
    (CHUNKED, b"1\r\na\r\n", 408, "The body has brought less than 500 bytes a second"),
    (CHUNKED + b"0\r\nX: ", b"a", 408, "The body has brought less than 500 bytes a second"),
]


@pytest.mark.parametrize(("request_", "drop", "status", "detail"), LATE)
def test_late_request_is_a_408(request_: bytes, drop: bytes, status: int, detail: str) -> None:
    with serve(SHORT) as (app, connect):
        client = connect().send(request_)
        client.socket.settimeout(0.01)
        while drop and not app.log[1:]:
            client.send(drop)
            time.sleep(0.03)
            try:
                if client.socket.recv(1, socket.MSG_PEEK):
                    break
            except TimeoutError:
                continue
        client.socket.settimeout(60)
        assert client.receive_problem() == (status, detail)
        assert "/ done" not in app.log[: app.log.index("disconnected") if "disconnected" in app.log else None]


SILENT = {
    "nothing": b"",
    "empty lines": b"\r\n\r\n",
    "nothing after a response": GET + b"\r\n",
    "empty lines after a response": GET + b"\r\n\r\n\r\n",
    "the rest of a body after a response": b"POST /ignore HTTP/1.1\r\n" + HOST + b"Content-Length: 9999\r\n\r\na",
}


@pytest.mark.parametrize("request_", SILENT.values(), ids=SILENT)
@pytest.mark.parametrize("drop", [b"", b"\r\n"], ids=["silent", "dripping"])
def test_connection_without_a_request_just_ends(request_: bytes, drop: bytes) -> None:
    with serve(SHORT, timeout_keep_alive=1) as (_, connect):
        client = connect().send(request_)
        if request_.strip():
            assert client.receive()[0] == 200
        client.socket.settimeout(0.02)
        try:
            while True:
                client.send(drop)
                try:
                    assert client.socket.recv(1) == b""
                    break
                except TimeoutError:
                    continue
        except (ConnectionResetError, BrokenPipeError):
            pass


def test_slow_upload_that_goes_on_is_received() -> None:
    """It takes much longer than a stall may, at about three times the least rate."""
    with serve(SHORT) as (_, connect):
        client = connect().send(POST + b"Content-Length: 3000\r\n\r\n")
        for _ in range(30):
            time.sleep(0.06)
            client.send(b"a" * 100)
        assert client.receive()[2] == b"a" * 3000


@pytest.mark.parametrize(
    "request_",
    [
        b"POST /wait HTTP/1.1\r\n" + HOST + b"Content-Length: 200000\r\n\r\n" + b"a" * 100_000,
        b"POST /wait HTTP/1.1\r\n" + HOST + b"Content-Length: 200000\r\nExpect: 100-continue\r\n\r\n",
    ],
    ids=["paused", "100-continue"],
)
def test_application_that_does_not_read_is_waited_for(request_: bytes) -> None:
    with serve(SHORT) as (app, connect):
        client = connect().send(request_)
        time.sleep(SHORT.body_timeout * 3)
        app.go_on = True
        client.send(b"a" * (100_000 if request_.endswith(b"a") else 200_000))
        assert client.receive()[2] == b"a" * 200_000


@pytest.mark.parametrize("path", [b"/flood", b"/large"])
def test_client_that_reads_nothing_is_disconnected(path: bytes) -> None:
    """The application may have ended long ago: closing waits for what is not sent yet."""
    with serve(SHORT) as (app, connect):
        client = connect().send(b"GET %b HTTP/1.1\r\n" % path + HOST + b"\r\n")
        wait_until(lambda: f"{path.decode()} done" in app.log)
        time.sleep(SHORT.send_timeout * 4)
        assert client.drain() < 32 * 1024 * 1024


def test_client_that_reads_slowly_is_served() -> None:
    """What it has not read would fit into the buffers of the system for longer than it may read nothing."""
    with serve(SHORT) as (_, connect):
        client = connect().send(b"GET /large HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        received = 0
        for _ in range(20):
            time.sleep(0.1)
            received += len(client.file.read(150_000))
        assert received + client.drain() > 32 * 1024 * 1024


def test_disconnected_client_is_noticed_behind_a_pipelined_request() -> None:
    with serve(LONG) as (app, connect):
        client = connect().send(b"GET /flood HTTP/1.1\r\n" + HOST + b"\r\n" + GET + b"\r\n")
        wait_until(lambda: "/flood" in app.log)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        wait_until(lambda: "/flood done" in app.log)


FULL = (503, "Too many connections or requests at once; retry later")
HEALTH = b"GET /health/live HTTP/1.1\r\n" + HOST + b"\r\n"


@pytest.mark.parametrize(
    ("limits", "address"),
    [
        (Limits(connections=2, interval=0.05), "127.0.0.1"),
        (Limits(connections_per_client=2, interval=0.05), "127.0.0.2"),
    ],
    ids=["in all", "of a client"],
)
def test_one_connection_too_many_is_a_503(limits: Limits, address: str) -> None:
    """Health goes on; a place that becomes free is taken."""
    with serve(limits) as (_, connect):
        clients = [connect(address) for _ in range(3)]
        assert clients[2].send(GET + b"\r\n").receive_problem() == FULL
        status, fields, _ = connect(address).send(HEALTH).receive()
        assert (status, fields["connection"]) == (200, "close")
        assert [client.send(GET + b"\r\n").receive()[0] for client in clients[:2]] == [200, 200]
        clients[0].close()
        statuses = iter(lambda: connect(address).send(GET + b"\r\n").receive()[0], 200)
        assert set(statuses) <= {503}


def test_client_is_not_limited_by_those_of_another() -> None:
    with serve(Limits(connections_per_client=1)) as (_, connect):
        assert [connect(f"127.0.0.{n}").send(GET + b"\r\n").receive()[0] for n in (2, 2, 3, 1, 1)] == [
            200, 503, 200, 200, 200,
        ]  # fmt: skip


def test_refused_connections_have_a_limit_too() -> None:
    with serve(Limits(connections=1)) as (_, connect):
        first = connect()
        refused = [connect() for _ in range(MAX_REFUSED)]
        assert connect().is_closed()
        assert refused[-1].send(GET + b"\r\n").receive_problem() == FULL
        assert first.send(GET + b"\r\n").receive()[0] == 200


def test_one_request_too_many_is_a_503() -> None:
    with serve(Limits(requests=2, interval=0.05)) as (app, connect):
        busy = [connect().send(b"GET /wait HTTP/1.1\r\n" + HOST + b"\r\n") for _ in range(2)]
        wait_until(lambda: app.log == ["/wait", "/wait"])
        assert connect().send(GET + b"\r\n").receive_problem() == FULL
        assert connect().send(HEALTH).receive()[0] == 200
        app.go_on = True
        assert [client.receive()[0] for client in busy] == [200, 200]
        assert connect().send(GET + b"\r\n").receive()[0] == 200


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:0:1:2:3:4:5", "2001:db8:0:1::"),
        ("::1", "::"),
        ("unknown", "unknown"),
        ("a:b", "a:b"),
    ],
)
def test_network_stands_for_a_client(address: str, network: str) -> None:
    assert get_network(address) == network


class Kept(Connections):
    """Keeps the protocols that it makes, for the test to stop."""

    def __init__(self) -> None:
        super().__init__(LONG)
        self.made: list[LimitedProtocol] = []

    def __call__(self, **arguments: Any) -> LimitedProtocol:  # type: ignore[override]
        self.made.append(super().__call__(**arguments))
        return self.made[-1]

    def stop(self) -> None:
        """Tell each connection, on the event loop, that the service stops."""
        for connection in self.made:
            asyncio.run_coroutine_threadsafe(self._stop(connection), connection.loop).result()

    async def _stop(self, connection: LimitedProtocol) -> None:
        connection.shutdown()


@pytest.mark.parametrize("first", [b"", GET[:9], GET + b"\r\n", GET + b"\r\n" + GET[:9]], ids=range(4))
def test_request_that_meets_a_stop_is_served(monkeypatch: pytest.MonkeyPatch, first: bytes) -> None:
    """On a new connection and on one that was idle; a part of its head may have come before."""
    monkeypatch.setattr(protocol, "GRACE", 60)
    connections = Kept()
    with serve(LONG, http=connections) as (app, connect):
        client = connect().send(first)
        wait_until(lambda: bool(connections.made))
        if first.startswith(GET + b"\r\n"):
            assert client.receive()[0] == 200
        connections.stop()
        status, fields, _ = client.send(GET[9 if first.endswith(GET[:9]) else 0 :] + b"\r\n").receive()
        assert (status, fields["connection"]) == (200, "close")
        assert client.is_closed()
        assert app.log[-1] == "/ done"


@pytest.mark.parametrize("first", [b"", GET[:9], GET + b"\r\n"], ids=range(3))
def test_connection_without_a_request_ends_soon_after_a_stop(first: bytes) -> None:
    connections = Kept()
    with serve(LONG, http=connections) as (_, connect):
        client = connect().send(first)
        wait_until(lambda: bool(connections.made))
        if first.startswith(GET + b"\r\n"):
            assert client.receive()[0] == 200
        connections.stop()
        assert client.is_closed()


def test_slow_clients_end_and_nobody_notices_them() -> None:
    """Of every kind, a byte a time; in the end the service has as many open files as before."""
    heads = [GET + b"X: ", b"GET /", STALLED_BODY, CHUNKED + b"1;", b""]
    with serve(SHORT) as (_, connect):
        process = psutil.Process()
        assert connect().send(GET + b"\r\n").receive()[0] == 200
        before = process.num_fds()
        slow = [connect().send(heads[number % len(heads)]) for number in range(200)]
        ended = 0
        while slow:
            assert connect().send(GET + b"Connection: close\r\n\r\n").receive()[0] == 200
            for client in list(slow):
                try:
                    client.send(b"a" if client is not slow[0] else b"")
                    client.socket.recv(1, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    continue
                except OSError:
                    pass
                client.close()
                slow.remove(client)
                ended += 1
        assert ended == 200
        wait_until(lambda: process.num_fds() <= before)


@pytest.mark.parametrize("workers", [1, 2])
def test_endless_head_leaves_the_workers_alone(tmp_path: Path, workers: int) -> None:
    """50 MB of If-Match blocked the event loop until the supervisor killed its worker."""
    with Service(tmp_path, WORKERS=workers, MAX_CONNECTIONS=1) as service:
        wait_until(lambda: service.log().count("startup complete") == workers)
        assert service.client.post("/student", json=ANANYA).status_code == 201
        with Client(service.port) as client:
            client.send(b"DELETE /student/1 HTTP/1.1\r\nHost: localhost\r\nIf-Match: ")
            try:
                for _ in range(50):
                    client.send(b'"",' * 350_000)
            except OSError:
                pass
        with Client(service.port) as client:
            client.send(b"DELETE /student/1 HTTP/1.1\r\nHost: localhost\r\nIf-Match: " + b'"",' * 30_000 + b"\r\n\r\n")
            assert client.receive_problem()[0] == 431
        with Client(service.port), Client(service.port), Client(service.port) as client:
            statuses = {client.send(HEALTH.replace(b"x", b"localhost")).receive()[0]}
            assert statuses == {200}
        wait_until(lambda: service.client.get("/student/1").status_code == 200)
        assert service.log().count("Started server process") == workers
        assert "Traceback" not in service.log()
