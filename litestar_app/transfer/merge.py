"""Merging: rows in a temporary table become students, by statements about all of them at once."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Integer,
    MetaData,
    Table,
    Text,
    and_,
    case,
    cast,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.mysql import MEDIUMTEXT
from sqlalchemy.schema import CreateTable

from litestar_app.database.limits import PART
from litestar_app.database.unit_of_work import UnitOfWork
from litestar_app.exceptions import DatabaseUnavailableError
from litestar_app.models import MYSQL
from litestar_app.students.record import STUDENT
from litestar_app.students.reports import ImportChange, ImportedStudent, ImportProblem
from litestar_app.students.schemas import StudentRead
from litestar_app.transfer.formats import ALL, Batch, ImportRow, Match, SentRow
from litestar_app.transfer.formats.readers import MAX_DOUBLE
from litestar_app.transfer.formats.rows import BITS, EMPTY

LONG_TEXT = Text().with_variant(MEDIUMTEXT(), "mysql", "mariadb")
STAGED = Table(
    "import_rows",
    MetaData(),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("id", BigInteger),
    *(Column(name, STUDENT.table.c[name].type) for name in STUDENT.names),
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
SENT = Table(
    "import_sent",
    MetaData(),
    Column("number", Integer, primary_key=True, autoincrement=False),
    *(Column(name, LONG_TEXT) for name in STUDENT.texts),
    Column("invalid", Integer),
    Column("problems", LONG_TEXT),
    prefixes=["TEMPORARY"],
    **MYSQL,
)
"""Of rows as `SentRow` has them: their texts as sent, which cells break a rule, and the problems of those as JSON. One
row for each row of the file, since MySQL opens a temporary table only once in a statement."""
CACHE = 64 * 1024
"""KiB that SQLite may keep of the indexes while it merges."""
STAGED_COLUMNS = ("number", "id", *STUDENT.names, "given", "emptied")
KEYS: dict[Match, str] = {"id": "id", "name,department": ", ".join(STUDENT.natural_key)}
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
"""How far a CGPA that a spreadsheet has saved, with 15 digits, may be from the one that was exported: from 1 to 10 so
much, for others so many times the exported one."""
DOUBLES = {field.name for field in STUDENT.fields if field.kind is float}
S, D, T = STAGED.c, STUDENT.table.c, SENT.c
Execute: TypeAlias = Callable[..., Any]


def stage(connection: Connection, batches: Iterable[Batch], match: Match) -> None:
    """Write rows into a temporary table of the connection, past SQLAlchemy, which would begin by the lock to write.

    Each row that is the same student as an earlier one is marked. On MySQL it returns when it is this import's turn.
    """
    dialect = connection.dialect
    dbapi_connection: Any = connection.connection.dbapi_connection
    cursor = dbapi_connection.cursor()
    mark = "?" if dialect.name == "sqlite" else "%s"
    statement = (
        f"INSERT INTO import_rows ({', '.join(STAGED_COLUMNS)}) VALUES ({', '.join([mark] * len(STAGED_COLUMNS))})"  # noqa: S608
    )
    sent_statement = f"INSERT INTO import_sent VALUES ({', '.join([mark] * len(SENT.c))})"  # noqa: S608
    for table in (STAGED, SENT):
        cursor.execute(str(CreateTable(table).compile(dialect=dialect)))
    if dialect.name == "sqlite":
        cursor.execute(f"PRAGMA cache_size=-{CACHE}")
    else:
        cursor.execute("SELECT @@max_allowed_packet")
        cursor.max_stmt_length = min(cursor.max_stmt_length, cursor.fetchone()[0] // 2)  # of many rows at once
    cursor.execute("BEGIN")
    for batch in batches:
        cursor.executemany(statement, batch.rows)
        if batch.sent:
            cursor.executemany(statement, [_make_storable(sent.row, dialect.name) for sent in batch.sent])
            cursor.executemany(sent_statement, [_encode(sent) for sent in batch.sent])
    if match != "none":
        key = KEYS[match]
        has_key = " AND ".join(f"{column} IS NOT NULL" for column in key.split(", "))
        # of one mention of the table, since MySQL opens a temporary one only once in a statement
        twins = (
            f"SELECT first, number FROM (SELECT number, MIN(number) OVER (PARTITION BY {key}) AS first "  # noqa: S608
            f"FROM import_rows WHERE {has_key}) AS grouped WHERE first < number"
        )
        cursor.execute(twins)
        found = cursor.fetchall()
        cursor.executemany(f"UPDATE import_rows SET twin = {mark}, is_wrong = 1 WHERE number = {mark}", found)  # noqa: S608
    dbapi_connection.commit()
    if dialect.name != "sqlite":
        _take_turn(cursor)
    cursor.close()


def _make_storable(row: ImportRow, dialect: str) -> ImportRow:
    """Leave out infinity on MySQL, which has none."""
    if dialect == "sqlite":
        return row
    return tuple(None if isinstance(value, float) and math.isinf(value) else value for value in row)


def _encode(sent: SentRow) -> tuple[Any, ...]:
    problems = msgspec.json.encode([ImportProblem(*error) for error in sent.errors]).decode()
    return sent.row[0], *sent.texts, sent.invalid, problems


def _take_turn(cursor: Any) -> None:
    """Wait for the imports of others, before the merge, which other writes of this process wait for.

    The connection, which is closed after the import, gives the turn back.
    """
    for _ in range(MERGE_LOCK_TRIES):
        cursor.execute(MERGE_LOCK)
        if cursor.fetchone() == (1,):
            return
    raise DatabaseUnavailableError("other imports are running")


class ChangeLog(Protocol):
    """Records the changes of one import in its transaction, many in one statement."""

    id: int | None
    """The number under which the import can be undone, if it is recorded."""

    def add(
        self,
        action: ColumnElement[str],
        student_id: ColumnElement[int],
        before: Sequence[ColumnElement[Any]],
        after: Sequence[ColumnElement[Any]],
        conditions: Iterable[ColumnElement[bool]],
    ) -> int:
        """Record the changes that a select finds; return their number."""
        ...

    def expect_created(self) -> None:
        """Prepare for a statement that inserts students."""

    def add_created(self, inserted: Any) -> None:
        """Record the students that this statement has inserted."""

    def finish(self, **counts: int) -> None:
        """Record the totals."""


class Unrecorded:
    """The log of an import if no history is kept."""

    def __init__(self, unit: UnitOfWork, who: str) -> None:
        del unit, who
        self.id: int | None = None

    def add(
        self,
        action: ColumnElement[str],
        student_id: ColumnElement[int],
        before: Sequence[ColumnElement[Any]],
        after: Sequence[ColumnElement[Any]],
        conditions: Iterable[ColumnElement[bool]],
    ) -> int:
        """Record nothing."""
        del action, student_id, before, after, conditions
        return 0

    def expect_created(self) -> None:
        """Do nothing."""

    def add_created(self, inserted: object) -> None:
        """Record nothing."""

    def finish(self, **counts: int) -> None:
        """Record nothing."""


class Merge:
    """The merge of staged rows, in one transaction: find what each row is, then write."""

    def __init__(self, unit: UnitOfWork, match: Match, *, is_rounded: bool = False, has_sent: bool = False) -> None:
        """Take what tells that a row is a student, and what is known of the file.

        It `is_rounded` if a spreadsheet may have cut digits, and `has_sent` rows if some are staged as `SentRow`.
        """
        self._connection = unit.connection()
        self._is_rounded = is_rounded
        self._has_sent = has_sent
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
                same = and_(*(D[name] == S[name] for name in STUDENT.natural_key))
                found = select(func.min(D.id)).where(same).scalar_subquery()
                matches = select(func.count()).select_from(STUDENT.table).where(same).scalar_subquery()
                self._execute(update(STAGED).where(part).values(target=found, matches=matches))
                if self._has_sent:
                    same = or_(same, self._match_sent(part))
                self._execute(update(STAGED).where(part, S.matches > 1).values(is_wrong=1))
                self._execute(select(func.count()).where(part, is_student).with_for_update())
                is_student = and_(is_student, same)  # and still is
            if self._has_sent:
                self._keep_sent(part)
            emptied = or_(*(and_(_has(S.emptied, bit), self._is_filled(field)) for field, bit in _bits()))
            changed = [case((and_(_has(S.given, bit), self._differs(field)), bit), else_=0) for field, bit in _bits()]
            self._execute(
                update(STAGED)
                .where(part, is_student)
                .values(changed=sum(changed[1:], changed[0]), is_wrong=case((emptied, 1), else_=S.is_wrong))
            )
            # found, and deleted or renamed before it was locked
            gone = {"target": None} if self._match == "name,department" else {"target": None, "is_wrong": 1}
            self._execute(update(STAGED).where(part, S.target.is_not(None), S.changed.is_(None)).values(gone))
            if self._has_sent:
                changing = func.coalesce(S.changed, ALL)  # of a student to create: all
                wrong = exists().where(T.number == S.number, T.invalid.bitwise_and(changing) != 0)
                self._execute(update(STAGED).where(part, wrong).values(is_wrong=1))

    def _match_sent(self, part: ColumnElement[bool]) -> ColumnElement[bool]:
        """Prefer the students who are stored as their rows were sent; return what such a row and its student have."""
        sent = [D[field] == func.coalesce(T[field], S[field]) for field in STUDENT.natural_key]
        same = and_(T.number == S.number, *sent)
        pairs = SENT.join(STUDENT.table, and_(*sent))
        found = select(func.min(D.id)).select_from(pairs).where(T.number == S.number).scalar_subquery()
        matches = select(func.count()).select_from(pairs).where(T.number == S.number).scalar_subquery()
        self._execute(update(STAGED).where(part).values(target=func.coalesce(found, S.target)))
        self._execute(update(STAGED).where(part).values(matches=func.coalesce(func.nullif(matches, 0), S.matches)))
        return exists().where(same).correlate(STAGED, STUDENT.table)

    def _keep_sent(self, part: ColumnElement[bool]) -> None:
        """Take a text that is sent as it is stored as one that is not given."""
        for field, bit in _bits():
            if field not in STUDENT.texts:
                continue
            same = D[field] + "|" == T[field] + "|"  # with blanks at the end, which MySQL leaves out
            kept = exists().where(T.number == S.number, D.id == S.target, same)
            self._execute(update(STAGED).where(part, _has(S.given, bit), kept).values(given=S.given - bit))

    def _is_filled(self, field: str) -> ColumnElement[bool]:
        """Tell whether something is stored that an empty cell does not stand for."""
        if field in STUDENT.texts:
            return func.trim(D[field]) != ""
        # JSON has no infinity, which is null in an export
        return func.abs(D[field]) <= MAX_DOUBLE if field in DOUBLES and not self._is_rounded else D[field].is_not(None)

    def _differs(self, field: str) -> ColumnElement[bool]:
        """Compare what is stored with what the file has."""
        old, new = D[field], S[field]
        if field in DOUBLES and self._is_rounded:
            size = func.abs(old)
            unit = case((size.between(1, 10), 1.0), (size <= MAX_DOUBLE, size), else_=1.0)
            return or_(old.is_(None) != new.is_(None), func.abs(old - new) > ROUNDING * unit)
        # SQLite may hold a BLOB of another program, which an export has as a text
        is_blob_possible = field in STUDENT.texts and self._connection.dialect.name == "sqlite"
        return (cast(old, Text) if is_blob_possible else old).is_distinct_from(new)

    def count(self, namesakes: int | None = None) -> dict[str, int]:
        """Count what is to be created, updated, left unchanged and rejected, and how many have a namesake.

        `namesakes` is how many rows have the name and department of an earlier one, if that is known.
        """
        good, found = S.is_wrong == 0, S.target.is_not(None)
        counted = {
            "created": and_(good, ~found),
            "updated": and_(good, found, S.changed != 0),
            "unchanged": and_(good, found, S.changed == 0),
            "rejected": S.is_wrong == 1,
            "renamed": and_(good, found, _has(S.changed, dict(_bits())[STUDENT.natural_key[0]])),
            "duplicates": and_(good, ~found, exists().where(*(D[name] == S[name] for name in STUDENT.natural_key))),
        }
        sums = select(*(func.coalesce(func.sum(case((which, 1), else_=0)), 0) for which in counted.values()))
        totals = [self._execute(sums.select_from(STAGED).where(part)).one() for part in self._parts]
        counts = dict(zip(counted, (int(sum(column)) for column in zip(*totals, strict=True)), strict=True))
        if namesakes and counts["created"] == sum(
            counts.values()
        ):  # every row is created, and no student is a namesake
            counts["duplicates"] = namesakes
        elif namesakes != 0:
            counts["duplicates"] += self._count_namesakes()
        return counts

    def _count_namesakes(self) -> int:
        """Count the rows to create whose name and department an earlier row has, and no student yet."""
        key = [S[name] for name in STUDENT.natural_key]
        place = func.row_number().over(partition_by=key, order_by=S.number)
        rows = select(*key, S.target, place.label("place")).where(S.is_wrong == 0).subquery()
        stored = exists().where(*(D[name] == rows.c[name] for name in STUDENT.natural_key))
        counted = select(func.count()).select_from(rows).where(rows.c.target.is_(None), rows.c.place > 1, ~stored)
        return int(self._execute(counted).scalar_one())

    def find_problems(self, limit: int | None) -> Iterator[ImportProblem]:
        """Describe the rows that are rejected, up to a limit."""
        wrong = (
            select(STAGED, *(D[field].label(f"stored_{field}") for field in STUDENT.names), T.invalid, T.problems)
            .select_from(STAGED.outerjoin(STUDENT.table, D.id == S.target).outerjoin(SENT, T.number == S.number))
            .where(S.is_wrong == 1)
            .order_by(S.number)
            .limit(limit)
        )
        for row in self._execute(wrong):
            shown = "" if row.id is None else str(row.id)
            if row.twin is not None:
                detail = f"the same student as in row {row.twin}"
                yield ImportProblem(row.number, "id" if self._match == "id" else None, shown, detail)
            elif row.target is None and row.id is not None and self._match == "id":
                detail = "no student has this id; leave it empty to create a student"
                yield ImportProblem(row.number, "id", shown, detail)
            elif row.target is not None and row.matches > 1:
                detail = f"{row.matches} students have this name and department; name one by its id"
                yield ImportProblem(row.number, None, "", detail)
            changed = ALL if row.changed is None else row.changed
            faults = {
                problem.column: problem
                for problem in (msgspec.json.decode(row.problems, type=list[ImportProblem]) if row.problems else [])
            }
            for field, bit in _bits():
                if row.target is not None and row.emptied & bit and _is_filled(getattr(row, f"stored_{field}")):
                    yield ImportProblem(row.number, field, "", EMPTY[field])
                elif field in faults and changed & bit:
                    yield faults[field]

    def find_changes(self, limit: int) -> list[ImportChange]:
        """Describe what good rows create and update, up to a limit."""
        changing = (
            select(STAGED, *(D[field].label(f"stored_{field}") for field in STUDENT.names))
            .select_from(STAGED.outerjoin(STUDENT.table, D.id == S.target))
            .where(S.is_wrong == 0, or_(S.target.is_(None), S.changed != 0))
            .order_by(S.number)
            .limit(limit)
        )
        changes = []
        for row in self._execute(changing):
            stored = [getattr(row, f"stored_{field}") for field in STUDENT.names]
            written = ALL if row.target is None else row.changed
            after = [
                getattr(row, field) if written & bit else old for (field, bit), old in zip(_bits(), stored, strict=True)
            ]
            before = None if row.target is None else StudentRead(row.target, *stored)
            changes.append(ImportChange(row.number, row.target, before, ImportedStudent(row.target, *after)))
        return changes

    def write(self, created: int, log: ChangeLog) -> None:
        """Update and create students, in the order of the rows.

        On SQLite, many new students are written in half of the time without the indexes, which are then made anew.
        Nobody sees that: a schema is part of the transaction there.
        """
        stored = self._execute(select(func.count()).select_from(STUDENT.table)).scalar_one()
        is_sqlite = self._connection.dialect.name == "sqlite"
        rebuilt = STUDENT.table.indexes if is_sqlite and created > max(stored, PART) else ()
        for index in rebuilt:
            index.drop(self._connection, checkfirst=True)
        for part in self._parts:
            good = and_(part, S.is_wrong == 0)
            self._update(good, log)
            self._create(good, log)
        for index in rebuilt:
            index.create(self._connection)

    def _update(self, good: ColumnElement[bool], log: ChangeLog) -> None:
        before = [D[field] for field in STUDENT.names]
        after = [case((_has(S.changed, bit), S[field]), else_=D[field]) for field, bit in _bits()]
        log.add(literal("update"), D.id, before, after, [good, D.id == S.target, S.changed != 0])
        for field, bit in _bits():
            changing = and_(good, D.id == S.target, _has(S.changed, bit))
            self._execute(update(STUDENT.table).where(changing).values({field: S[field]}))

    def _create(self, good: ColumnElement[bool], log: ChangeLog) -> None:
        new = select(*(S[field] for field in STUDENT.names)).where(good, S.target.is_(None)).order_by(S.number)
        log.expect_created()
        log.add_created(self._execute(insert(STUDENT.table).from_select(STUDENT.names, new)))


def _bits() -> Iterator[tuple[str, int]]:
    return zip(STUDENT.names, BITS, strict=True)


def _is_filled(stored: object) -> bool:
    if isinstance(stored, str):
        return stored.strip(" ") != ""
    return stored is not None and stored not in {math.inf, -math.inf}


def _has(mask: ColumnElement[int], bit: int) -> ColumnElement[bool]:
    return mask.bitwise_and(literal(bit)) != 0
