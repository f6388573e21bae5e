"""Who may ask for what, and how much of it."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass

from fastness.registry.keys import PREFIX, Key

_NOBODY = hashlib.sha256(b"").digest()  # compared with when an id is unknown, so that this takes as long
_BURST = 1.0  # seconds of its rate that a key may use at once


class Denied(Exception):
    """A request may not be answered.

    Attributes:
        status: 401, 403 or 429.
        after: seconds after which it may, of 429.
    """

    def __init__(self, status: int, said: str, after: float = 0.0) -> None:
        super().__init__(said)
        self.status, self.after = status, after


@dataclass
class _Bucket:
    left: float
    at: float


class Guard:
    """Checks keys, their scopes and their rates.

    Args:
        open: ask for no key as long as none was ever issued: that the last one was revoked opens nothing.
    """

    def __init__(self, open: bool) -> None:
        self._may_open, self._open = open, False  # until the registry has been read nobody gets in
        self._known: Mapping[str, tuple[Key, bytes]] = {}
        self._buckets: dict[str, _Bucket] = {}

    def learn(self, known: Mapping[str, tuple[Key, bytes]], issued: bool) -> None:
        """Take over the keys that are valid now, by id, with the SHA-256 of their secrets; and if any ever was."""
        self._known = known
        self._open = self._may_open = self._may_open and not issued
        self._buckets = {name: bucket for name, bucket in self._buckets.items() if name in known}

    def admit(self, authorization: str | None, scope: str | None) -> Key | None:
        """Return the key of a request; ``None`` where none is asked for.

        Args:
            authorization: the header.
            scope: what is asked for; ``None``: what every key may.

        Raises:
            Denied: there is no such key, or it may not.
        """
        if self._open:
            return None
        scheme, _, token = (authorization or "").partition(" ")
        name, _, secret = token.strip().removeprefix(PREFIX).partition("_")
        key, digest = self._known.get(name, (None, _NOBODY))
        same = hmac.compare_digest(hashlib.sha256(secret.encode("utf-8", "replace")).digest(), digest)
        if scheme.lower() != "bearer" or not token.strip().startswith(PREFIX) or key is None or not same:
            raise Denied(401, "no valid key; send the header 'Authorization: Bearer KEY' with one that was issued here")
        if scope is not None and scope not in key.scopes:
            raise Denied(403, f"this key may {', '.join(key.scopes)}, not {scope}")
        return key

    def spend(self, key: Key | None, items: int) -> None:
        """Take so many items off what a key may ask for by now.

        Raises:
            Denied: it has asked for too much.
        """
        if key is None or key.rate is None:
            return
        now, most = time.monotonic(), max(1.0, key.rate * _BURST)
        bucket = self._buckets.setdefault(key.id, _Bucket(most, now))
        bucket.left = min(most, bucket.left + (now - bucket.at) * key.rate)
        bucket.at = now
        if bucket.left < min(items, most):
            after = (min(items, most) - bucket.left) / key.rate
            raise Denied(429, f"this key may ask for {key.rate:g} items a second", after)
        bucket.left -= items  # a request of more than fits at once is answered, and paid for afterwards
