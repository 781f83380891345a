"""History against a model: whatever is written, imported and undone, entries and students are those of plain Python."""

from collections.abc import Callable
from typing import Any, TypeAlias

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Rows
from tests.service import ANANYA
from tests.test_history import assert_changed, import_file, undo

Values: TypeAlias = tuple[str, str, int]
FIELDS = ("name", "department", "cgpa")
NOTHING = (None, None, None)
VALUES = st.tuples(st.sampled_from(["Ananya", "Boris"]), st.sampled_from(["CSE", "ECE"]), st.integers(0, 2))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("create"), VALUES),
        st.tuples(st.just("replace"), st.integers(0, 5), VALUES),
        st.tuples(st.just("delete"), st.integers(0, 5)),
        st.tuples(st.just("import"), st.lists(VALUES, max_size=2), st.dictionaries(st.integers(0, 4), VALUES)),
        st.tuples(st.just("undo"), st.integers(1, 4)),
    ),
    max_size=14,
)


class Model:
    """Does each step twice: with the service and in plain Python; the responses must agree."""

    def __init__(self, client: httpx.Client, next_id: int, next_import: int) -> None:
        self.client = client
        self.students: dict[int, Values] = {}
        self.history: list[tuple[int, int | None, Values | None, Values | None]] = []
        self.next_id, self.first_import, self.next_import = next_id, next_import, next_import

    def write(self, student_id: int, after: Values | None, number: int | None = None) -> None:
        before = self.students.pop(student_id, None)
        if after is not None:
            self.students[student_id] = after
        if before != after:
            self.history.append((student_id, number, before, after))

    def choose(self, choice: int) -> tuple[int, int]:
        """Choose one who is or was there; return the id, and the status of a write."""
        known = sorted({entry[0] for entry in self.history})
        student_id = known[choice % len(known)] if known else self.next_id
        return student_id, 200 if student_id in self.students else 404

    def create(self, values: Values) -> None:
        response = self.client.post("/student", json=dict(zip(FIELDS, values, strict=True)))
        assert (response.status_code, response.json()["id"]) == (201, self.next_id)
        self.write(self.next_id, values)
        self.next_id += 1

    def replace(self, choice: int, values: Values) -> None:
        student_id, status = self.choose(choice)
        body = dict(zip(FIELDS, values, strict=True))
        assert self.client.put(f"/student/{student_id}", json=body).status_code == status
        if status == 200:
            self.write(student_id, values)

    def delete(self, choice: int) -> None:
        student_id, status = self.choose(choice)
        assert self.client.delete(f"/student/{student_id}").status_code == status
        self.write(student_id, None)

    def import_(self, created: list[Values], changed: dict[int, Values]) -> None:
        there = sorted(self.students)
        rows: dict[int, Values] = {there[at]: values for at, values in changed.items() if at < len(there)}
        lines = [f"{student_id},{','.join(map(str, values))}" for student_id, values in rows.items()]
        lines += [f",{','.join(map(str, values))}" for values in created]
        assert import_file(self.client, "\n".join(["id,name,department,cgpa", *lines])) == self.next_import
        if created:  # MySQL leaves gaps
            ids = [row["id"] for row in self.client.get("/students?sort=-id").json()[: len(created)]]
            rows |= dict(zip(reversed(ids), created, strict=True))
            self.next_id = self.find_next_id()
        for student_id, values in rows.items():
            self.write(student_id, values, self.next_import)
        self.next_import += 1

    def find_next_id(self) -> int:
        probe = self.client.post("/student", json=ANANYA).json()["id"]
        values = tuple(ANANYA.values())
        self.history += [(probe, None, None, values), (probe, None, values, None)]  # type: ignore[list-item]
        assert self.client.delete(f"/student/{probe}").status_code == 200
        return int(probe) + 1

    def undo(self, back: int) -> None:
        number = self.next_import - back
        if number < self.first_import:
            return
        entries = [entry for entry in self.history if entry[1] == number]
        latest = {entry[0]: entry for entry in self.history}
        response = undo(self.client, number)
        if changed := sorted(entry[0] for entry in entries if latest[entry[0]] is not entry):
            assert_changed(response, changed)
            return
        assert (response.status_code, response.json()["import"]) == (200, self.next_import)
        for student_id, _, before, _ in entries:
            self.write(student_id, before, self.next_import)
        self.next_import += 1


@given(steps=STEPS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_history_is_that_of_a_model(
    client: httpx.Client, query: Callable[..., Rows], steps: list[tuple[Any, ...]]
) -> None:
    for table in ("students", "history"):
        query(f"DELETE FROM {table}")
    probe = client.post("/student", json=ANANYA).json()["id"]
    model = Model(client, probe + 1, import_file(client, "id,cgpa\n") + 1)
    model.students[probe] = tuple(ANANYA.values())  # type: ignore[assignment]
    model.history.append((probe, None, None, model.students[probe]))
    run = {name.strip("_"): getattr(model, name) for name in ("create", "replace", "delete", "import_", "undo")}
    for name, *arguments in steps:
        run[name](*arguments)
    students = [(student_id, *values) for student_id, values in sorted(model.students.items())]
    assert query("SELECT id, name, department, cgpa FROM students ORDER BY id") == students
    columns = ", ".join(f"{when}_{field}" for when in ("before", "after") for field in FIELDS)
    assert query(f"SELECT student_id, import_id, {columns} FROM history ORDER BY student_id, id") == [
        (student_id, number, *(before or NOTHING), *(after or NOTHING))
        for student_id, number, before, after in sorted(model.history, key=lambda entry: entry[0])
    ]
