"""The registry's database: SQLite or PostgreSQL, its migrations, and writers that take turns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, SQLAlchemyError

from fastness.core.errors import BadInput, Failure
from fastness.registry.tables import REVISION

NOTHING = "no registry here; make one with: fastness registry add BUNDLE NAME"
_WAIT = 60  # seconds for other writers
_TURN = 0x666173746E657373  # the name of the lock that writers on PostgreSQL take


class Database:
    """A database whose tables are this version's.

    Args:
        url: ``sqlite:///FILE`` or ``postgresql://…``.
        upgrade: bring older tables up to date; else they are refused.
        create: make tables in an empty database; else it is refused.

    Raises:
        BadInput: no such database, or tables of another version.
    """

    def __init__(self, url: str, upgrade: bool = False, create: bool = True) -> None:
        self._engine = _engine(url)
        self.shown = self._engine.url.render_as_string(hide_password=True)
        try:
            with self._errors():
                self._migrate(upgrade, create)
        except BaseException:
            self.close()
            raise

    @property
    def is_postgres(self) -> bool:
        """Whether it is PostgreSQL; else SQLite."""
        return self._engine.dialect.name == "postgresql"

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Yield a connection that sees one state throughout."""
        with self._errors(), self._engine.connect() as connection:
            if self.is_postgres:
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Yield a connection while no other writes: all of it is kept, to the disk, or nothing."""
        with self._errors(), self._engine.connect() as connection:
            connection = connection.execution_options(writes=True)
            with connection.begin():
                if self.is_postgres:
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_TURN)))
                yield connection

    def count_on(self, connection: sa.Connection, *tables: sa.Table) -> None:
        """Let numbers that are given out begin behind those that were written by hand; SQLite does so by itself."""
        if self.is_postgres:
            for table in tables:
                place = sa.func.pg_get_serial_sequence(table.name, "id")
                last = sa.select(sa.func.coalesce(sa.func.max(table.c.id), 1)).scalar_subquery()
                connection.execute(sa.select(sa.func.setval(place, last)))

    def _migrate(self, upgrade: bool, create: bool) -> None:
        with self.reading() as connection:
            found = _revision(connection)
        if found == REVISION:
            return
        if found is None and not create:
            raise BadInput(f"{self.shown}: {NOTHING}")
        if found is not None and found > REVISION:
            raise BadInput(f"{self.shown}: was made by a later version of fastness; upgrade fastness")
        if found is not None and not upgrade:
            raise BadInput(f"{self.shown}: was made by an earlier version; first run: fastness registry upgrade")
        from alembic import command
        from alembic.config import Config

        with self.writing() as connection:  # somebody else may have been faster: then nothing is left to do
            config = Config(attributes={"connection": connection})
            config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
            command.upgrade(config, "head")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what the database says into one line."""
        try:
            yield
        except DBAPIError as error:
            said = " ".join(str(error.orig).split())[:300]
            raise Failure(f"{self.shown}: {said}") from error
        except SQLAlchemyError as error:
            raise Failure(f"{self.shown}: {' '.join(str(error).split())[:300]}") from error


def _engine(url: str) -> sa.Engine:
    if url.startswith("postgresql://"):
        url = "postgresql+psycopg" + url.removeprefix("postgresql")
    try:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() == "postgresql":
            return sa.create_engine(parsed, pool_pre_ping=True)
        engine = sa.create_engine(parsed, connect_args={"timeout": _WAIT})
    except (SQLAlchemyError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise BadInput(f"no database by this address ({error}); give a folder or postgresql://…") from None

    @sa.event.listens_for(engine, "connect")
    def opened(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions are begun by hand, below
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    @sa.event.listens_for(engine, "begin")
    def begun(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _revision(connection: sa.Connection) -> str | None:
    """Return the last migration that was run, ``None`` in an empty database."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)
