"""A look, before the load, whether a candidate does what is measured: a fast wrong response is no response."""

from typing import Any

from tests.benchmarks.databases import SEEDED
from tests.benchmarks.processes import Server

CREATED = {"name": "Grace Hopper", "department": "Mathematics", "cgpa": 9.5}
CHANGED = {"name": "Grace B. Hopper", "department": "Physics", "cgpa": 8.5}


def check_contract(server: Server) -> None:
    """Send every kind of request and look at what is stored; RuntimeError where it is not what was sent."""
    created = expect(server, "POST", "/student", CREATED)
    path = f"/student/{created['id']}"
    require(created["id"] > SEEDED and expect(server, "GET", path) == {"id": created["id"], **CREATED}, "POST")
    expect(server, "PUT", path, CHANGED)
    require(expect(server, "GET", path) == {"id": created["id"], **CHANGED}, "PUT")
    students = expect(server, "GET", "/students?limit=3&offset=1")
    require([student["id"] for student in students] == [2, 3, 4], "GET /students with limit and offset")
    require(len(expect(server, "GET", "/students")) == 100, "GET /students")
    expect(server, "DELETE", path)
    require(server.request("GET", path)[0] == 404, "DELETE")


def expect(server: Server, method: str, path: str, data: dict[str, Any] | None = None) -> Any:
    status, content = server.request(method, path, data)
    require(200 <= status < 300, f"{method} {path} ({status})")
    return content


def require(condition: object, what: str) -> None:
    if not condition:
        raise RuntimeError(f"{what} does not do what the common API says")
