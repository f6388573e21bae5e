"""Which encoder serves: immutable versions, aliases that move by compare-and-swap, and a log that only grows.

A version is a bundle with all that lies beside its core. Its files are kept by their SHA-256 in a `Store`, which may be
anywhere that fsspec reaches; what they are called, and which alias named which version when, stands in a database:
SQLite in a folder, or PostgreSQL. A file is in the store before a row speaks of it, so that no alias ever names half a
bundle. Writers take turns; what takes longer than a transaction (a gate that measures for minutes) is settled by
comparing, when it is done, whether the alias is still where it was.

It also says which index holds a collection as a version embeds it, so that both serve together, and who may ask the
service for what.
"""

from fastness.registry.moves import Move
from fastness.registry.registry import Registry, Version

__all__ = ["Move", "Registry", "Version"]
