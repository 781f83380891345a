"""Damaged requests by the thousand: `python -m tests.fuzz [--requests N] [--seed S] [--mariadb]`.

Nobody gets a 500; without a key nobody gets a student; without a key, and with that of a reader, nothing changes.
"""

import argparse
import asyncio
import contextlib
import random
import re
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from sqlalchemy import MetaData, create_engine

from litestar_app.settings import Settings
from tests.mariadb import run_mariadb
from tests.service import API_KEYS, AS_EDITOR, AS_READER, EDITOR_SECRET, READER_SECRET, Service

CANARY = "Canary"
"""The name of every student: who is not to see one does not see this."""
CONNECTIONS = 128
PATIENCE = 2
"""Seconds without a response after which the service waits for the rest of the request."""
STUDENT = f'{{"name": "{CANARY}", "department": "CSE", "cgpa": 8.9}}'.encode()
FORM = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\nContent-Type: text/csv\r\n\r\n'
CSV = f"name,department,cgpa\r\n{CANARY},CSE,8.9\r\n".encode()
TARGETS: list[tuple[str, str, bytes]] = [
    ("GET /student/1", "", b""),
    ("GET /student/1", 'If-None-Match: "abc", W/"d"', b""),
    ("HEAD /students", "", b""),
    ("GET /students?limit=2&sort=-cgpa,name&department=CSE&name=a&cgpa_min=1&cgpa_max=9.5&count=true", "", b""),
    ("GET /students?cursor=eyJhIjoxfQ&limit=5", "", b""),
    ("GET /students/export?format=csv&department=CSE", "", b""),
    ("GET /students/export?format=xlsx", "", b""),
    ("GET /departments", "", b""),
    ("GET /departments.svg", "", b""),
    ("GET /docs/assets/swagger-ui.css", "", b""),
    ("GET /openapi.json", "", b""),
    ("GET /health/ready", "", b""),
    ("OPTIONS /students", "Origin: http://x", b""),
    ("POST /student", "Content-Type: application/json\r\nIdempotency-Key: k", STUDENT),
    ("PUT /student/1", 'Content-Type: application/json\r\nIf-Match: "abc", *', STUDENT),
    ("PATCH /student/1", "Content-Type: application/merge-patch+json", b'{"cgpa": 1e0}'),
    ("DELETE /student/999999", 'If-Match: "a"', b""),
    ("POST /students/import?dry_run=false&mode=valid&match=name,department", "Content-Type: text/csv", CSV),
    ("POST /students/import", "Content-Type: application/x-ndjson", STUDENT + b"\n"),
    ("POST /students/import", "Content-Type: multipart/form-data; boundary=x", FORM + CSV + b"\r\n--x--\r\n"),
    ("POST /students/import?charset=utf-16", "Content-Type: application/json", b"[" + STUDENT + b"]"),
]
TOKENS = [
    b"\r\n", b"\n", b"\r\n\r\n", b"\0", b"\xff", b"\xed\xa0\x80", b"%00", b"%ff", b"%2e%2e/", b"../", b"//",
    b"?", b"&", b"=", b",", b";", b":", b'"', b"'", b"{", b"[" * 300, b"null", b"NaN", b"1e999", b"-0",
    b"99999999999999999999", b"-1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"GET", b"TRACE", b"CONNECT",
    b"Content-Length: 5\r\n", b"Content-Length: -1\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n", b"Upgrade: websocket\r\n", b"Connection: close\r\n", b"Host: evil\r\n",
    b"X-Forwarded-For: 127.0.0.1\r\n", b"Sec-Fetch-Site: none\r\n", b"Authorization: Bearer x\r\n",
    b"/student/", b"/students", b"/students/import", b"sr_", READER_SECRET[:20].encode(),
    b"\xf0\x9f\x91\xa9\xe2\x80\x8d", b"a" * 5000,
]  # fmt: skip


