"""Records: every rule and every statement. Knows no HTTP and no threads."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Generic, NamedTuple, TypeAlias, TypeVar

import msgspec
from msgspec import Struct
from sqlalchemy import Delete, Update

from litestar_app.database import Database
from litestar_app.database.loader import Loader
from litestar_app.database.unit_of_work import UnitOfWork
from litestar_app.exceptions import ConstraintError, RejectedError
from litestar_app.idempotency import Once
from litestar_app.records.cursors import OpaqueCursor
from litestar_app.records.listing import Listing
from litestar_app.records.record import Record, etag

R = TypeVar("R", bound=Struct)
Condition: TypeAlias = Callable[[str], None]
"""Takes the current ETag of a record, and raises PreconditionFailedError unless the write is allowed."""


class Page(NamedTuple, Generic[R]):
    """A page of a listing, and what leads to its neighbours, where there are such pages."""

    records: list[R]
    previous: OpaqueCursor | None
    next: OpaqueCursor | None
    total: int | None
    """How many records match, if that was asked for."""


class RecordService(Generic[R]):
    """The records of one kind in one database.

    Its statements are of SQLAlchemy's Core, compiled once. Every method may also raise the errors of `Database.fetch`
    or `Database.write`. A `condition` is checked in the transaction of the write. `who` is the caller's name, for the
    listeners of changes.
    """

    record: Record[R]
    not_found: type[RejectedError]
    """The error for an id that no record has."""

    def __init__(self, database: Database) -> None:
        database.compile(self.record.reads)
        self._database = database
        self._loader = Loader(database, self.record.by_id, self.record.by_ids)
        self._once = Once(database, self.record.read)

    async def list_page(self, listing: Listing) -> Page[R]:
        """Return a page of the records."""
        total = None
        if listing.count:
            ((total,),) = await self._database.fetch(listing.select_count(), {}, short=False)
        records = await self._fetch_records(listing, listing.limit + (1 if listing.boundary is None else 2))
        if listing.boundary is None:
            has_before = listing.offset > 0 and (bool(records) or await self._has_any(listing.turn_around()))
        elif has_before := bool(records) and listing.is_at_boundary(records[0]):
            del records[0]
        else:  # that one has been deleted, or has got another place
            has_before = await self._has_any(listing.turn_around())
        has_after = len(records) > listing.limit
        del records[listing.limit :]
        if listing.is_backward:
            records.reverse()
            has_before, has_after = has_after, has_before
        first, last = (records[0], records[-1]) if records else (None, None)
        return Page(
            records,
            listing.make_cursor(first, is_backward=True) if has_before else None,
            listing.make_cursor(last, is_backward=False) if has_after else None,
            total,
        )

    async def _has_any(self, listing: Listing) -> bool:
        return bool(await self._fetch_records(listing, 1))

    async def _fetch_records(self, listing: Listing, limit: int) -> list[R]:
        """Return up to `limit` records from where the listing begins, the one at its boundary included."""
        if listing.is_plain:
            values, statement = {"limit": limit, "offset": listing.offset}, self.record.page
            if listing.boundary is not None:
                values, statement = {"limit": limit, "first": listing.boundary.id}, self.record.from_id
            return self.record.load_all(await self._database.fetch(statement, values, short=listing.is_short))
        records: list[R] = []
        for following in listing.select():
            rest = following.limit(limit - len(records))
            records += self.record.load_all(await self._database.fetch(rest, {}, short=listing.is_short))
            if len(records) == limit:
                break
        return records

    async def get(self, row_id: int) -> R:
        """Return one record, or raise the error for an id that none has."""
        row = await self._loader.load(row_id)
        if row is None:
            raise self.not_found
        return self.record.load(row)

    async def create(self, data: Struct, who: str, key: str | None = None) -> R:
        """Store a new record, its texts normalised, and return it with the id that the database gave it.

        With a key, the same data again returns the first response again.

        Raises:
            KeyInUseError: the first request with this key is still running.
            KeyReusedError: the key was used with other data.

        """
        values = self.record.get_values(data)
        request = self._trim(data) if key else data

        def create(unit: UnitOfWork) -> R:
            inserted = unit.execute_fixed(self.record.insert, self.record.dump(values))
            if inserted.rowcount != 1:  # a trigger of another program has skipped the row
                raise ConstraintError
            record = self.record.read(inserted.lastrowid, **values)
            unit.changed(self.record.table, who, None, record)
            return record

        return await self._once.write(key, request, create)

    async def change(self, row_id: int, data: Struct, who: str, condition: Condition | None = None) -> R:
        """Change the given fields of a record, or raise `not_found` or PreconditionFailedError.

        A text that is sent as it is stored stays, even if another program has stored it and it is not normalised.
        """

        def change(unit: UnitOfWork) -> R:
            record = self._lock(unit, row_id, condition)
            changes = self.record.get_values(data, record)
            changed = msgspec.structs.replace(record, **changes)
            if changed != record:
                statement, values = self.record.update(record, changes)
                _execute_for_one(unit, row_id, statement, self.record.dump(values))
                unit.changed(self.record.table, who, record, changed)
            return changed

        return await self._database.write(change, row=(self.record.table, row_id))

    async def delete(self, row_id: int, who: str, condition: Condition | None = None) -> None:
        """Delete a record, or raise `not_found` or PreconditionFailedError."""

        def delete(unit: UnitOfWork) -> None:
            record = self._lock(unit, row_id, condition)
            _execute_for_one(unit, row_id, self.record.delete)
            unit.forget_locked()  # a foreign key of another program may have changed others
            unit.changed(self.record.table, who, record, None)

        await self._database.write(delete)

    def _lock(self, unit: UnitOfWork, row_id: int, condition: Condition | None) -> R:
        """Return a record that no other transaction can change before COMMIT."""
        row = unit.lock(self.record.table, row_id)
        if row is None:
            raise self.not_found
        record = self.record.load(row)
        if condition is not None:
            condition(etag(record))
        return record

    def _trim(self, data: Struct) -> Struct:
        """Return the data as a key's fingerprint has it: trimmed only, as in those of earlier releases."""
        values = (getattr(data, name) for name in self.record.names)
        return self.record.create(*(value.strip() if isinstance(value, str) else value for value in values))


def _execute_for_one(
    unit: UnitOfWork, row_id: int, statement: Update | Delete, values: Mapping[str, object] = MappingProxyType({})
) -> None:
    """Change one existing row, or raise ConstraintError if a trigger has skipped it."""
    if not unit.execute_fixed(statement, {"row_id": row_id, **values}).rowcount:
        raise ConstraintError
