"""Texts: what of them can be used, and texts as tokens."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastness.core.errors import BadInput
from fastness.data.dataset import Dataset
from fastness.data.items import Floats, Items, Positions, Progress
from fastness.data.manifest import Manifest, hash_items
from fastness.data.traits import OF_TEXT, of_text

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

_SURROGATE = re.compile("[\ud800-\udfff]")
PADDING = -1
"""What stands behind the last token of a text in a batch."""
_TOKENS_AN_ITEM = 64  # a batch of size B has at most B times so many places
_PLAIN_WORDS = 1024


@dataclass(frozen=True)
class TextPayloads:
    """Texts in memory."""

    texts: Sequence[str]

    def read(self, row: int) -> str:
        """Return text ``row``."""
        return self.texts[row]


def damage(text: object) -> str | None:
    """Return why a value is no text that can be learnt from, or ``None``."""
    if not isinstance(text, str):
        return "missing" if text is None else f"a {type(text).__name__}, not a text"
    if _SURROGATE.search(text):
        return "half of a surrogate pair: the text was cut or decoded wrongly"
    seen = text.strip()
    if seen and seen[0].isprintable():  # quick, and so of nearly all texts
        return None
    return "empty" if all(c.isspace() or unicodedata.category(c) in ("Cc", "Cf") for c in text) else None


def dataset_of(texts: Any) -> Dataset:
    """Return the data set of texts in a list or array.

    Raises:
        BadInput: one of them is no text; names its position.
    """
    kept = [plain.item() if hasattr(plain, "item") else plain for plain in texts]
    for position, text in enumerate(kept):
        reason = damage(text)
        if reason is not None:
            raise BadInput(f"item {position}: {reason}; leave it out or mend it")
    hashes = hash_items(text.encode() for text in kept)
    manifest = Manifest([f"item {i}" for i in range(len(kept))], hashes, source="list")
    return Dataset.of(manifest, TextPayloads(kept), modality="text")


def texts_of(dataset: Dataset) -> list[str]:
    """Return a data set's texts in order."""
    return [dataset.payloads.read(int(row)) for row in dataset.rows]


@dataclass(frozen=True)
class TextItems(Items):
    """Texts as the numbers of their tokens.

    Attributes:
        dataset: the texts.
        tokens: int32, those of all texts of ``dataset`` one after the other.
        starts: int64 ``[N + 1]``, where each begins.
    """

    dataset: Dataset
    tokens: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Number of tokens of each text, int64 ``[N]``."""
        return np.diff(self.starts)

    def batch(self, positions: Positions) -> torch.Tensor:
        """Return int32 ``[B, L]``, as long as the longest text of the batch, -1 behind the others' ends."""
        import torch

        lengths = self.lengths[positions]
        place = np.arange(max(1, int(lengths.max(initial=0))))
        there = place < lengths[:, None]
        out = np.full(there.shape, PADDING, np.int32)
        out[there] = self.tokens[(self.starts[positions][:, None] + place)[there]]
        return torch.from_numpy(out)

    def batches(self, size: int) -> Iterator[tuple[Positions, torch.Tensor]]:
        """Yield the texts by falling length, so that little is padded; long texts come fewer at a time."""
        order = np.argsort(-self.lengths, kind="stable")
        start = 0
        while start < len(order):
            longest = max(1, int(self.lengths[order[start]]))
            stop = start + max(1, min(4 * size, size * _TOKENS_AN_ITEM // longest))
            yield order[start:stop], self.batch(order[start:stop])
            start = stop

    def select(self, rows: npt.NDArray[np.generic]) -> TextItems:
        """Return the texts at ``rows`` (positions or a mask)."""
        chosen = np.arange(len(self))[rows]
        starts = np.r_[0, np.cumsum(self.lengths[chosen])]
        offset = np.repeat(self.starts[chosen] - starts[:-1], self.lengths[chosen])
        return TextItems(self.dataset.select(rows), self.tokens[np.arange(starts[-1]) + offset], starts)

    def plain(self, known: TextItems) -> Floats:
        """Return TF-IDF of the 1,024 most frequent words of ``known``, each row of length 1."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        made = TfidfVectorizer(max_features=_PLAIN_WORDS, sublinear_tf=True, dtype=np.float32)
        try:
            made.fit(texts_of(known.dataset))
        except ValueError:  # no words at all, only signs
            return np.zeros((len(self), 1), np.float32)
        dense: Floats = made.transform(texts_of(self.dataset)).toarray()
        return dense

    def traits(self) -> dict[str, Floats]:
        """Return ``words``, ``characters``, and which share of the letters are ``capitals``, or ``foreign`` to ASCII,
        and which share of all characters are ``digits``.
        """
        found = np.array([of_text(text) for text in texts_of(self.dataset)], np.float32).reshape(-1, len(OF_TEXT))
        return dict(zip(OF_TEXT, found.T, strict=True))


def tokenised(dataset: Dataset, tokenizer: Tokenizer, progress: Progress | None = None) -> TextItems:
    """Return a data set's texts as tokens, in one pass; texts that give no token are quarantined."""
    texts = texts_of(dataset)
    parts, lengths = [], []
    for start in range(0, len(texts), 4096):
        block = texts[start : start + 4096]
        for encoding in tokenizer.encode_batch_fast(block):
            parts.append(np.asarray(encoding.ids, np.int32))
            lengths.append(len(parts[-1]))
        if progress:
            progress(start + len(block), len(texts))
    starts = np.r_[0, np.cumsum(np.array(lengths, np.int64))]
    items = TextItems(dataset, np.concatenate(parts) if parts else np.zeros(0, np.int32), starts)
    empty = np.flatnonzero(items.lengths == 0)
    if not len(empty):
        return items
    usable = items.select(np.setdiff1d(np.arange(len(items)), empty))
    damaged = {int(dataset.rows[i]): "no token of the vocabulary" for i in empty}
    return TextItems(dataset.without(damaged), usable.tokens, usable.starts)
