"""A stub of MySQL 8.4 in front of MariaDB: it logs in as MySQL does, and can respond for the server.

It lets a client in by `caching_sha2_password`, over TLS if it has a certificate, and passes statements on to MariaDB.
So the service believes that it has MySQL, and sends what it would send there.
"""

import contextlib
import hashlib
import re
import secrets
import select
import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import pymysql
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from pymysql.constants import CLIENT, COMMAND, FIELD_TYPE

from tests.mariadb import MariaDB

USER, PASSWORD = "registrar", "pä%сс@"
VERSION = "8.4.3"
PLUGIN = b"caching_sha2_password"
FAST, FULL, SEND_KEY = b"\x01\x03", b"\x01\x04", b"\x02"
"""What server and client say to each other after the scrambled password."""
AUTOCOMMIT = 2
OAEP = padding.OAEP(mgf=padding.MGF1(hashes.SHA1()), algorithm=hashes.SHA1(), label=None)


class Refusal(NamedTuple):
    """An error instead of a result."""

    code: int
    message: str
    state: str = "HY000"


class Rows(NamedTuple):
    """A result without asking MariaDB."""

    rows: list[tuple[str | None, ...]]


def scramble(password: bytes, salt: bytes) -> bytes:
    """Scramble a password as the documentation of `caching_sha2_password` has it."""
    first = hashlib.sha256(password).digest()
    mask = hashlib.sha256(hashlib.sha256(first).digest() + salt).digest()
    return bytes(a ^ b for a, b in zip(first, mask, strict=True))


class Session(socketserver.BaseRequestHandler):
    """One connection of the service."""

    server: "Stub"
    request: socket.socket

    def handle(self) -> None:
        self._number, self._buffer, self._is_secure = 0, b"", False
        with contextlib.suppress(OSError, EOFError), socket.create_connection(self.server.backend) as mariadb:
            session = pymysql.connect(user="root", autocommit=None, defer_connect=True)
            session.connect(mariadb)
            if (database := self._log_in(session.thread_id())) is not None:  # type: ignore[no-untyped-call]
                session.select_db(database)
                self._send(b"\0\0\0" + struct.pack("<HH", AUTOCOMMIT, 0))
                self._pass_on(mariadb)

    def finish(self) -> None:
        self.request.close()  # another one than the server's, over TLS

    def _send(self, payload: bytes) -> None:
        self.request.sendall(len(payload).to_bytes(3, "little") + bytes([self._number % 256]) + payload)
        self._number += 1

    def _fill(self, limit: int = 65536) -> None:
        received = self.request.recv(limit)
        if not received:
            raise EOFError
        self._buffer += received

    def _take(self) -> bytes | None:
        """Take a packet, if one is there."""
        length = int.from_bytes(self._buffer[:3], "little")
        if len(self._buffer) < max(5, 4 + length):
            return None
        self._number = self._buffer[3] + 1
        payload, self._buffer = self._buffer[4 : 4 + length], self._buffer[4 + length :]
        return payload

    def _receive(self) -> bytes:
        """Wait for a packet, and read nothing behind it, where TLS may begin."""
        while (payload := self._take()) is None:
            length = 4 + int.from_bytes(self._buffer[:3], "little") if len(self._buffer) >= 4 else 4
            self._fill(length - len(self._buffer))
        return payload

    def _log_in(self, thread_id: int) -> str | None:
        salt = bytes(33 + byte % 94 for byte in secrets.token_bytes(20))
        can = CLIENT.CAPABILITIES | CLIENT.CONNECT_WITH_DB | (CLIENT.SSL if self.server.tls else 0)
        self._send(
            b"\x0a" + VERSION.encode() + b"\0" + struct.pack("<I", thread_id) + salt[:8] + b"\0"
            + struct.pack("<HBHHB", can & 0xFFFF, 255, AUTOCOMMIT, can >> 16, 21) + bytes(10) + salt[8:] + b"\0"
            + PLUGIN + b"\0"
        )  # fmt: skip
        response = self._receive()
        if self.server.tls is not None and struct.unpack("<I", response[:4])[0] & CLIENT.SSL:
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)
            self._is_secure = True
            response = self._receive()
        user, _, rest = response[32:].partition(b"\0")
        given, rest = rest[1 : 1 + rest[0]], rest[1 + rest[0] :]
        if user.decode() == USER and self._is_right(given, salt):
            return rest.partition(b"\0")[0].decode()
        self._refuse(Refusal(1045, f"Access denied for user '{user.decode()}'@'localhost'", "28000"))
        return None

    def _is_right(self, given: bytes, salt: bytes) -> bool:
        """Check the scrambled password if it was right before, else ask for the password itself."""
        password = PASSWORD.encode()
        if self.server.knows_password:
            self.server.logins.append("fast")
            self._send(FAST)
            return secrets.compare_digest(given, scramble(password, salt))
        self._send(FULL)
        answer = self._receive()
        if self._is_secure:
            self.server.logins.append("tls")
        else:
            assert answer == SEND_KEY
            self.server.logins.append("rsa")
            form = serialization.PublicFormat.SubjectPublicKeyInfo
            key = self.server.key.public_key().public_bytes(serialization.Encoding.PEM, form)
            self._send(b"\x01" + key)
            decrypted = self.server.key.decrypt(self._receive(), OAEP)
            answer = bytes(byte ^ salt[index % len(salt)] for index, byte in enumerate(decrypted))
        self.server.knows_password = answer == password + b"\0"
        return self.server.knows_password

    def _pass_on(self, mariadb: socket.socket) -> None:
        """Pass packets on, on one thread: two must not use a connection with TLS at once."""
        while True:
            while (payload := self._take()) is not None:
                reply = None
                if payload[0] == COMMAND.COM_QUERY:
                    statement = payload[1:].decode(errors="replace")
                    self.server.statements.append(statement)
                    reply = self.server.find_reply(statement)
                if reply is None:
                    mariadb.sendall(len(payload).to_bytes(3, "little") + bytes([self._number - 1]) + payload)
                elif isinstance(reply, Refusal):
                    self._refuse(reply)
                else:
                    self._send_rows(reply.rows)
            pending = isinstance(self.request, ssl.SSLSocket) and self.request.pending()
            ready = [self.request] if pending else select.select([self.request, mariadb], [], [])[0]
            if mariadb in ready:
                response = mariadb.recv(65536)
                if not response:
                    return
                self.request.sendall(response)
            if self.request in ready:
                self._fill()

    def _refuse(self, refusal: Refusal) -> None:
        self._send(b"\xff" + struct.pack("<H", refusal.code) + f"#{refusal.state}{refusal.message}".encode())

    def _send_rows(self, rows: list[tuple[str | None, ...]]) -> None:
        """Send columns without names: numbers, or texts."""
        width, end = len(rows[0]), b"\xfe" + struct.pack("<HH", 0, AUTOCOMMIT)
        self._send(bytes([width]))
        for column in zip(*rows, strict=True):
            kind = FIELD_TYPE.LONGLONG if all((text or "").isdigit() for text in column) else FIELD_TYPE.VAR_STRING
            self._send(b"\x03def" + bytes(5) + b"\x0c" + struct.pack("<HIBHBxx", 45, 1024, kind, 0, 0))
        self._send(end)
        for row in rows:
            self._send(b"".join(b"\xfb" if text is None else bytes([len(text)]) + text.encode() for text in row))
        self._send(end)


