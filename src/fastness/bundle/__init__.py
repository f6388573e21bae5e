"""The artifact: a folder that says what it is, with an identity that its bytes decide.

`write` puts weights, description, recipe and manifest into a folder, whole or not at all; `load` refuses a folder of
which a byte was changed, runs no code from it, and gives a `Bundle`, which opens data as its encoder's kind and
embeds them. Evidence and other attachments may lie in the folder and do not change the id. `adopt` makes a bundle of
what was trained elsewhere.
"""

from fastness.bundle.bundle import Bundle, load, write

__all__ = ["Bundle", "load", "write"]
