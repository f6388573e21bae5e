"""The artifact: a folder that says what it is, with an identity that its bytes decide."""

from fastness.bundle.bundle import Bundle, load, write

__all__ = ["Bundle", "load", "write"]
