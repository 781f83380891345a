"""Random requests from several clients, over HTTP, against a dict that says what each of them must response."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, ClassVar

import httpx
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.conftest import Rows
from tests.service import connect, serve_database

CLIENTS = 3
names = st.sampled_from(["Ananya", "Bilal", "Chandra", "Ångström", "李雷"])
bodies = st.fixed_dictionaries(
    {"name": names, "department": st.sampled_from(["CSE", "EEE"]), "cgpa": st.sampled_from([0.0, 7.25, 8.9, 10.0])}
)
changes = st.fixed_dictionaries(
    {}, optional={"name": names, "department": st.sampled_from(["CSE", "EEE"]), "cgpa": st.sampled_from([0.1, 8.9])}
)
clients = st.integers(0, CLIENTS - 1)
picks = st.integers(0, 1000)
"""Which of the students that there ever were; some of them are gone."""
conditions = st.sampled_from(["none", "any", "right", "stale", "right in a list", "weak"])
MISSING = (404, "Student not found")
CHANGED = (412, "The student has changed since this ETag; fetch it and retry")

Student = dict[str, Any]


def make_student(student_id: int, body: Student) -> Student:
    return {"id": student_id, **{column: body[column] for column in ("name", "department", "cgpa")}}


class Model(RuleBasedStateMachine):
    """The students as a dict, held against a service that all examples share."""

    wires: ClassVar[list[httpx.Client]]
    query: ClassVar[Callable[..., Rows]]
    versions: ClassVar[dict[str, Student]]
    """What was seen under each tag; a tag of a version stands for nothing else, ever."""

    def __init__(self) -> None:
        super().__init__()
        self.students: dict[int, Student] = {}
        self.etags: dict[int, list[str]] = {}
        """Every version that a student has had, the present one last."""
        self.first_responses: dict[str, tuple[Student, httpx.Response]] = {}
        self.newest = 0

    @initialize()
    def begin(self) -> None:
        self.query("DELETE FROM students")
        self.query("DELETE FROM idempotency_keys")

    def choose(self, pick: int) -> int:
        """Choose a student who is there or was, or an id that nobody has had."""
        ids = [*self.etags, self.newest + 1000]
        return ids[pick % len(ids)]

    def see(self, response: httpx.Response, student: Student) -> None:
        """Compare an response that shows a student, and learn the version."""
        assert response.json() == student
        etags = self.etags.setdefault(student["id"], [])
        etag = response.headers["ETag"]
        assert etag.startswith('"')
        assert self.versions.setdefault(etag, {**student}) == student
        if not etags or etags[-1] != etag:
            etags.append(etag)

    def condition(self, student_id: int, kind: str) -> tuple[dict[str, str], bool]:
        """Make If-Match and say whether it holds for a student who is there."""
        etags = self.etags.get(student_id, ['"none"'])
        stale = next((etag for etag in etags if etag != etags[-1]), '"stale"')
        header = {
            "none": {},
            "any": {"If-Match": "*"},
            "right": {"If-Match": etags[-1]},
            "stale": {"If-Match": stale},
            "right in a list": {"If-Match": f'{stale}, "x" ,{etags[-1]}'},
            "weak": {"If-Match": f"W/{etags[-1]}"},
        }[kind]
        return header, kind not in {"stale", "weak"}

    def refused(self, response: httpx.Response, student_id: int, *, holds: bool) -> bool:
        """Check a refusal where there must be one."""
        if student_id in self.students and holds:
            return False
        problem = response.json()
        expected = CHANGED if student_id in self.students else MISSING
        assert (response.status_code, problem["detail"]) == expected
        assert response.headers["Content-Type"] == "application/problem+json"
        return True

    @rule(client=clients, body=bodies)
    def create(self, client: int, body: Student) -> None:
        self.learn(self.wires[client].post("/student", json=body), body)

    def learn(self, response: httpx.Response, body: Student) -> None:
        assert response.status_code == 201
        student_id = response.json()["id"]
        assert student_id > self.newest, "an id given twice"
        self.newest = student_id
        self.students[student_id] = make_student(student_id, body)
        assert response.headers["Location"] == f"/student/{student_id}"
        self.see(response, self.students[student_id])

    @rule(client=clients, body=bodies, key=st.sampled_from("abc"))
    def create_under_a_key(self, client: int, body: Student, key: str) -> None:
        response = self.wires[client].post("/student", json=body, headers={"Idempotency-Key": key})
        if key not in self.first_responses:
            self.learn(response, body)
            self.first_responses[key] = (body, response)
        elif self.first_responses[key][0] != body:
            assert response.status_code == 422
        else:
            self.assert_is_repeated(response, key)

    @precondition(lambda self: self.first_responses)
    @rule(client=clients, pick=picks)
    def repeat(self, client: int, pick: int) -> None:
        key = [*self.first_responses][pick % len(self.first_responses)]
        body, _ = self.first_responses[key]
        self.assert_is_repeated(self.wires[client].post("/student", json=body, headers={"Idempotency-Key": key}), key)

    def assert_is_repeated(self, response: httpx.Response, key: str) -> None:
        """The first response comes again, whatever has become of the student since."""
        _, first = self.first_responses[key]
        assert (response.status_code, response.content) == (201, first.content)
        for header in ("ETag", "Location"):
            assert response.headers[header] == first.headers[header]

    @rule(client=clients, pick=picks, kind=st.sampled_from(["none", "any", "right", "stale", "weak"]))
    def get(self, client: int, pick: int, kind: str) -> None:
        student_id = self.choose(pick)
        headers, _ = self.condition(student_id, kind)
        if headers:
            headers = {"If-None-Match": headers["If-Match"]}
        response = self.wires[client].get(f"/student/{student_id}", headers=headers)
        if self.refused(response, student_id, holds=True):
            return
        if kind in {"any", "right", "weak"}:
            assert (response.status_code, response.content) == (304, b"")
            assert response.headers["ETag"] == self.etags[student_id][-1]
        else:
            assert response.status_code == 200
            self.see(response, self.students[student_id])

    @rule(client=clients, limit=st.integers(1, 4), offset=st.integers(0, 4))
    def list_some(self, client: int, limit: int, offset: int) -> None:
        response = self.wires[client].get(f"/students?limit={limit}&offset={offset}")
        assert response.status_code == 200
        assert response.json() == [*self.students.values()][offset : offset + limit]

    @rule(client=clients, pick=picks, body=bodies, kind=conditions, own_id=st.booleans())
    def put(self, client: int, pick: int, body: Student, kind: str, *, own_id: bool) -> None:
        student_id = self.choose(pick)
        headers, holds = self.condition(student_id, kind)
        sent = {"id": student_id, **body} if own_id else body
        response = self.wires[client].put(f"/student/{student_id}", json=sent, headers=headers)
        if not self.refused(response, student_id, holds=holds):
            assert response.status_code == 200
            self.students[student_id] = make_student(student_id, body)
            self.see(response, self.students[student_id])

    @rule(client=clients, pick=picks, change=changes, kind=conditions)
    def patch(self, client: int, pick: int, change: Student, kind: str) -> None:
        student_id = self.choose(pick)
        headers, holds = self.condition(student_id, kind)
        response = self.wires[client].patch(f"/student/{student_id}", json=change, headers=headers)
        if not self.refused(response, student_id, holds=holds):
            assert response.status_code == 200
            self.students[student_id] |= change
            self.see(response, self.students[student_id])

    @rule(client=clients, pick=picks, kind=conditions)
    def delete(self, client: int, pick: int, kind: str) -> None:
        student_id = self.choose(pick)
        headers, holds = self.condition(student_id, kind)
        response = self.wires[client].delete(f"/student/{student_id}", headers=headers)
        if not self.refused(response, student_id, holds=holds):
            assert (response.status_code, response.json()) == (200, {"message": "Student deleted successfully"})
            del self.students[student_id]

    @rule()
    def is_what_the_database_holds(self) -> None:
        if self.newest:
            rows = self.query("SELECT id, name, department, cgpa FROM students ORDER BY id")
            assert rows == [tuple(student.values()) for student in self.students.values()]

    def teardown(self) -> None:
        self.is_what_the_database_holds()


@pytest.fixture
def model(database_url: str, query: Callable[..., Rows]) -> Iterator[type[Model]]:
    """The model with a service to hold against it."""
    with ExitStack() as stack:
        first = stack.enter_context(serve_database(database_url))
        wires = [first, *(stack.enter_context(connect(str(first.base_url))) for _ in range(CLIENTS - 1))]
        yield type("BoundModel", (Model,), {"wires": wires, "query": staticmethod(query), "versions": {}})


def test_random_requests_from_several_clients_do_what_the_model_says(model: type[Model]) -> None:
    run_state_machine_as_test(
        model, settings=settings(max_examples=25, stateful_step_count=30, deadline=None, database=None)
    )
