"""A proxy in front of MariaDB that can come between a COMMIT and its response."""

import contextlib
import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Iterator

COM_QUERY = 3


class Link(socketserver.StreamRequestHandler):
    """One connection of the service, and the one that the proxy makes for it."""

    server: "Proxy"
    drop_response = is_forgotten = False

    def handle(self) -> None:
        self.server.links.append(self)
        with socket.create_connection(("127.0.0.1", self.server.mariadb_port)) as self.mariadb:
            responses = threading.Thread(target=self._pass_responses)
            responses.start()
            with contextlib.suppress(OSError):
                self._pass_packets()
            self.cut()
            responses.join()

    def cut(self) -> None:
        for end in (self.connection, self.mariadb):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _pass_packets(self) -> None:
        wrote = False  # the driver ends its greeting with a COMMIT too
        while len(header := self.rfile.read(4)) == 4:
            payload = self.rfile.read(int.from_bytes(header[:3], "little"))
            statement = payload[1:].upper() if payload[0] == COM_QUERY else b""
            wrote |= statement.startswith((b"INSERT", b"UPDATE", b"DELETE"))
            if self.is_forgotten:
                continue
            if self.server.plans and wrote and statement == b"COMMIT":
                self.server.plans.pop(0)(self, header + payload)
            else:
                self.mariadb.sendall(header + payload)

    def _pass_responses(self) -> None:
        with contextlib.suppress(OSError):
            while (response := self.mariadb.recv(65536)) and not self.drop_response:
                self.connection.sendall(response)
        self.cut()


Plan = Callable[[Link, bytes], None]
"""What to do with a link on which this packet, the COMMIT of a write, has come from the service."""


def cut_before_commit(link: Link, _packet: bytes) -> None:
    link.cut()


def cut_before_the_response(link: Link, packet: bytes) -> None:
    """Cut once the server has responded, so that it has surely committed."""
    link.drop_response = True
    link.mariadb.sendall(packet)


def swallow(_link: Link, _packet: bytes) -> None:
    """Leave the service without a response, and the server without the packet."""


def respond_with(code: int, state: str, message: str) -> Plan:
    """Make a plan that responds with this error in the server's place, and leaves its transaction open."""

    def respond(link: Link, _packet: bytes) -> None:
        payload = b"\xff" + struct.pack("<H", code) + f"#{state}{message}".encode()
        link.connection.sendall(struct.pack("<I", len(payload))[:3] + b"\x01" + payload)

    return respond


class Proxy(socketserver.ThreadingTCPServer):
    """Passes everything on, but for the COMMITs that there is a plan for. Its links end with the service."""

    def __init__(self, mariadb_port: int) -> None:
        super().__init__(("127.0.0.1", 0), Link)
        self.port: int = self.server_address[1]
        self.mariadb_port = mariadb_port
        self.plans: list[Plan] = []
        """One for each of the COMMITs to come, first come first."""
        self.links: list[Link] = []

    def forget_links(self) -> None:
        """Pass nothing on from those that there are, as a firewall does with connections that have rested."""
        for link in self.links:
            link.is_forgotten = True


@contextlib.contextmanager
def run_proxy(mariadb_port: int) -> Iterator[Proxy]:
    with Proxy(mariadb_port) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=[0.05])
        thread.start()
        yield proxy
        proxy.shutdown()
        thread.join()