class Stub(socketserver.ThreadingTCPServer):
    """The stub, on a port of its own."""

    daemon_threads = True
    request_queue_size = 100

    def __init__(self, mariadb: MariaDB, tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), Session)
        self.backend, self.tls = (mariadb.host, mariadb.port), tls
        self.key = rsa.generate_private_key(65537, 2048)
        self.knows_password = False
        """Whether the password was right once, so that the fast way is open."""
        self.logins: list[str] = []
        """Which way each login took: fast, rsa or tls."""
        self.statements: list[str] = []
        self.replies: dict[str, Refusal | Rows] = {}
        """What it responds by itself, by regular expressions of statements."""

    def find_reply(self, statement: str) -> Refusal | Rows | None:
        for pattern, reply in self.replies.items():
            if re.search(pattern, statement):
                return reply
        return None

    def url(self, database_url: str, **parameters: Any) -> str:
        """Return the URL of a database of MariaDB through the stub."""
        name = database_url.rpartition("/")[2]
        query = "&".join(f"{key}={value}" for key, value in parameters.items())
        return f"mysql://{USER}:p%C3%A4%25%D1%81%D1%81%40@127.0.0.1:{self.server_address[1]}/{name}?{query}".rstrip("?")


@contextlib.contextmanager
def run_stub(mariadb: MariaDB, tls: ssl.SSLContext | None = None) -> Iterator[Stub]:
    """Run a stub for the length of the block."""
    with Stub(mariadb, tls) as stub:
        thread = threading.Thread(target=stub.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield stub
        finally:
            stub.shutdown()
            thread.join()
