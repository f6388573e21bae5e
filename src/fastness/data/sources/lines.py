"""Text files with one text a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fastness.data.dataset import Dataset
from fastness.data.delimited import read_layout
from fastness.data.manifest import Manifest, hash_items
from fastness.data.sources import SOURCES, Columns
from fastness.data.splits import canonical, is_split
from fastness.data.text import TextPayloads, damage
from fastness.data.textfile import read_lines


@SOURCES.register("lines")
class LineSource:
    """Opens a ``.txt`` or ``.txt.gz`` file, or a folder with such files that are named after splits.

    Blanks around a line and NUL characters are no part of the text; blank lines are passed over and counted as
    ignored. An encoding other than UTF-8 is found out; see `read_lines`.
    """

    def accepts(self, data: Any, columns: Columns) -> bool:
        """Such a file whose lines are not cells of a table, unless only texts are wanted."""
        return isinstance(data, Path) and columns.wanted in (None, "text") and bool(_files(data))

    def open(self, data: Path, columns: Columns) -> Dataset:
        """Read and hash every line."""
        files = _files(data)
        texts, names, splits = [], [], []
        blank = 0
        for file in files:
            prefix = f"{file.name} " if data.is_dir() else ""
            for number, line in enumerate(read_lines(file), 1):
                text = line.strip()
                if not text:
                    blank += 1
                    continue
                texts.append(text)
                names.append(f"{prefix}line {number}")
                splits.append(canonical(_stem(file)))
        split = np.array(splits, np.str_) if data.is_dir() and columns.split != "none" else None
        hashes = hash_items(text.encode() for text in texts)
        manifest = Manifest(names, hashes, splits=split, source=str(data))
        opened = Dataset.of(manifest, TextPayloads(texts), ignored=blank, modality="text")
        return opened.without({row: why for row, why in enumerate(map(damage, texts)) if why is not None})


def is_table(path: Path) -> bool:
    """Whether a ``.txt`` file is surely one of cells: nearly all of its first lines have as many of them."""
    found = read_layout(read_lines(path))
    fewest = 3 if found.delimiter == "," else 2  # a sentence may well have a comma
    return found.rows > 1 and found.width >= fewest and found.agreement > 0.95


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if _is_text(path) else []
    if not path.is_dir():
        return []
    return sorted(file for file in path.iterdir() if _is_text(file) and is_split(_stem(file)) and file.is_file())


def _is_text(path: Path) -> bool:
    return path.name.lower().removesuffix(".gz").endswith(".txt")


def _stem(path: Path) -> str:
    return path.name.lower().removesuffix(".gz").removesuffix(".txt")
