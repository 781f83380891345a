"""A load generator for machines without wrk: asyncio and httptools, several times slower than wrk."""

import asyncio
import random
import sys
import time
from collections.abc import Iterator
from typing import Any

import httptools
import msgspec
import uvloop

from tests.benchmarks.results import Measurement


def student() -> bytes:
    return b'{"name": "Student Number %d", "department": "Physics", "cgpa": %.2f}' % (
        random.randint(1, 100_000),
        random.random() * 10,
    )


def make_request(method: str, path: str, body: bytes = b"") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def make_requests(shares: dict[str, int], seeded: int, first_to_delete: int) -> Iterator[bytes]:
    """Give requests without end, in the proportions of `shares`."""
    kinds = random.choices(list(shares), weights=list(shares.values()), k=10_000)
    while True:
        for kind in kinds:
            any_path = f"/student/{random.randint(1, seeded)}"
            match kind:
                case "get":
                    yield make_request("GET", any_path)
                case "list":
                    yield make_request("GET", "/students?limit=100")
                case "post":
                    yield make_request("POST", "/student", student())
                case "put":
                    yield make_request("PUT", any_path, student())
                case "delete":
                    yield make_request("DELETE", f"/student/{first_to_delete}")
                    first_to_delete += 1
                case path:
                    yield make_request("GET", path)


class Connection(asyncio.Protocol):
    """One connection that sends the next request when the response to the last one is complete."""

    def __init__(self, requests: Iterator[bytes]) -> None:
        """Take the requests from an iterator that connections may share."""
        self.requests = requests
        self.latencies: list[float] = []
        self.errors = 0
        self.stopped = False

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self.transport = transport
        self.send()

    def send(self) -> None:
        """Write the next request and start its clock."""
        self.parser = httptools.HttpResponseParser(self)
        self.started = time.perf_counter()
        self.transport.write(next(self.requests))

    def data_received(self, data: bytes) -> None:
        """Hand bytes to the parser, which calls on_message_complete."""
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Count the response and go on."""
        if self.stopped:
            return
        if 200 <= self.parser.get_status_code() < 300:
            self.latencies.append(time.perf_counter() - self.started)
        else:
            self.errors += 1
        asyncio.get_running_loop().call_soon(self.send)

    def connection_lost(self, _: Exception | None) -> None:
        """Count an end that the server made."""
        if not self.stopped:
            self.errors += 1
            self.stopped = True


async def apply_load(port: int, seconds: float, connections: int, requests: Iterator[bytes]) -> Measurement:
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    clients = [
        (await loop.create_connection(lambda: Connection(requests), "127.0.0.1", port))[1] for _ in range(connections)
    ]
    await asyncio.sleep(seconds)
    for client in clients:
        client.stopped = True
        client.transport.close()
    latencies = sorted(latency for client in clients for latency in client.latencies) or [0.0]
    return Measurement(
        responses=len(latencies),
        seconds=round(time.perf_counter() - started, 3),
        p50_ms=round(latencies[len(latencies) // 2] * 1e3, 3),
        p99_ms=round(latencies[len(latencies) * 99 // 100] * 1e3, 3),
        errors=sum(client.errors for client in clients),
    )


def main(port: str, seconds: str, connections: str, seeded: str, first_to_delete: str, *shares: str) -> None:
    random.seed(1)
    parts = (share.rsplit("=", 1) for share in shares)
    requests = make_requests({kind: int(percent) for kind, percent in parts}, int(seeded), int(first_to_delete))
    result = uvloop.run(apply_load(int(port), float(seconds), int(connections), requests))
    print("RESULT", msgspec.json.encode(result).decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
