"""Tables on PostgreSQL by their address, ``postgresql://user@host/database?table=photos``, and errors in one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from fastness.core.errors import BadInput, Failure

SCHEMES = ("postgresql://", "postgres://")
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,50}")
_NO_TABLE = "42P01"


class Place(NamedTuple):
    """Where a table is."""

    server: str  # what the client is given, with the password
    table: str
    shown: str  # what messages say, without it
    absent: str  # what they say where there is no such table


def place_of(address: str, table: str, absent: str) -> Place:
    """Return the place that an address means.

    Args:
        address: ``postgresql://user@host/database?table=NAME``.
        table: name of the table if the address says none.
        absent: what is said where there is none.

    Raises:
        BadInput: its name is none for a table.
    """
    parts = urlsplit(address)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    table = options.pop("table", table)
    host = parts.netloc.rpartition("@")[2]
    name = (parts.username or "") + "@" * bool(parts.username) + host
    shown = f"postgresql://{name}{parts.path}?table={table}"
    if not _NAME.fullmatch(table):
        raise BadInput(f"{shown}: a table's name is of small letters, digits and _, at most 51")
    return Place(urlunsplit(parts._replace(query=urlencode(options))), table, shown, absent)


def connect(place: Place) -> Any:
    """Return a new connection, each statement of which is a transaction unless one is begun."""
    try:
        import psycopg
    except ImportError:
        raise BadInput(f"{place.shown}: needs psycopg; install it with: pip install 'fastness[postgres]'") from None
    return psycopg.connect(place.server, autocommit=True, connect_timeout=30)


@contextmanager
def connected(place: Place) -> Iterator[Any]:
    """Yield a new connection, and close it."""
    with errors(place):
        opened = connect(place)
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def errors(place: Place) -> Iterator[None]:
    """Turn what the server says into one line that names the table, and never the password."""
    try:
        import psycopg
    except ImportError:
        yield  # refused where the connection is made
        return
    try:
        yield
    except psycopg.Error as error:
        if error.sqlstate == _NO_TABLE:
            raise BadInput(f"{place.shown}: {place.absent}") from None
        said = " ".join(str(error).split())[:300]
        kind = BadInput if isinstance(error, psycopg.ProgrammingError | psycopg.DataError) else Failure
        raise kind(f"{place.shown}: {said}") from None
