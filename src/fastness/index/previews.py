"""How the items of an index in a folder look, small: a search can show what it found where the data are not."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from fastness.core.errors import BadInput, Failure
from fastness.core.files import disk_errors

WEBP, PLAIN = "image/webp", "text/plain"
_FILE = "previews.sqlite"
_WAIT = 60  # seconds for another writer
_SCHEMA = "create table if not exists previews (id text primary key, kind text not null, content blob not null)"
Preview = tuple[str, bytes]
"""A MIME type and bytes."""


def kept(address: str) -> bool:
    """Return whether previews are kept beside an index."""
    return "://" not in address and (Path(address) / _FILE).exists()


def preview(address: str, id: str) -> Preview | None:
    """Return how an item looks, ``None`` where nothing is kept of it.

    Args:
        address: of the index; on PostgreSQL no previews are kept.
        id: of the item.

    Raises:
        Failure: the file is damaged.
    """
    path = Path(address) / _FILE
    if not kept(address):
        return None
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", timeout=_WAIT, uri=True)) as connection:
            row = connection.execute("select kind, content from previews where id = ?", (id,)).fetchone()
    except sqlite3.Error as error:
        raise Failure(_damaged(path, error)) from error
    return None if row is None else (str(row[0]), bytes(row[1]))


class Previews:
    """The previews of an index in a folder, to be written.

    Raises:
        BadInput: the index is in no folder.
        Failure: the file is damaged.
    """

    def __init__(self, address: str) -> None:
        if "://" in address:
            raise BadInput(f"{address}: previews are kept beside an index in a folder alone; leave --previews out")
        self._path = Path(address) / _FILE
        with disk_errors(self._path), self._errors():
            self._connection = sqlite3.connect(self._path, timeout=_WAIT)
            self._connection.execute(_SCHEMA)

    def ids(self) -> list[str]:
        """Return the ids of all items that have a preview."""
        with self._errors():
            return [name for (name,) in self._connection.execute("select id from previews")]

    def add(self, seen: Iterable[tuple[str, str, bytes]]) -> None:
        """Keep items, each its id, MIME type and bytes, in the place of those of the same ids: all or none."""
        with self._errors(), self._connection:
            self._connection.executemany("insert or replace into previews values (?, ?, ?)", seen)

    def remove(self, ids: Sequence[str]) -> None:
        """Forget items."""
        with self._errors(), self._connection:
            self._connection.executemany("delete from previews where id = ?", ((name,) for name in ids))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise Failure(_damaged(self._path, error)) from error


def _damaged(path: Path, error: sqlite3.Error) -> str:
    return f"{path}: {error}; free the file or the disk, or delete it and build with --previews again"
