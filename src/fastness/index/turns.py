"""Of those who would build the same index at the same time one does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from fastness.core.errors import Failure
from fastness.core.files import disk_errors


@contextmanager
def alone(address: str) -> Iterator[None]:
    """Be the only process in here for an index, which need not be there yet; one that is killed holds up nobody.

    Raises:
        Failure: another process is.
    """
    if address.startswith(("postgresql://", "postgres://")):
        from fastness.index.postgres import alone as first_of

        with first_of(address) as first:
            if not first:
                raise Failure(_busy(address))
            yield
        return
    folder = Path(address)
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        with disk_errors(folder):
            lock.acquire(timeout=0)
    except Timeout:
        raise Failure(_busy(address)) from None
    try:
        yield
    finally:
        lock.release()


def _busy(address: str) -> str:
    return f"{address}: another process builds it just now; wait for it, or stop it"
