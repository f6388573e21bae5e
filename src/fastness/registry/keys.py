"""Keys: who may ask the service for what, and how much; of a key's secret only its SHA-256 is kept.

A token is ``fst_<id>_<secret>``. The secret has 256 random bits, so that a plain hash of it tells nobody what it is.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from fastness.core.errors import BadInput
from fastness.registry.registry import Registry
from fastness.registry.says import now, someone
from fastness.registry.tables import keys as table

SCOPES = ("embed", "search", "classify", "metrics")
"""What a key may be for."""

PREFIX = "fst_"
"""What tokens begin with."""


@dataclass(frozen=True)
class Key:
    """A key, without its secret.

    Attributes:
        id: stands in its token.
        who: whom it was issued to.
        scopes: what it is for, of `SCOPES`.
        rate: how many items a second it may ask for; ``None``: as many as there is room for.
        by: who issued it.
        at, revoked: when it was issued and revoked, in microseconds since 1970 (UTC); ``None`` if it was not.
        revoked_by: who revoked it.
    """

    id: str
    who: str
    scopes: tuple[str, ...]
    rate: float | None
    by: str
    at: int
    revoked: int | None
    revoked_by: str | None = None


def issue(
    registry: Registry,
    who: str,
    *,
    scopes: Sequence[str] = SCOPES,
    rate: float | None = None,
    by: str | None = None,
) -> tuple[Key, str]:
    """Make a key; return it and its token, which nobody can tell again.

    Args:
        registry: that keeps it.
        who: whom it is for.
        scopes, rate: see `Key`.
        by: who issues it; default: the user.

    Raises:
        BadInput: nobody is named, a scope is none, or the rate is no positive number.
    """
    if not who.strip() or "\0" in who:
        raise BadInput("a key is somebody's; say whose")
    if unknown := [scope for scope in scopes if scope not in SCOPES]:
        raise BadInput(f"no scope '{unknown[0][:80]}'; known: {', '.join(SCOPES)}")
    if not scopes:
        raise BadInput(f"a key without a scope opens nothing; give some of {', '.join(SCOPES)}")
    if rate is not None and not (math.isfinite(rate) and rate > 0):
        raise BadInput(f"--rate {rate}: give items a second, more than 0; leave it out for no limit")
    secret = secrets.token_hex(32)
    row = {
        "id": secrets.token_hex(8),
        "who": who,
        "scopes": ",".join(scope for scope in SCOPES if scope in scopes),
        "rate": rate,
        "sha256": hashlib.sha256(secret.encode()).hexdigest(),
        "by": by or someone(),
        "at": now(),
    }
    with registry.database.writing() as connection:
        connection.execute(table.insert().values(**row))
        key = _key(connection.execute(sa.select(table).where(table.c.id == row["id"])).one())
    return key, f"{PREFIX}{key.id}_{secret}"


def revoke(registry: Registry, id: str, by: str | None = None) -> Key:
    """Let a key open nothing any more; one that was revoked before stays as it is.

    Raises:
        BadInput: there is no such key.
    """
    same = sa.select(table).where(table.c.id == id)
    with registry.database.writing() as connection:
        row = connection.execute(same).first()
        if row is None:
            raise BadInput(f"{registry.shown}: no key '{id[:80]}' here; see: fastness registry key list")
        if row.revoked is None:
            gone = {"revoked": now(), "revoked_by": by or someone()}
            connection.execute(table.update().where(table.c.id == id).values(**gone))
        return _key(connection.execute(same).one())


def keys(registry: Registry) -> list[Key]:
    """Return all keys that were ever issued, the oldest first."""
    with registry.database.reading() as connection:
        return [_key(row) for row in connection.execute(sa.select(table).order_by(table.c.at, table.c.id))]


def digests(registry: Registry) -> dict[str, tuple[Key, bytes]]:
    """Return the keys that are not revoked by their ids, each with the SHA-256 of its secret."""
    with registry.database.reading() as connection:
        rows = connection.execute(sa.select(table).where(table.c.revoked.is_(None))).all()
    return {row.id: (_key(row), bytes.fromhex(row.sha256)) for row in rows}


def _key(row: Any) -> Key:
    scopes = tuple(row.scopes.split(","))
    return Key(row.id, row.who, scopes, row.rate, row.by, row.at, row.revoked, row.revoked_by)
