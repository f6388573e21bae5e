"""How names, moments and people are said."""

from __future__ import annotations

import datetime
import getpass
import os
import re
import socket
import time

from fastness.core.errors import BadInput

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_ZERO = datetime.datetime.fromtimestamp(0, datetime.UTC)


def checked_name(name: str) -> None:
    """Refuse what is no name."""
    if not _NAME.fullmatch(name):
        raise BadInput(f"'{name[:80]}' is no name; take small letters, digits, '.', '_' and '-', 64 at most")


def checked_alias(alias: str) -> None:
    """Refuse what is no alias."""
    if not _NAME.fullmatch(alias) or alias.isdecimal():
        raise BadInput(f"'{alias[:80]}' is no alias; take small letters, digits, '.', '_' and '-', not digits alone")


def now() -> int:
    """Return the moment in microseconds since 1970 (UTC)."""
    return time.time_ns() // 1000


def moment(at: int) -> str:
    """Return a moment in words: ISO 8601, UTC, to the microsecond, so that what is read can be asked for."""
    return (_ZERO + datetime.timedelta(microseconds=at)).isoformat(sep=" ")


def parsed_moment(text: str) -> int:
    """Return the moment that a text says in ISO 8601, in microseconds since 1970; without a zone it is UTC.

    Raises:
        BadInput: it says none.
    """
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(f"'{text}' is no moment; give one as 2026-05-01 or 2026-05-01T13:30:00+02:00") from None
    found = found if found.tzinfo else found.replace(tzinfo=datetime.UTC)
    return (found - _ZERO) // datetime.timedelta(microseconds=1)


def someone() -> str:
    """Return who runs this, as the machine knows them."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"user {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
