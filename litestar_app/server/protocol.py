"""The HTTP protocol: uvicorn's own, with limits to what a client may send, for how long, and how many there may be."""

import asyncio
import logging
import re
import socket
from collections import Counter
from math import inf
from typing import Any, cast

import httptools
import msgspec
from litestar.types.asgi_types import HTTPResponseStartEvent
from msgspec import Struct
from uvicorn.config import Config
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from litestar_app.exceptions import RETRY_AFTER
from litestar_app.http.access_log import note_unparsed
from litestar_app.http.clients import get_network
from litestar_app.http.cors import CorsRules
from litestar_app.http.problems import PROBLEM_JSON, make_problem
from litestar_app.http.security import secure

logger = logging.getLogger("litestar_app")

MAX_HEAD = 64 * 1024
"""Bytes of a header section; and of what stands between the bytes of a body (chunk sizes, extensions, trailers), above
four times what the body has, or above as much where nobody wants the body."""
MAX_UNWANTED = 128 * 1024 * 1024
"""Bytes of a body that are read after its response, twice as many as the largest file to import: most clients read
the response only when they have sent all."""
MAX_PIPELINED = 32
"""Requests of a connection that wait for the response to the one before."""
MAX_TARGET = 16 * 1024
"""Bytes of the target in a request line; its query may have half of it."""
MIN_BODY_RATE = 500
"""Bytes a second that a body must bring on average while the application waits for it."""
GRACE = 0.5
"""Seconds in which a connection without a request may still bring the one that is on its way when the service stops."""
LINGER = 2
"""Seconds in which a rejected client may read why; closed at once, what it still sends would reset the connection."""
MAX_UNSENT = 128 * 1024
"""Bytes that the system keeps beyond what is on its way, or it would take megabytes before a slow reader shows."""
MAX_REFUSED = 100
"""Connections beyond the limits that get a 503; what comes on top of them is closed without a word."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
"""What uvicorn sends where a client waits for it with its body."""
ALWAYS = b"/health/"
"""The paths that respond whatever else is refused."""
LOCAL = {"127.0.0.1", "::1"}
VERSIONS = {"1.1", "1.0"}
OTHER_VERSION = re.compile("^(Invalid HTTP version|Pause on PRI/Upgrade)$")
"""What the parser says of a version that it does not know, and of the preface of HTTP/2."""
INVALID_URL = "an invalid URL"
HOST = re.compile(rb"(?:[\w.~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?", re.ASCII)
ABSOLUTE = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)
"""The beginning of a target in absolute form; its group is the authority."""


class Limits(Struct, frozen=True, kw_only=True):
    """How many there may be in one process, and for how many seconds.

    A time begins when a connection is first seen in its state, once in an interval: it ends up to two of them late.
    """

    connections: int = 1000
    connections_per_client: int = 100
    requests: int = 500
    refused: int = MAX_REFUSED
    head_timeout: float = 10
    body_timeout: float = 10
    send_timeout: float = 60
    interval: float = 1


class RefusalError(Exception):
    """A request is not carried out: its client gets a problem document and is disconnected."""

    def __init__(self, status: int, detail: str) -> None:
        """Take the status of the response and what was wrong."""
        super().__init__(detail)
        self.status = status


class Connections:
    """Makes the protocol of each connection, as uvicorn asks for it, and ends those that take too long."""

    def __init__(self, limits: Limits | None = None, cors: CorsRules | None = None) -> None:
        self.limits = limits or Limits()
        self.cors = cors
        self._admitted = self._refused = 0
        self._by_client: Counter[str] = Counter()
        self._proxies: ProxyHeadersMiddleware | None = None
        self._is_checking = False

    def __call__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> "LimitedProtocol":
        """Make the protocol of a connection."""
        return LimitedProtocol(self, config, server_state, app_state, _loop)

    def admit(self, connection: "LimitedProtocol") -> bool:
        """Count a connection; false where it is beyond a limit, and where it has been closed for that."""
        if not self._is_checking:
            self._is_checking = True
            connection.loop.call_later(self.limits.interval, self._check, connection.loop, connection.connections)
        client = self._name_client(connection)
        is_one_too_many = client and self._by_client[client] >= self.limits.connections_per_client
        if is_one_too_many or self._admitted >= self.limits.connections:
            self._refused += 1
            if self._refused > self.limits.refused:
                connection.transport.abort()
            return False
        self._admitted += 1
        self._by_client[client] += 1
        return True

    def release(self, connection: "LimitedProtocol", *, was_admitted: bool) -> None:
        """Count a connection no longer."""
        if not was_admitted:
            self._refused -= 1
            return
        self._admitted -= 1
        client = self._name_client(connection)
        self._by_client[client] -= 1
        if not self._by_client[client]:
            del self._by_client[client]

    def _name_client(self, connection: "LimitedProtocol") -> str:
        """Name whose connection it is: nobody's where it may come from a proxy, which stands for many."""
        if self._proxies is None:
            config = connection.config
            self._proxies = ProxyHeadersMiddleware(config.loaded_app, config.forwarded_allow_ips)
        address = connection.client[0] if connection.client else ""
        return "" if address in LOCAL or address in self._proxies.trusted_hosts else get_network(address)

    def _check(self, loop: asyncio.AbstractEventLoop, connections: set[Any]) -> None:
        now = loop.time()
        for connection in list(connections):
            connection.check(now)
        self._is_checking = bool(connections)
        if self._is_checking:
            loop.call_later(self.limits.interval, self._check, loop, connections)


