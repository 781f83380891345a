"""advanced-alchemy's plugin, configured: the engine, the sessions, and the tables at start."""

import logging
import sqlite3
import time
from typing import Any, cast

from advanced_alchemy.extensions.litestar import SQLAlchemySyncConfig, SyncSessionConfig
from advanced_alchemy.extensions.litestar.plugins.init.config.sync import default_handler_maker
from litestar import Litestar
from litestar.types import Message, Scope
from sqlalchemy import Connection, Index, Table, delete, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from litestar_app.database.backend import Backend
from litestar_app.database.failures import Failure, classify, unwrap
from litestar_app.database.limits import Timeouts
from litestar_app.database.mysql import MySQL
from litestar_app.database.sqlite import SQLite
from litestar_app.database.unit_of_work import UnitOfWork
from litestar_app.exceptions import SettingsError
from litestar_app.models import Student
from litestar_app.settings import Settings

logger = logging.getLogger("litestar_app")


class AlchemyConfig(SQLAlchemySyncConfig):
    """The plugin's configuration, with a start that fails where a table cannot be created or served."""

    timeouts: Timeouts
    backend: Backend

    def create_all_metadata(self, app: Litestar) -> None:
        """Create the missing tables when the application starts; the plugin's own swallows an OperationalError."""
        del app
        self.prepare_database()

    def prepare_database(self) -> None:
        """Wait for the database, create what it lacks, and see that its tables can be served and written.

        Safe when several processes start at once. Nothing is created where it fails.

        Raises:
            SettingsError: no response within `timeouts.start`, no right to it, or a table that cannot be served.

        """
        deadline = time.monotonic() + self.timeouts.start
        url = self.get_engine().url.render_as_string()  # without the password
        while True:
            try:
                self._prepare_once()
            except SettingsError as error:
                self.get_engine().dispose()
                raise SettingsError(f"DATABASE_URL (or MYSQL_*) {url} cannot be used: {error}") from None
            # the last ones are a driver's, for a part of the URL
            except (SQLAlchemyError, sqlite3.Error, OSError, RuntimeError, TypeError, ValueError) as error:
                if classify(error) not in self.backend.start_failures or time.monotonic() > deadline:
                    self.get_engine().dispose()
                    reason = str(unwrap(error)).replace("\n", " ")
                    raise SettingsError(f"DATABASE_URL (or MYSQL_*) {url} cannot be used: {reason}") from None
                time.sleep(0.2)
            else:
                return

    def _prepare_once(self) -> None:
        backend, tables = self.backend, Student.metadata.sorted_tables
        with self.get_engine().begin() as connection:
            backend.check_server(connection)
            backend.check_table(connection)
            if not backend.has_one_writer:  # a created table stays there, whatever happens next
                _check_rights(connection, tables, backend)
            for table in tables:
                table.create(connection, checkfirst=True)
                for index in table.indexes:
                    _create_index(connection, index, backend)
            backend.upgrade_tables(connection)
            _check_rights(connection, tables, backend)
            if backend.may_change_rows(connection):
                _check_row(connection)
        backend.finish_preparation(self.get_engine())


def _create_index(connection: Connection, index: Index, backend: Backend) -> None:
    """Create an index if it is missing and possible; without it, lists in its order are slow."""
    try:
        with backend.create_index(connection):
            index.create(connection, checkfirst=True)
    except SQLAlchemyError as error:
        if not backend.is_impossible_index(error):
            raise
        logger.warning("index %s is not created, so some lists are slow: %s", index.name, error.args[0])


def _check_rights(connection: Connection, tables: list[Table], backend: Backend) -> None:
    """Run each kind of statement on no row; the server checks the rights first, and only then looks for the table."""
    for table in tables:
        nothing = table.c[0] != table.c[0]
        columns = [column.name for column in table.c]
        for statement in (
            select(table).where(nothing),
            insert(table).from_select(columns, select(table).where(nothing)),
            update(table).where(nothing).values({columns[0]: table.c[0]}),
            delete(table).where(nothing),
        ):
            try:
                connection.execute(statement)
            except SQLAlchemyError as error:
                if not backend.is_missing_table(error):
                    raise


def _check_row(connection: Connection) -> None:
    """Insert a row, update it, delete it and take all of it back; SettingsError where a trigger makes it another."""
    table = cast("Table", Student.__table__)
    given: dict[str, Any] = {"name": "aB é", "department": "cD é", "cgpa": 5.123456789012345}
    changed: dict[str, Any] = {"name": "eF é", "department": "gH é", "cgpa": 5.678901234567891}
    savepoint = connection.begin_nested()
    try:
        inserted = connection.execute(insert(table).values(given)).lastrowid
        this = table.c.id == inserted
        row = select(*(table.c[name] for name in ("id", *given))).where(this)
        stored = [*connection.execute(row)]
        for values in (changed, {"cgpa": 5.0}):  # the last would be an integer in some columns of SQLite
            connection.execute(update(table).where(this).values(values))
            stored += [*connection.execute(row)]
        expected = [(inserted, *values.values()) for values in (given, changed, changed | {"cgpa": 5.0})]
        if stored != expected or type(stored[2][3]) is not float:
            raise SettingsError("its table students does not fit: a row is not stored as it is given")
        if connection.execute(delete(table).where(this)).rowcount != 1:
            raise SettingsError("its table students does not fit: a row is not deleted")
    except SQLAlchemyError as error:
        if classify(error) not in {Failure.CONSTRAINT, Failure.VALUE}:
            raise
        if "students.id" in str(error):  # any other constraint of another program may well forbid this row
            raise SettingsError("its table students does not fit: the database does not give its ids") from None
    finally:
        savepoint.rollback()


def create_alchemy_config(settings: Settings, timeouts: Timeouts | None = None) -> AlchemyConfig:
    """Configure the plugin, which owns the engine, the sessions, the tables and the `litestar database` commands."""
    timeouts = timeouts or Timeouts()
    is_file = settings.url.get_backend_name() == "sqlite"
    backend = SQLite(str(settings.url.database), timeouts) if is_file else MySQL(settings, timeouts)
    config = AlchemyConfig(
        connection_string=settings.url.render_as_string(hide_password=False),
        engine_config=backend.configure_engine(),
        # its listeners cost a tenth of a write, and nothing here uses what they do
        session_config=SyncSessionConfig(
            class_=UnitOfWork, autoflush=False, expire_on_commit=False, info={"enable_cache_listener": False}
        ),
        enable_touch_updated_timestamp_listener=False,
        enable_file_object_listener=False,
        create_all=True,
        set_default_exception_handler=False,  # it responds 409 to a lost connection
    )
    config.timeouts, config.backend = timeouts, backend
    close = default_handler_maker(config.session_scope_key)

    async def close_session(message: Message, scope: Scope) -> None:
        close(message, scope)

    config.before_send_handler = close_session  # the plugin's own, not being async, takes two thread hops a response
    engine = config.get_engine()
    backend.set_up(engine)
    # the plugin's own sessions, one for each request that asks for it
    config.session_config.bind = backend.bind_sessions(engine)
    return config
