"""Which index holds a collection as which version embeds it; what was built is written down once, when it is whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from fastness.registry.registry import Registry
from fastness.registry.says import now, someone
from fastness.registry.tables import indexes


@dataclass(frozen=True)
class Indexed:
    """A collection as a version embeds it; what is written of it never changes.

    Attributes:
        id: grows with time.
        name, number: of the version.
        collection: what the items are.
        address: of the vector index, see `fastness.index.Index`.
        kind: of the index.
        items: how many it held when it was whole.
        data, columns: what it was built of, see `fastness.data.open_data`.
        fingerprint: SHA-256 of the items, their ids and what is known of them.
        form: of the export that embedded; ``None`` for the encoder itself.
        by, at: who built it, and when it was whole, in microseconds since 1970 (UTC).
    """

    id: int
    name: str
    number: int
    collection: str
    address: str
    kind: str
    items: int
    data: str
    columns: dict[str, str]
    fingerprint: str
    form: str | None
    by: str
    at: int

    def __str__(self) -> str:
        return f"{self.collection}#{self.id}"


def indexed(registry: Registry, name: str, number: int | None, collection: str) -> Indexed | None:
    """Return the newest index of a collection for a version, or for any of its name; ``None`` without one."""
    with registry.database.reading() as connection:
        return newest(registry, connection, name, number, collection)


def newest(
    registry: Registry, connection: sa.Connection, name: str, number: int | None, collection: str
) -> Indexed | None:
    """Return what `indexed` returns, as a connection sees it."""
    same = [indexes.c.name == name, indexes.c.collection == collection]
    if number is not None:
        same.append(indexes.c.number == number)
    row = connection.execute(sa.select(indexes).where(*same).order_by(indexes.c.id.desc()).limit(1)).first()
    return None if row is None else _indexed(registry, row)


def at(registry: Registry, name: str, number: int, collection: str, address: str) -> Indexed | None:
    """Return what is written of the index at an address, ``None`` for nothing."""
    with registry.database.reading() as connection:
        row = connection.execute(_there(registry, name, number, collection, address)).first()
    return None if row is None else _indexed(registry, row)


def recorded(
    registry: Registry,
    *,
    name: str,
    number: int,
    collection: str,
    address: str,
    kind: str,
    items: int,
    data: str,
    columns: dict[str, str],
    fingerprint: str,
    form: str | None = None,
    by: str | None = None,
) -> Indexed:
    """Write down that an index is whole, and return that; of an address that is written down already what is there.

    Args:
        registry: that keeps it.
        by: who built it; default: the user.
        name, number, collection, address, kind, items, data, columns, fingerprint, form: see `Indexed`.
    """
    row = {
        "name": name,
        "number": number,
        "collection": collection,
        "address": _within(registry, address),
        "kind": kind,
        "items": items,
        "data": data,
        "columns": columns,
        "fingerprint": fingerprint,
        "form": form,
        "by": by or someone(),
        "at": now(),
    }
    same = _there(registry, name, number, collection, address)
    with registry.database.writing() as connection:
        if connection.execute(same).first() is None:
            connection.execute(indexes.insert().values(**row))
        return _indexed(registry, connection.execute(same).one())


def _there(registry: Registry, name: str, number: int, collection: str, address: str) -> sa.Select[Any]:
    return sa.select(indexes).where(
        indexes.c.name == name,
        indexes.c.number == number,
        indexes.c.collection == collection,
        indexes.c.address == _within(registry, address),
    )


def _within(registry: Registry, address: str) -> str:
    """Return an address as it is kept: within the registry's own folder relative to it, so that both can be moved."""
    if registry.folder is None or "://" in address or not Path(address).is_relative_to(registry.folder):
        return address
    return Path(address).relative_to(registry.folder).as_posix()


def _indexed(registry: Registry, row: Any) -> Indexed:
    known = {name: getattr(row, name) for name in Indexed.__dataclass_fields__}
    if registry.folder is not None and "://" not in row.address:
        known["address"] = str(registry.folder / row.address)
    return Indexed(**known)
