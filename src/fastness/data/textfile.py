"""Text files as people have them: compressed or not, in one of several encodings, read line by line."""

from __future__ import annotations

import codecs
import gzip
import io
import logging
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from fastness.core.errors import BadInput

_MARKS = (  # the longer first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_GZIP = b"\x1f\x8b"


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file, each with its line end.

    The encoding is UTF-8, with or without a mark, or UTF-16 or UTF-32; a file that is none of these is read as
    Windows-1252, which is said in one line. NUL characters are left out. A name in ``.gz`` is decompressed.

    Raises:
        BadInput: the file cannot be read, or is no whole gzip file.
    """
    with _readable(path):
        encoding, zeros = _encoding(path)
        with _opened(path) as handle:
            lines = io.TextIOWrapper(handle, encoding, errors="replace", newline="")
            yield from (line.replace("\0", "") for line in lines) if zeros else lines


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise BadInput(f"{path}: is no whole gzip file; get an intact copy") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror or error})") from None


def _opened(path: Path) -> BinaryIO:
    handle = path.open("rb")
    packed = handle.read(2) == _GZIP
    handle.seek(0)
    return cast(BinaryIO, gzip.GzipFile(fileobj=handle)) if packed else handle


def _encoding(path: Path) -> tuple[str, bool]:
    """Return the encoding of a file, which is read as a whole to be sure of it, and whether there may be NULs in it."""
    with _opened(path) as handle:
        head = handle.read(1 << 16)
        for mark, name in _MARKS:
            if head.startswith(mark):
                return name, True
        shares = [head[start::2].count(0) / max(1, len(head) // 2) for start in (0, 1)]
        if max(shares) > 0.3:  # text that is mostly Latin has a zero in every second byte
            return ("utf-16-le" if shares[1] > shares[0] else "utf-16-be"), True
        decoder = codecs.getincrementaldecoder("utf-8")()
        line, zeros = 1, False
        try:
            while head:
                zeros = zeros or b"\0" in head
                decoder.decode(head)
                line += head.count(b"\n")
                head = handle.read(1 << 20)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            line += head[: error.start].count(b"\n")
            logging.getLogger("fastness").warning(
                "%s: line %d is not UTF-8; the file is read as Windows-1252", path, line
            )
            return "cp1252", True
    return "utf-8", zeros
