"""A proxy in front of MariaDB that can come between a COMMIT and its response."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

COM_QUERY = 3


@dataclass
class Link:
    """One connection of the service, and the one that the proxy has made for it."""

    client: socket.socket
    server: socket.socket
    drop_response: bool = False

    @property
    def server_port(self) -> int:
        """The port that MariaDB sees the service come from."""
        port: int = self.server.getsockname()[1]
        return port

    def cut(self) -> None:
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


Plan = Callable[[Link, bytes], None]
"""What to do with a link on which this packet, the COMMIT of a write, has come from the service."""


def cut_before_the_server_gets_it(link: Link, _packet: bytes) -> None:
    link.cut()


def cut_before_the_response(link: Link, packet: bytes) -> None:
    """Cut once the server has answered, so that it has surely committed."""
    link.drop_response = True
    link.server.sendall(packet)


def swallow(_link: Link, _packet: bytes) -> None:
    """Leave the service without an response, and the server without the packet."""


def respond_with(code: int, state: str, message: str) -> Plan:
    """Make a plan that responses with this error in the server's place, and leaves its transaction open."""

    def respond(link: Link, _packet: bytes) -> None:
        payload = b"\xff" + struct.pack("<H", code) + f"#{state}{message}".encode()
        link.client.sendall(struct.pack("<I", len(payload))[:3] + b"\x01" + payload)

    return respond


class Proxy:
    """Passes everything on, but for the COMMITs that there is a plan for."""

    def __init__(self, server_port: int) -> None:
        self.plans: list[Plan] = []
        """One for each of the COMMITs to come, first come first."""
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._links: list[Link] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        for link in self._links:
            link.cut()
        for thread in self._threads:
            thread.join()
        for link in self._links:
            link.client.close()
            link.server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                link = Link(client, socket.create_connection(("127.0.0.1", self._server_port)))
                self._links.append(link)
                for pump in (self._pump_up, self._pump_down):
                    self._threads.append(threading.Thread(target=pump, args=(link,)))
                    self._threads[-1].start()

    def _pump_up(self, link: Link) -> None:
        try:
            with contextlib.suppress(OSError), link.client.makefile("rb") as packets:
                wrote = False  # the driver ends its greeting with a COMMIT too
                while len(header := packets.read(4)) == 4:
                    payload = packets.read(int.from_bytes(header[:3], "little"))
                    statement = payload[1:].upper() if payload[0] == COM_QUERY else b""
                    wrote |= statement.startswith((b"INSERT", b"UPDATE", b"DELETE"))
                    if self.plans and wrote and statement == b"COMMIT":
                        self.plans.pop(0)(link, header + payload)
                    else:
                        link.server.sendall(header + payload)
        finally:
            link.cut()

    def _pump_down(self, link: Link) -> None:
        with contextlib.suppress(OSError):
            while (response := link.server.recv(65536)) and not link.drop_response:
                link.client.sendall(response)
        link.cut()


@contextlib.contextmanager
def run_proxy(server_port: int) -> Iterator[Proxy]:
    proxy = Proxy(server_port)
    try:
        yield proxy
    finally:
        proxy.close()
