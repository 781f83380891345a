"""Erasure: what is kept of one person is removed; that something happened to an id stays."""

import msgspec
from sqlalchemy import Connection, delete, select, text, update

from litestar_app.database import Database
from litestar_app.database.unit_of_work import UnitOfWork
from litestar_app.entries import AFTER, BEFORE, D, H
from litestar_app.exceptions import ConstraintError
from litestar_app.idempotency import ANY, KEYS, hash_stored_keys
from litestar_app.models import HISTORY
from litestar_app.students.exceptions import StudentNotFoundError
from litestar_app.students.reports import ImportedStudent, Report
from litestar_app.students.schemas import StudentRead

NOTHING = (None,) * len(BEFORE)
WIPE = dict.fromkeys([*BEFORE, *AFTER])


async def erase(database: Database, student_id: int, who: str) -> bool:
    """Delete a student who is still there, and what the history and stored responses hold of the person.

    Returns whether nothing of it is left in the files of SQLite; False while another transaction is in the way. Their
    rewriting is repeated even if nothing is kept: an earlier erasure, or a deletion without a history, may lack it.

    Raises:
        StudentNotFoundError: nothing is kept of such a student, and none is known to have had the id.

    """

    def erase(unit: UnitOfWork) -> bool:
        connection = unit.connection()
        imports = {row[0] for row in connection.execute(select(H.import_id).where(H.student_id == student_id))}
        names = _find_names(connection, student_id)
        wipe = update(HISTORY).where(H.student_id == student_id).values(WIPE)
        # and with that wait for an undo that is about to create the student again
        is_known = connection.execute(wipe).rowcount > 0
        if connection.execute(delete(D.id.table).where(D.id == student_id)).rowcount:
            is_known = True
            unit.changed(D.id.table, who, StudentRead(student_id, *NOTHING), None)
        elif connection.execute(select(D.id).where(D.id == student_id)).first():
            raise ConstraintError
        connection.execute(wipe)  # the entry of a write that has held the student until now
        hash_stored_keys(connection)
        return _wipe_responses(connection, student_id, names, imports) or is_known or _was_given(connection, student_id)

    is_known = await database.write(erase)
    is_complete = await database.rewrite()
    if is_complete and not is_known:
        raise StudentNotFoundError
    return is_complete


def _was_given(connection: Connection, student_id: int) -> bool:
    """Tell whether SQLite has given this id; a table of the tutorial does not remember, nor does MySQL."""
    if connection.dialect.name != "sqlite":
        return False
    newest = connection.execute(text("SELECT seq FROM sqlite_sequence WHERE name = 'students'")).scalar()
    return newest is not None and 0 < student_id <= newest


def _find_names(connection: Connection, student_id: int) -> set[str]:
    """Find the names that the person has, and has had as far as the history goes."""
    entries = select(H.before_name, H.after_name).where(H.student_id == student_id)
    rows = [*connection.execute(select(D.name).where(D.id == student_id)), *connection.execute(entries)]
    return {name for row in rows for name in row if name}


def _wipe_responses(connection: Connection, student_id: int, names: set[str], imports: set[int | None]) -> bool:
    """Take the student out of stored responses, and the rows out of reports that name the person or the id.

    Fingerprints of the requests go too, also of the imports that have written the student. The keys stay, hashed, or a
    retry would create the student again. Returns whether there was any such response.
    """

    def load(pattern: str) -> list[tuple[str, str]]:
        found = connection.execute(select(KEYS.c.key, KEYS.c.answer).where(KEYS.c.answer.like(pattern)))
        return [(key, answer) for key, answer in found]

    def save(key: str, response: StudentRead | Report) -> None:
        answer = msgspec.json.encode(response).decode()
        connection.execute(update(KEYS).where(KEYS.c.key == key).values(answer=answer, request=ANY))

    created = load(f'{{"id":{student_id},%')
    reports = [(key, answer, msgspec.json.decode(answer, type=Report)) for key, answer in load('{"import":%')]
    changes = [change for *_, report in reports for change in report.changes if change.id == student_id]
    students: list[StudentRead | ImportedStudent] = [
        msgspec.json.decode(answer, type=StudentRead) for _, answer in created
    ]
    students += [student for change in changes for student in (change.before, change.after) if student]
    written = [msgspec.json.encode(name)[1:-1] for name in names | {one.name for one in students if one.name}]
    for key, _ in created:
        save(key, StudentRead(student_id, *NOTHING))
    for key, answer, report in reports:
        if any(name in answer.encode() for name in written):
            save(key, msgspec.structs.replace(report, errors=[], changes=[]))
        elif report.import_ is not None and report.import_ in imports:
            save(key, report)
    return bool(students)