class ResponseTransport:
    """The transport of one response: its head goes out with the first part of its body, by one system call.

    uvicorn writes the head at once, which ASGI does not want, and which costs as much as Litestar's routing.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = None  # b"" once it is sent

    def write(self, data: bytes) -> None:
        """Send data, but for the head, which waits."""
        if self._head:
            head, self._head = self._head, b""
            self._transport.writelines([head, data])
        elif self._head is None and data != CONTINUE:
            self._head = data
        else:
            self._transport.write(data)

    def flush(self) -> None:
        """Send a head that no body follows."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        """Close the connection when all is sent."""
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """Tell whether the connection is closed or about to be."""
        return self._transport.is_closing()


class LimitedProtocol(HttpToolsProtocol):
    """A connection. On the path of a request it only notes what happens; `check` compares that with the clock."""

    def __init__(self, owner: Connections, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._owner = owner
        self._limits = owner.limits
        self._is_admitted = False
        self._deadline = inf  # of what the client has to do next; infinite until `check` has seen what that is
        self._unsent: float = inf
        self._send_deadline = inf
        self._in_head = False
        self._received = 0  # bytes at once
        self._overhead = 0  # bytes since the head or the body has begun, without the body and those it came with
        self._unwanted = 0
        self._host: bytes | None = None
        self._is_upgrade = False
        self._running: RequestResponseCycle | None = None
        self._rejection: RefusalError | None = None
        self._is_lingering = False
        self._is_stopping = False
        self.url = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, within the limits or beyond them."""
        super().connection_made(transport)
        if self.client is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            options = transport.get_extra_info("socket")
            options.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT)
        self._is_admitted = self._owner.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End, and tell the application so, also where uvicorn tells only the last of pipelined requests."""
        self._owner.release(self, was_admitted=self._is_admitted)
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close after the request in progress, or the one that arrives in the next moment.

        Closed at once, the connection would be reset if the client has sent something that is not read yet.
        """
        self._is_stopping = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
        else:
            self.loop.call_later(GRACE, self._close_idle)

    def _close_idle(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Parse what the client has sent: the parser calls the methods that follow."""
        while data and self._rejection is None:
            self._received = len(data)
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = self._decline_upgrade(data[upgrade.args[0] :])
                continue
            except httptools.HttpParserError as error:
                reason = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else error
                if OTHER_VERSION.search(str(reason)):
                    reason = self._explain_version()
                elif not isinstance(reason, RefusalError):
                    # not in the parser's words, which quote a target, and this goes to the log
                    what = INVALID_URL if isinstance(reason, httptools.HttpParserInvalidURLError) else reason
                    reason = RefusalError(400, f"This is not HTTP/1.1: {what}")
                self._reject(reason)
                return
            if self._in_head or (self.cycle is not None and self.cycle.more_body):
                self._overhead += self._received
                if self._overhead > MAX_HEAD or len(self.url) > MAX_TARGET:
                    self._reject(self._explain_size())
            return

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._in_head = True
        self._overhead = -self._received
        self._unwanted = 0
        self._deadline = inf

    def on_headers_complete(self) -> None:
        """Hand the request to the application, unless its head says that it must not."""
        self._deadline = inf
        self._check_head()
        if not self.url.startswith(b"/"):
            self._resolve_target()
        is_overloaded = not self._is_admitted or len(self.tasks) >= self._limits.requests
        if is_overloaded and not self.url.startswith(ALWAYS):
            raise RefusalError(503, "Too many connections or requests at once; retry later")
        self._in_head = False
        if len(self.pipeline) >= MAX_PIPELINED:
            raise RefusalError(503, "Too many requests at once on one connection; retry later")
        self._is_upgrade = self.parser.should_upgrade()
        if self._is_upgrade:
            if self.parser.get_method() == b"CONNECT":
                raise RefusalError(501, "CONNECT is for proxies")
            return
        super().on_headers_complete()
        self.cycle.transport = cast("asyncio.Transport", ResponseTransport(self.transport))
        if not self.pipeline:
            self._running = self.cycle
        if not self._is_admitted or self._is_stopping:
            self.cycle.keep_alive = False
        self.headers = []  # trailers come here: they are no part of the head, which the application has by now
        self._overhead = -self._received

    def on_body(self, body: bytes) -> None:
        """Take a part of a body, which gains time for the rest."""
        self._overhead -= len(body)
        if not self.cycle.response_complete:
            self._overhead -= 4 * len(body)
            self._deadline += len(body) / MIN_BODY_RATE
        else:
            # each costs time, and the client has its response
            self._unwanted += len(body)
            if self._unwanted > MAX_UNWANTED:
                raise RefusalError(413, "The body does not end")
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the body, also of a request that has its response already."""
        if not self._is_upgrade:
            self.cycle.more_body = False
            self.cycle.message_event.set()

    def on_response_complete(self) -> None:
        """Go on with the next request; unlike uvicorn's, it needs no timer of its own to wait for it."""
        self.server_state.total_requests += 1
        if self._running is not None:
            cast("ResponseTransport", self._running.transport).flush()
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._running, app = self.pipeline.pop()
            self._start_asgi_task(self._running, app)
        elif self._rejection is not None:
            self._respond(self._rejection)
        elif not self._in_head:
            self._deadline = inf

    def resume_writing(self) -> None:
        """Note that the client reads."""
        self._unsent = inf
        super().resume_writing()

    def check(self, now: float) -> None:
        """Disconnect a client that takes too long: to read, to send what it has begun, or to begin."""
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent < self._unsent:
            self._send_deadline = now + self._limits.send_timeout
        elif now >= self._send_deadline:
            logger.info("%s: has read nothing for %g s", self._describe_client(), self._limits.send_timeout)
            self.transport.abort()
            return
        self._unsent = unsent
        timeout = self._find_timeout()
        self._deadline = inf if timeout is None else min(self._deadline, now + timeout)
        if now >= self._deadline:
            self._end()

    def _find_timeout(self) -> float | None:
        """Say how long the client may take for what it has to do next; None where it waits for us."""
        cycle = self.cycle
        if self._is_lingering:
            return LINGER
        if self._rejection is not None or self.flow.read_paused:
            return None
        if self._in_head or cycle is None:
            return self._limits.head_timeout
        if cycle.response_complete:  # a body of which nobody wants the rest is read as long as it may stall
            return self._limits.body_timeout if cycle.more_body else self.timeout_keep_alive
        if cycle.more_body and not cycle.body and not cycle.waiting_for_100_continue:
            return self._limits.body_timeout
        return None

    def _end(self) -> None:
        if self._is_lingering:
            self.transport.abort()
        elif self._in_head:
            self._reject(RefusalError(408, f"The header section has taken over {self._limits.head_timeout:g} s"))
        elif self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            self._reject(RefusalError(408, f"The body has brought less than {MIN_BODY_RATE} bytes a second"))

    def _check_head(self) -> None:
        version = self.parser.get_http_version()
        if version not in VERSIONS:
            raise self._explain_version()
        if len(self.url) > MAX_TARGET:
            raise self._explain_size()
        came_at_once = self._overhead == -self._received
        if not (came_at_once and self._received <= MAX_HEAD) and self._measure_head() > MAX_HEAD:
            raise self._explain_size()
        host = None
        for name, value in self.headers:
            if name == b"host":
                if host is not None:
                    raise RefusalError(400, "Expected one header field Host, got two")
                host = value
            elif name == b"transfer-encoding" and (value.lower() != b"chunked" or version == "1.0"):
                raise RefusalError(400, "Transfer-Encoding: expected chunked, and HTTP/1.1")
        if host is None or host != self._host:
            self._check_host(host, version)

    def _check_host(self, host: bytes | None, version: str) -> None:
        if host is None:
            if version == "1.1":
                raise RefusalError(400, "Expected the header field Host")
        elif not HOST.fullmatch(host):
            raise RefusalError(400, "Host: expected a host, and perhaps a port")
        self._host = host

    def _resolve_target(self) -> None:
        """Rewrite a target in absolute or asterisk form as a path; an authority replaces Host (RFC 9112, 3.2)."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            return
        if self.url == b"*" and method == b"OPTIONS":
            self.url = b"/"
            return
        absolute = ABSOLUTE.match(self.url)
        if absolute is None:
            raise RefusalError(400, "The target of the request: expected a path, or a URL with http or https")
        authority = absolute[1]
        if authority[:1] in {b"", b":"} or not HOST.fullmatch(authority):
            raise RefusalError(400, f"This is not HTTP/1.1: {INVALID_URL}")
        rest = self.url[absolute.end() :]
        self.url = rest if rest.startswith(b"/") else b"/" + rest
        self.headers[:] = [*((name, value) for name, value in self.headers if name != b"host"), (b"host", authority)]

    def _describe_client(self) -> str:
        return ":".join(map(str, self.client)) if self.client else "a local client"

    def _measure_head(self) -> int:
        return sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)

    def _explain_version(self) -> RefusalError:
        return RefusalError(505, f"Expected HTTP/1.1 or HTTP/1.0, got HTTP/{self.parser.get_http_version()}")

    def _explain_size(self) -> RefusalError:
        if len(self.url) > MAX_TARGET:
            return RefusalError(414, f"The target of the request is over {MAX_TARGET} bytes")
        if not self._in_head:
            return RefusalError(431, "The chunks of the body are too small, or their extensions or trailers too long")
        return RefusalError(431, f"The header section is over {MAX_HEAD} bytes")

    def _decline_upgrade(self, rest: bytes) -> bytes:
        """Give the head again, without the field that ends HTTP for the parser: what follows may be a body."""
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        fields = b"".join(b"%b: %b\r\n" % field for field in self.headers if field[0] != b"upgrade")
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn sets it
        return b"%b %b HTTP/%b\r\n%b\r\n" % (method, self.url, version, fields) + rest

    def _reject(self, rejection: RefusalError) -> None:
        """Take nothing more, and respond when the requests before have their responses."""
        self._rejection = rejection
        cycle = self.cycle
        if cycle is not None and cycle.response_complete and cycle.more_body:  # whose response it has
            self._linger()
        elif cycle is None or cycle.response_complete:
            self._respond(rejection)
        elif cycle.more_body:  # its own body is what is wrong
            cycle.disconnected = True
            cycle.message_event.set()
            if self.pipeline:
                self.pipeline.popleft()
            elif cycle.response_started:
                self.transport.close()
            else:
                self._respond(rejection)

    def _respond(self, rejection: RefusalError) -> None:
        """Respond with a problem document, and give the client time to read it before it is disconnected."""
        logger.debug("%s: %d: %s", self._describe_client(), rejection.status, rejection)
        request_id = note_unparsed(rejection.status, self.client[0] if self.client else None)
        content = msgspec.json.encode(make_problem(rejection.status, str(rejection)))
        fields = [
            *self.server_state.default_headers,
            (b"content-type", PROBLEM_JSON.encode()),
            (b"content-length", b"%d" % len(content)),
            (b"connection", b"close"),
            (b"x-request-id", request_id.encode()),
        ]
        if rejection.status == 503:  # noqa: PLR2004  a status reads best as its number
            fields.append((b"retry-after", b"%d" % RETRY_AFTER))
        start: HTTPResponseStartEvent = {"type": "http.response.start", "status": rejection.status, "headers": fields}
        headers = secure(start)
        if (cors := self._owner.cors) is not None:
            cors.add_fields(self.scope["headers"] if self.scope else [], headers, has_all=not self._in_head)
        lines = [b"%b: %b\r\n" % field for field in headers]
        if self.url and self.parser.get_method() == b"HEAD":
            content = b""
        self.transport.write(b"".join([STATUS_LINE[rejection.status], *lines, b"\r\n", content]))
        self._linger()

    def _linger(self) -> None:
        self.transport.write_eof()
        self._is_lingering = True
        self._deadline = inf
