"""Judged collections, as BEIR and TREC lay them out."""

from __future__ import annotations

import html
import logging
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from fastness.core.errors import BadInput
from fastness.data.dataset import Dataset, Quarantined
from fastness.data.frame import BROKEN, Frame, read_frame
from fastness.data.judged import JudgedPayloads, Judgements
from fastness.data.manifest import Manifest, hash_items
from fastness.data.sources import SOURCES, Columns
from fastness.data.splits import canonical, is_split
from fastness.data.text import TextPayloads, damage
from fastness.data.textfile import read_lines

SIDES = ("query", "document")
Texts = dict[str, str]  # by name


@dataclass(frozen=True)
class _Files:
    documents: Path
    queries: Path
    judgements: list[Path]


@SOURCES.register("judged")
class JudgedSource:
    """Opens a folder with documents, queries and judgements.

    Either ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/PART.tsv`` (BEIR), or two ``.xml`` files, of ``<doc>`` and of
    ``<top>``, and one with ``qrel`` in its name (TREC). The items are the documents; with ``text="query,document"``
    they are the pairs of a query and a document that answers it.
    """

    def accepts(self, data: Any, columns: Columns) -> bool:
        """Such a folder, unless something else than texts is wanted."""
        return isinstance(data, Path) and columns.wanted in (None, "text") and _files(data) is not None

    def open(self, data: Path, columns: Columns) -> Dataset:
        """Read everything and hash every text."""
        files = _files(data)
        assert files is not None
        side = columns.text or "document"
        if side not in SIDES:
            raise BadInput(f"{data}: no column '{side}' in a judged collection; columns: {', '.join(SIDES)}")
        documents, lost = _texts(files.documents, "doc")
        asked, lost_queries = _texts(files.queries, "top")
        queries = _dataset(list(asked), TextPayloads(list(asked.values())), data, lost_queries)
        judged = _judgements(files, documents, queries, data)
        if set(columns.beside) - {side}:
            return _pairs(judged, documents, side, data, lost + lost_queries)
        if side == "query":
            return queries
        return _dataset(list(documents), JudgedPayloads(list(documents.values()), judged), data, lost)


def _files(folder: Path) -> _Files | None:
    """Return the files of a judged collection, or ``None`` if the folder is none."""
    if not folder.is_dir():
        return None
    named = {path.name.removesuffix(".gz"): path for path in sorted(folder.iterdir()) if path.is_file()}
    if "corpus.jsonl" in named and "queries.jsonl" in named and (folder / "qrels").is_dir():
        parts = [path for path in sorted((folder / "qrels").iterdir()) if _stem(path) and path.is_file()]
        return _Files(named["corpus.jsonl"], named["queries.jsonl"], parts) if parts else None
    judgements = [path for path in named.values() if "qrel" in path.name.lower()]
    marked = [path for name, path in named.items() if name.lower().endswith(".xml")]
    if not judgements or len(marked) != 2:
        return None
    is_documents = [any("<doc>" in line.lower() for line in islice(read_lines(path), 200)) for path in marked]
    if is_documents[0] == is_documents[1]:
        return None
    return _Files(marked[is_documents.index(True)], marked[is_documents.index(False)], judgements)


def _stem(path: Path) -> str:
    name = path.name.removesuffix(".gz")
    return name.removesuffix(".tsv") if name.endswith(".tsv") else ""


# --- reading --------------------------------------------------------------------------------------


def _texts(path: Path, tag: str) -> tuple[Texts, tuple[Quarantined, ...]]:
    """Return the texts of a file by their names, a title before the text that lacks it, and lines that are none.

    Raises:
        BadInput: it holds none, or two of one name.
    """
    lost: tuple[Quarantined, ...] = ()
    if not _is_lines(path):
        named = list(_marked(path, tag))
    else:
        frame = read_frame(path)
        named = list(_listed(frame))
        nameless = [row for row, name in zip(frame.names, frame.texts("_id"), strict=True) if name is None]
        lost = frame.quarantine + tuple(Quarantined(f"{path.name} {row}", "has no _id") for row in nameless)
    found = dict(named)
    if not found:
        raise BadInput(f"{path}: holds no <{tag}> or line with _id and text; give a file that does")
    if len(found) < len(named):
        twice = Counter(name for name, _ in named).most_common(1)[0][0]
        raise BadInput(f"{path}: two texts are called '{twice}'; judgements cannot tell them apart: rename one")
    return found, lost


def _is_lines(path: Path) -> bool:
    """Whether a file of texts has one a line; else they stand between tags."""
    return not path.name.removesuffix(".gz").lower().endswith(".xml")


