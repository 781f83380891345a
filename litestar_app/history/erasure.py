"""Erasure: what is kept of one person is removed; that something happened to an id stays."""

import msgspec
from sqlalchemy import Connection, delete, select, update
from sqlalchemy.orm import Session

from litestar_app.database import Database
from litestar_app.entries import AFTER, BEFORE, HISTORY, D, H, HistoryLog
from litestar_app.exceptions import ConstraintError, StudentNotFoundError
from litestar_app.idempotency import KEYS
from litestar_app.students.schemas import StudentRead
from litestar_app.transfer.schemas import Report

WIPE = dict.fromkeys([*BEFORE, *AFTER])


async def erase(database: Database, history: HistoryLog, student_id: int, who: str) -> bool:
    """Delete a student who is still there, and what the history and stored responses hold of the person.

    Returns whether nothing of it is left in the files of SQLite; False while another transaction is in the way.

    Raises:
        StudentNotFoundError: nothing is kept of such a student.

    """

    def erase(session: Session) -> None:
        connection = session.connection()
        names = _find_names(connection, student_id)
        wipe = update(HISTORY).where(H.student_id == student_id).values(WIPE)
        connection.execute(wipe)  # and with that wait for an undo that is about to create the student again
        if connection.execute(delete(D.id.table).where(D.id == student_id)).rowcount:
            history.add(session, who, "delete", student_id)
        elif connection.execute(select(D.id).where(D.id == student_id)).first():
            raise ConstraintError
        connection.execute(wipe)  # the entry of a write that has held the student until now
        _wipe_responses(connection, student_id, names)

    await database.write(erase)
    return await database.rewrite()


def _find_names(connection: Connection, student_id: int) -> set[str]:
    """Find all names that the person has had, or raise StudentNotFoundError."""
    entries = select(H.before_name, H.after_name).where(H.student_id == student_id)
    rows = [*connection.execute(select(D.name).where(D.id == student_id)), *connection.execute(entries)]
    if not rows:
        raise StudentNotFoundError
    return {name for row in rows for name in row if name}


def _wipe_responses(connection: Connection, student_id: int, names: set[str]) -> None:
    """Take the student out of stored responses, and the rows out of reports that name the person.

    The keys stay, or a retry would create the student again.
    """
    nobody = msgspec.json.encode(StudentRead(student_id, None, None, None)).decode()
    created = KEYS.c.answer.like(f'{{"id":{student_id},%')
    connection.execute(update(KEYS).where(created).values(answer=nobody))
    written = [msgspec.json.encode(name)[1:-1] for name in names]
    for key, answer in connection.execute(select(KEYS.c.key, KEYS.c.answer).where(KEYS.c.answer.like('{"import":%'))):
        if any(name in answer.encode() for name in written):
            report = msgspec.structs.replace(msgspec.json.decode(answer, type=Report), errors=[], changes=[])
            text = msgspec.json.encode(report).decode()
            connection.execute(update(KEYS).where(KEYS.c.key == key).values(answer=text))
