"""One application in a process of its own, called without a server; driven by in_process.py over a pipe.

A line on standard input names a kind of request, how many of them, and the first id that may be deleted; the response
is the seconds that they took. Ids are random but the same for every application.
"""

import asyncio
import gc
import importlib
import os
import random
import sys
import time
from typing import Any, TextIO

import uvloop

BODY = b'{"name": "Student Number 1234", "department": "Physics", "cgpa": 8.25}'
HEADERS = [
    (b"host", b"127.0.0.1:8000"),
    (b"user-agent", b"python-httpx/0.28.1"),
    (b"accept", b"*/*"),
    (b"accept-encoding", b"gzip, deflate"),
    (b"connection", b"keep-alive"),
]
BODY_HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]


class Exchange:
    """The receive and send of one request, as uvicorn gives them to an application."""

    def __init__(self, body: bytes) -> None:
        """Hold the body that the application may receive."""
        self.body: bytes | None = body
        self.status = 0
        self.complete = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        """Give the body once; then wait for the end of the response, as a connected client does."""
        if self.body is None:
            await self.complete.wait()
            return {"type": "http.disconnect"}
        body, self.body = self.body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: dict[str, Any]) -> None:
        """Note the status, and when all is sent."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif not message.get("more_body", False):
            self.complete.set()


class Application:
    """An ASGI application between its start and its end."""

    def __init__(self, target: str, seeded: int) -> None:
        """Import `module:attribute`; ids up to `seeded` are in the database."""
        module, _, attribute = target.partition(":")
        self.app = getattr(importlib.import_module(module), attribute)
        self.state: dict[str, Any] = {}
        self.seeded = seeded

    async def start(self) -> None:
        """Run the lifespan until start-up is complete."""
        self.to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.from_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        self.lifespan = asyncio.create_task(self.app(scope, self.to_app.get, self.from_app.put))
        await self.pass_on("lifespan.startup")

    async def stop(self) -> None:
        """Run the lifespan to its end."""
        await self.pass_on("lifespan.shutdown")
        await self.lifespan

    async def pass_on(self, event: str) -> None:
        """Send a lifespan event; raise RuntimeError where the application fails at it."""
        await self.to_app.put({"type": event})
        response = await self.from_app.get()
        if response["type"] != f"{event}.complete":
            raise RuntimeError(f"{event}: {response.get('message', '')}")

    async def request(self, method: str, path: str, query: bytes = b"") -> None:
        """Call the application once; raise RuntimeError where the response is not 2xx."""
        has_body = method in {"POST", "PUT"}
        exchange = Exchange(BODY if has_body else b"")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "server": ("127.0.0.1", 8000),
            "client": ("127.0.0.1", 50_000),
            "scheme": "http",
            "root_path": "",
            "headers": [*HEADERS, *BODY_HEADERS] if has_body else [*HEADERS],
            "state": self.state.copy(),
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query,
        }
        await self.app(scope, exchange.receive, exchange.send)
        if not 200 <= exchange.status < 300:
            raise RuntimeError(f"{method} {path} answered {exchange.status}")

    async def measure(self, kind: str, count: int, first_to_delete: int) -> float:
        """Return the seconds that `count` requests of a kind take, one after the other."""
        ids = [random.randint(1, self.seeded) for _ in range(count)]
        if kind == "delete":
            ids = list(range(first_to_delete, first_to_delete + count))
        gc.collect()
        started = time.perf_counter()
        for key in ids:
            match kind:
                case "get":
                    await self.request("GET", f"/student/{key}")
                case "list":
                    await self.request("GET", "/students", b"limit=100")
                case "post":
                    await self.request("POST", "/student")
                case "put":
                    await self.request("PUT", f"/student/{key}")
                case "delete":
                    await self.request("DELETE", f"/student/{key}")
        return time.perf_counter() - started


def serve(target: str, seeded: int, responses: TextIO) -> None:
    """Start an application, response commands until the input ends, stop it."""
    random.seed(1)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        application = Application(target, seeded)
        runner.run(application.start())
        responses.write("ready\n")
        for line in sys.stdin:
            kind, count, first_to_delete = line.split()
            seconds = runner.run(application.measure(kind, int(count), int(first_to_delete)))
            responses.write(f"{seconds}\n")
        runner.run(application.stop())


if __name__ == "__main__":
    # What the application prints goes to standard error, and cannot be taken for a response.
    with os.fdopen(os.dup(1), "w", buffering=1) as pipe:
        os.dup2(2, 1)
        serve(sys.argv[1], int(sys.argv[2]), pipe)