def _listed(frame: Frame) -> Iterator[tuple[str, str]]:
    names, texts = frame.texts("_id"), frame.texts("text")
    titles = frame.texts("title") if "title" in frame.columns else [None] * len(frame)
    for name, title, text in zip(names, titles, texts, strict=True):
        if name is not None:
            yield name, _joined(title or "", text or "").replace(BROKEN, "\ud800")


def _marked(path: Path, tag: str) -> Iterator[tuple[str, str]]:
    """Yield name and text of each element; such files are seldom whole XML, so tags are looked for one by one."""
    content = "".join(read_lines(path))
    for element in re.findall(rf"<{tag}>(.*?)</{tag}>", content, re.DOTALL | re.IGNORECASE):
        name = _field(element, "docno") or _field(element, "num").removeprefix("Number:").strip()
        yield name, _joined(_field(element, "title"), _field(element, "text"))


def _field(element: str, tag: str) -> str:
    """Return what stands in a tag, or behind it up to the next one, on one line."""
    match = re.search(rf"<{tag}>(.*?)(?:</{tag}>|<\w+>|$)", element, re.DOTALL | re.IGNORECASE)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", match[1])).split()) if match else ""


def _joined(title: str, text: str) -> str:
    """Return title and text as one, the title once."""
    return text if not title or text.startswith(title) else f"{title} {text}".strip()


def _judgements(files: _Files, documents: Texts, queries: Dataset, source: Path) -> Judgements:
    """Return the judgements of all files.

    Raises:
        BadInput: a line is none, or none names a query and a document that are there.
    """
    lines = [(canonical(_stem(path)) if len(files.judgements) > 1 or is_split(_stem(path)) else "", *line)
             for path in files.judgements for line in _lines(path)]  # fmt: skip
    place = {name: i for i, name in enumerate(queries.whole.names)}
    if any(query not in place for _, query, _, _ in lines) and not _is_lines(files.queries):
        counted = {str(i + 1): i for i in range(len(place))}
        if all(query in counted for _, query, _, _ in lines):  # Cranfield's do, while its queries have other numbers
            logging.getLogger("fastness").warning("%s: the judgements name queries by their order in the file", source)
            place = counted
    row, usable = {name: i for i, name in enumerate(documents)}, set(queries.rows.tolist())
    known = [(s, place[q], row[d], gain) for s, q, d, gain in lines if place.get(q) in usable and d in row]
    if not known:
        raise BadInput(
            f"{files.judgements[0]}: names no query and document that are there; give those that belong to it"
        )
    if len(known) < len(lines):
        logging.getLogger("fastness").warning(
            "%s: %d of %d judgements name an unknown or empty query, or an unknown document",
            source,
            len(lines) - len(known),
            len(lines),
        )
    split, query, document, gain = zip(*known, strict=True)
    return Judgements(queries, np.array(query), np.array(document), np.array(gain), np.array(split))


def _lines(path: Path) -> Iterator[tuple[str, str, float]]:
    """Yield query, document and gain of each line: ``query document gain``, or with a column between, as TREC has."""
    for number, line in enumerate(read_lines(path), 1):
        cells = line.split()
        if not cells:
            continue
        try:
            if len(cells) not in (3, 4):
                raise ValueError
            gain = float(cells[-1])
            if not math.isfinite(gain):
                raise ValueError
            yield cells[0], cells[-2], gain
        except ValueError:
            if number == 1:
                continue  # the names of the columns
            raise BadInput(f"{path}: line {number} is no judgement; write: query document number") from None


# --- data sets ------------------------------------------------------------------------------------


def _dataset(
    names: list[str], payloads: TextPayloads, source: Path, lost: Sequence[Quarantined] = (), splits: Any = None
) -> Dataset:
    hashes = hash_items(text.encode("utf-8", "replace") for text in payloads.texts)
    manifest = Manifest(names, hashes, splits=splits, source=str(source))
    damaged = {row: why for row, why in enumerate(map(damage, payloads.texts)) if why is not None}
    return Dataset.of(manifest, payloads, lost, modality="text").without(damaged)


def _pairs(judged: Judgements, documents: Texts, side: str, source: Path, lost: Sequence[Quarantined]) -> Dataset:
    """Return one side of the pairs of a query and a document that answers it."""
    right = judged.select(judged.gain > 0)
    names, titles, texts = judged.queries.whole.names, list(documents), list(documents.values())
    pairs = [f"query {names[q]}, document {titles[d]}" for q, d in zip(right.query, right.document, strict=True)]
    read = judged.queries.payloads.read if side == "query" else texts.__getitem__
    chosen = [read(int(row)) for row in (right.query if side == "query" else right.document)]
    splits = right.splits if (right.splits != "").any() else None
    return _dataset(pairs, TextPayloads(chosen), source, lost, splits)
