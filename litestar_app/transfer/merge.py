"""Merging: rows in a temporary table become students, by statements about all of them at once."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Double,
    Integer,
    MetaData,
    String,
    Table,
    and_,
    case,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session
from sqlalchemy.schema import CreateTable

from litestar_app.entries import FIELDS, ImportLog
from litestar_app.exceptions import DatabaseUnavailableError
from litestar_app.models import MYSQL
from litestar_app.students.listing import STUDENTS
from litestar_app.students.schemas import StudentRead
from litestar_app.transfer.formats import ImportRow, Match
from litestar_app.transfer.formats.readers import RULES
from litestar_app.transfer.formats.rows import BITS
from litestar_app.transfer.schemas import ImportChange, ImportedStudent, ImportProblem

STAGED = Table(
    "import_rows",
    MetaData(),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("id", BigInteger),
    Column("name", String(100)),
    Column("department", String(100)),
    Column("cgpa", Double),
    Column("given", Integer),
    Column("emptied", Integer),
    Column("target", BigInteger),
    Column("matches", Integer),
    Column("twin", Integer),
    Column("changed", Integer),
    Column("is_wrong", Integer, server_default="0"),
    prefixes=["TEMPORARY"],
    **MYSQL,
)
"""Rows of a file, as `ImportRow` has them; then which student each is, how many it could be, the row that is the same
student, which columns change, and whether it is rejected."""
PART = 10_000
"""Rows of which a statement takes care, so that none takes as long as a server that hangs."""
CACHE = 64 * 1024
"""KiB that SQLite may keep of the indexes while it merges."""
STAGED_COLUMNS = ("number", "id", *FIELDS, "given", "emptied")
KEYS: dict[Match, str] = {"id": "id", "name,department": "name, department"}
"""What two rows of the same student have in common."""
MERGE_LOCK = (
    "SELECT GET_LOCK(IF(CHAR_LENGTH(DATABASE()) > 57, SHA2(DATABASE(), 256), CONCAT(DATABASE(), '.import')), 5)"
)
"""Of at most 64 characters, as MySQL wants it; the hash of a database's name has as many. Older releases know the other
form only, so that it stays."""
MERGE_LOCK_TRIES = 12
"""Imports on MySQL take turns, or each would create the students whom the other has not committed yet. How often five
seconds are waited for that: longer than a hung server may let one statement wait."""
ROUNDING = 5.1e-15
"""How far a CGPA that a spreadsheet has saved, with 15 digits, may be from the one that was exported."""
S, D = STAGED.c, STUDENTS.c
Execute: TypeAlias = Callable[..., Any]


def stage(connection: Connection, batches: Iterable[list[ImportRow]], match: Match) -> None:
    """Write rows into a temporary table of the connection, past SQLAlchemy, which would begin by the lock to write.

    Each row that is the same student as an earlier one is marked. On MySQL it returns when it is this import's turn.
    """
    dialect = connection.dialect
    dbapi_connection: Any = connection.connection.dbapi_connection
    cursor = dbapi_connection.cursor()
    mark = "?" if dialect.name == "sqlite" else "%s"
    statement = f"INSERT INTO import_rows ({', '.join(STAGED_COLUMNS)}) VALUES ({', '.join([mark] * 7)})"  # noqa: S608
    cursor.execute(str(CreateTable(STAGED).compile(dialect=dialect)))
    if dialect.name == "sqlite":
        cursor.execute(f"PRAGMA cache_size=-{CACHE}")
    else:
        cursor.execute("SELECT @@max_allowed_packet")
        cursor.max_stmt_length = min(cursor.max_stmt_length, cursor.fetchone()[0] // 2)  # of many rows at once
    cursor.execute("BEGIN")
    for rows in batches:
        cursor.executemany(statement, rows)
    if match != "none":
        key = KEYS[match]
        # of one mention of the table, since MySQL opens a temporary one only once in a statement
        twins = (
            f"SELECT first, number FROM (SELECT number, MIN(number) OVER (PARTITION BY {key}) AS first "  # noqa: S608
            f"FROM import_rows WHERE {key.partition(',')[0]} IS NOT NULL) AS grouped WHERE first < number"
        )
        cursor.execute(twins)
        found = cursor.fetchall()
        cursor.executemany(f"UPDATE import_rows SET twin = {mark}, is_wrong = 1 WHERE number = {mark}", found)  # noqa: S608
    dbapi_connection.commit()
    if dialect.name != "sqlite":
        _take_turn(cursor)
    cursor.close()


def _take_turn(cursor: Any) -> None:
    """Wait for the imports of others, before the merge, which other writes of this process wait for.

    The connection, which is closed after the import, gives the turn back.
    """
    for _ in range(MERGE_LOCK_TRIES):
        cursor.execute(MERGE_LOCK)
        if cursor.fetchone() == (1,):
            return
    raise DatabaseUnavailableError("other imports are running")


class Merge:
    """The merge of staged rows, in one transaction: find what each row is, then write."""

    def __init__(self, session: Session, match: Match, *, is_rounded: bool = False) -> None:
        """Take what tells that a row is a student, and whether the file may have lost digits in a spreadsheet."""
        self._connection = session.connection()
        self._is_rounded = is_rounded
        self._execute = self._connection.execute
        self._match = match
        last = self._execute(select(func.coalesce(func.max(S.number), 0))).scalar_one()
        self._parts = [S.number.between(first, first + PART - 1) for first in range(0, last + 1, PART)]

    def compare(self) -> None:
        """Find the student of each row, and which rows are wrong; lock the students that are found."""
        for part in self._parts:
            is_student = D.id == S.target
            if self._match == "id":
                self._execute(select(func.count()).where(part, D.id == S.id).with_for_update())
                known = select(D.id).where(D.id == S.id).scalar_subquery()
                self._execute(update(STAGED).where(part, S.id.is_not(None)).values(target=known, matches=1))
                self._execute(update(STAGED).where(part, S.id.is_not(None), S.target.is_(None)).values(is_wrong=1))
            elif self._match == "name,department":
                same = and_(D.name == S.name, D.department == S.department)
                found = select(func.min(D.id)).where(same).scalar_subquery()
                matches = select(func.count()).select_from(STUDENTS).where(same).scalar_subquery()
                self._execute(update(STAGED).where(part).values(target=found, matches=matches))
                self._execute(update(STAGED).where(part, S.matches > 1).values(is_wrong=1))
                self._execute(select(func.count()).where(part, is_student).with_for_update())
                is_student = and_(is_student, same)  # and still is
            emptied = or_(*(and_(_has(S.emptied, bit), D[field].is_not(None)) for field, bit in _bits()))
            changed = [case((and_(_has(S.given, bit), self._differs(field)), bit), else_=0) for field, bit in _bits()]
            self._execute(
                update(STAGED)
                .where(part, is_student)
                .values(changed=sum(changed[1:], changed[0]), is_wrong=case((emptied, 1), else_=S.is_wrong))
            )
            # found, and deleted or renamed before it was locked
            gone = {"target": None} if self._match == "name,department" else {"target": None, "is_wrong": 1}
            self._execute(update(STAGED).where(part, S.target.is_not(None), S.changed.is_(None)).values(gone))

    def _differs(self, field: str) -> ColumnElement[bool]:
        """Compare what is stored with what the file has."""
        if field == "cgpa" and self._is_rounded:
            size = case((func.abs(D.cgpa) < 1, func.abs(D.cgpa)), else_=1.0)
            return or_(D.cgpa.is_(None), func.abs(D.cgpa - S.cgpa) > ROUNDING * size)
        return D[field].is_distinct_from(S[field])

    def count(self) -> dict[str, int]:
        """Count what is to be created, updated, left unchanged and rejected, and how many have a namesake."""
        good, found = S.is_wrong == 0, S.target.is_not(None)
        counted = {
            "created": and_(good, ~found),
            "updated": and_(good, found, S.changed != 0),
            "unchanged": and_(good, found, S.changed == 0),
            "rejected": S.is_wrong == 1,
            "duplicates": and_(good, ~found, exists().where(D.name == S.name, D.department == S.department)),
        }
        sums = select(*(func.coalesce(func.sum(case((which, 1), else_=0)), 0) for which in counted.values()))
        totals = [self._execute(sums.select_from(STAGED).where(part)).one() for part in self._parts]
        return dict(zip(counted, (int(sum(column)) for column in zip(*totals, strict=True)), strict=True))

    def find_problems(self, limit: int | None) -> Iterator[ImportProblem]:
        """Describe the rows that are rejected, up to a limit."""
        wrong = (
            select(STAGED, *(D[field].label(f"stored_{field}") for field in FIELDS))
            .select_from(STAGED.outerjoin(STUDENTS, D.id == S.target))
            .where(S.is_wrong == 1)
            .order_by(S.number)
            .limit(limit)
        )
        for row in self._execute(wrong):
            shown = "" if row.id is None else str(row.id)
            if row.twin is not None:
                detail = f"the same student as in row {row.twin}"
                yield ImportProblem(row.number, "id" if self._match == "id" else None, shown, detail)
            elif row.target is None:
                detail = "no student has this id; leave it empty to create a student"
                yield ImportProblem(row.number, "id", shown, detail)
            elif row.matches > 1:
                detail = f"{row.matches} students have this name and department; name one by its id"
                yield ImportProblem(row.number, None, "", detail)
            for field, bit in _bits():
                if row.target is not None and row.emptied & bit and getattr(row, f"stored_{field}") is not None:
                    yield ImportProblem(row.number, field, "", f"empty; expected {RULES[field]}")

    def find_changes(self, limit: int) -> list[ImportChange]:
        """Describe what good rows create and update, up to a limit."""
        changing = (
            select(STAGED, *(D[field].label(f"stored_{field}") for field in FIELDS))
            .select_from(STAGED.outerjoin(STUDENTS, D.id == S.target))
            .where(S.is_wrong == 0, or_(S.target.is_(None), S.changed != 0))
            .order_by(S.number)
            .limit(limit)
        )
        changes = []
        for row in self._execute(changing):
            stored = [getattr(row, f"stored_{field}") for field in FIELDS]
            after = [
                getattr(row, field) if row.given & bit else old
                for (field, bit), old in zip(_bits(), stored, strict=True)
            ]
            before = None if row.target is None else StudentRead(row.target, *stored)
            changes.append(ImportChange(row.number, row.target, before, ImportedStudent(row.target, *after)))
        return changes

    def write(self, created: int, log: ImportLog | None) -> None:
        """Update and create students, in the order of the rows.

        On SQLite, many new students are written in half of the time without the indexes, which are then made anew.
        Nobody sees that: a schema is part of the transaction there.
        """
        stored = self._execute(select(func.count()).select_from(STUDENTS)).scalar_one()
        rebuilt = STUDENTS.indexes if self._connection.dialect.name == "sqlite" and created > max(stored, PART) else ()
        for index in rebuilt:
            index.drop(self._connection, checkfirst=True)
        for part in self._parts:
            good = and_(part, S.is_wrong == 0)
            self._update(good, log)
            self._create(good, log)
        for index in rebuilt:
            index.create(self._connection)

    def _update(self, good: ColumnElement[bool], log: ImportLog | None) -> None:
        if log is not None:
            before = [D[field] for field in FIELDS]
            after = [case((_has(S.changed, bit), S[field]), else_=D[field]) for field, bit in _bits()]
            log.add(literal("update"), D.id, before, after, [good, D.id == S.target, S.changed != 0])
        for field, bit in _bits():
            changing = and_(good, D.id == S.target, _has(S.changed, bit))
            self._execute(update(STUDENTS).where(changing).values({field: S[field]}))

    def _create(self, good: ColumnElement[bool], log: ImportLog | None) -> None:
        new = select(*(S[field] for field in FIELDS)).where(good, S.target.is_(None)).order_by(S.number)
        if log is not None:
            log.expect_created()
        inserted = self._execute(insert(STUDENTS).from_select(FIELDS, new))
        if log is not None:
            log.add_created(inserted)


def _bits() -> Iterator[tuple[str, int]]:
    return zip(FIELDS, BITS, strict=True)


def _has(mask: ColumnElement[int], bit: int) -> ColumnElement[bool]:
    return mask.bitwise_and(literal(bit)) != 0