def make_request(rng: random.Random, headers: dict[str, str], damage: int) -> bytes:
    """Make a request with so many damages: anywhere, or in its target or body only, so that they reach the handlers."""
    line, fields, body = rng.choice(TARGETS)
    where = rng.choice(("target", "body" if body else "target", "anywhere", "anywhere"))
    if where == "target":
        method, _, target = line.partition(" ")
        line = f"{method} {change(rng, target.encode(), damage).decode('latin-1')}"
    elif where == "body":
        body = change(rng, body, damage)
    lines = [f"{line} HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in headers.items())]
    lines += [fields] if fields else []
    lines += [f"Content-Length: {len(body)}"] if body else []
    request = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
    return change(rng, request, damage) if where == "anywhere" else request


def change(rng: random.Random, given: bytes, damage: int) -> bytes:
    """Damage a text in so many places."""
    text = bytearray(given)
    for _ in range(damage):
        at = rng.randrange(len(text) + 1)
        match rng.randrange(6):
            case 0:
                text[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del text[at : at + rng.choice([1, 1, 2, 8, 40])]
            case 2:
                text[at:at] = rng.choice(TOKENS)
            case 3:
                end = min(len(text), at + rng.randrange(1, 60))
                text[at:at] = text[at:end]
            case 4:
                text[at : at + rng.randrange(1, 20)] = rng.choice(TOKENS)
            case 5:
                other = rng.choice(TARGETS)[0].partition(" ")[2].encode()
                start = text.find(b" ") + 1
                text[start : text.find(b" ", start)] = other
    return bytes(text)


async def exchange(port: int, request: bytes) -> bytes:
    """Send a request and return what comes back until nothing more does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    with contextlib.suppress(OSError, TimeoutError):
        writer.write(request)
        await writer.drain()
        while not received or not is_complete(received, request):
            async with asyncio.timeout(PATIENCE if not received else 5):
                if not (part := await reader.read(2**16)):
                    break
            received += part
    writer.transport.abort()
    return received


def is_complete(received: bytes, request: bytes) -> bool:
    """Tell whether a response has all that its head promises; good enough to go on sooner."""
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return False
    if request.startswith(b"HEAD ") or head.startswith((b"HTTP/1.1 304", b"HTTP/1.1 204")):
        return True
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    return len(body) >= int(length[1]) if length else body.endswith(b"0\r\n\r\n")


async def attack(port: int, count: int, rng: random.Random, headers: dict[str, str]) -> tuple[Counter[str], list[str]]:
    """Send damaged requests of one caller; return how often each status came, and what must not have been."""
    statuses: Counter[str] = Counter()
    problems: list[str] = []
    remaining = iter(range(count))

    async def work() -> None:
        for _ in remaining:
            request = make_request(rng, headers, rng.choice([0, 1, 1, 2, 3, 8]))
            response = await exchange(port, request)
            found = re.findall(rb"HTTP/1\.1 (\d{3})", response)
            statuses[found[0].decode() if found else "none"] += 1
            if b"500" in found:
                problems.append(f"500 for {request!r}")
            if not headers and CANARY.encode() in response:
                problems.append(f"a student for {request!r}: {response[:300]!r}")
            if EDITOR_SECRET.encode() in response:
                problems.append(f"a secret for {request!r}")

    await asyncio.gather(*[work() for _ in range(CONNECTIONS)])
    return statuses, problems


def dump(url: str) -> dict[str, list[object]]:
    """Return all that is stored, by table."""
    metadata, engine = MetaData(), create_engine(Settings(database_url=url).url)
    with engine.connect() as connection:
        metadata.reflect(connection)
        stored: dict[str, list[object]] = {
            table.name: [*connection.execute(table.select())] for table in metadata.sorted_tables
        }
    engine.dispose()
    return stored


def run(url: str, count: int, seed: int, directory: Path) -> list[str]:
    """Attack a service with keys as three callers; print what came back, and return what must not have."""
    problems: list[str] = []
    settings: dict[str, Any] = {"API_KEYS": API_KEYS, "MAX_CONNECTIONS_PER_CLIENT": CONNECTIONS + 10}
    with Service(directory, DATABASE_URL=url, LOG_LEVEL="warning", **settings) as service:
        client = service.client
        client.headers.update(AS_EDITOR)
        assert client.post("/students/import", content=CSV, headers={"Content-Type": "text/csv"}).status_code == 200
        assert service.process is not None
        process = psutil.Process(service.process.pid)
        before = process.memory_info().rss
        for name, headers in (("no key", {}), ("a reader", AS_READER), ("an editor", AS_EDITOR)):
            stored, began = dump(url), time.perf_counter()
            statuses, found = asyncio.run(attack(service.port, count // 3, random.Random(f"{seed}-{name}"), headers))
            problems += found
            if name != "an editor" and dump(url) != stored:
                problems.append(f"{name} has changed what is stored")
            rate = count // 3 / (time.perf_counter() - began)
            print(f"{name}: {count // 3:,} requests, {rate:,.0f} a second: {dict(statuses.most_common())}", flush=True)
        if client.get("/students").status_code != 200:
            problems.append("it does not serve any more")
        print(f"memory: {before / 2**20:.0f} MB before, {process.memory_info().rss / 2**20:.0f} MB after")
        service.stop()
    if "Traceback" in service.log():
        problems.append(service.log()[-2000:])
    return problems


def main() -> None:
    """Attack, and end with exit code 1 where something must not have been."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mariadb", action="store_true", help="on a throwaway server, not on SQLite")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="fuzz-")))
        url = f"sqlite:///{directory}/students.db"
        if given.mariadb:
            url = stack.enter_context(run_mariadb()).create_database("fuzz")
        problems = run(url, given.requests, given.seed, directory)
    for problem in problems[:20]:
        print(problem)
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
