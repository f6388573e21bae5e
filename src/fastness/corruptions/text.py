"""Corruptions of texts: typing errors, case, look-alike letters, lost words, other ways to say it; in five severities.

Each text draws from its own generator, seeded by what it says: the same text is corrupted in the same way whatever
stands around it. The share of the words (or letters) that are touched grows with the severity. Nothing becomes empty.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fastness.core.registry import Registry
from fastness.core.seeds import numpy_generator
from fastness.corruptions import WORLDS, Batches, Scene, World, at_severity, corruption_of
from fastness.corruptions.phrases import PHRASES
from fastness.data.text import damage, dataset_of, texts_of

_WORDS = 100  # that are hidden one after the other
Function = Callable[[str, float, np.random.Generator], str]


@dataclass(frozen=True)
class TextCorruption:
    """One kind of corruption.

    Attributes:
        name: its name, which is part of the seed.
        function: from a text, a share in [0, 1] and a generator to a text.
        shares: how much is touched at severities 1 to 5.
    """

    name: str
    function: Function
    shares: tuple[float, ...]

    def __call__(self, text: str, severity: int, seed: int) -> str:
        """Corrupt a text; what would become unusable stays as it is.

        Raises:
            BadInput: no such severity.
        """
        generator = numpy_generator(seed, self.name, severity, text)
        found = self.function(text, at_severity(self.shares, severity), generator)
        return found if damage(found) is None else text


TEXT_CORRUPTIONS: Registry[TextCorruption] = Registry("corruption of texts", "fastness.corruptions", {})


corruption = corruption_of(TEXT_CORRUPTIONS, TextCorruption)


_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_BESIDE = {
    key: "".join(
        other
        for r in (row - 1, row, row + 1)
        if 0 <= r < 3
        for c, other in enumerate(_ROWS[r])
        if other != key and abs(c - column) <= 1
    )
    for row, keys in enumerate(_ROWS)
    for column, key in enumerate(keys)
}
_TWINS = str.maketrans(
    "aceopxyijsABCEHIKMOPSTXYZ0135",
    "асеорхуіјѕАВСЕНІКМОРЅТХҮΖОlЗƼ",  # Cyrillic, Greek and other letters that look the same
)


@corruption("typos", 0.02, 0.04, 0.07, 0.11, 0.16)
def typos(text: str, share: float, generator: np.random.Generator) -> str:
    """Hit the next key, leave a letter out, write it twice, or exchange it with the one behind; a share of letters."""
    letters = list(text)
    at = [i for i, letter in enumerate(letters) if letter.isalpha()]
    for i in _some(at, share, generator):
        letter = letters[i]
        match int(generator.integers(4)):
            case 0 if letter.lower() in _BESIDE:
                keys = _BESIDE[letter.lower()]
                hit = keys[int(generator.integers(len(keys)))]
                letters[i] = hit.upper() if letter.isupper() else hit
            case 1 if len(at) > 1:
                letters[i] = ""
            case 2:
                letters[i] = letter * 2
            case _ if i + 1 < len(letters):
                letters[i], letters[i + 1] = letters[i + 1], letters[i]
    return "".join(letters)


@corruption("case", 0.2, 0.4, 0.6, 0.8, 1.0)
def case(text: str, share: float, generator: np.random.Generator) -> str:
    """Write a share of the words all in capitals, or with the case of every letter turned."""
    return _words(text, share, generator, lambda word: word.upper() if generator.random() < 0.5 else word.swapcase())


@corruption("homoglyphs", 0.02, 0.05, 0.1, 0.2, 0.4)
def homoglyphs(text: str, share: float, generator: np.random.Generator) -> str:
    """Replace a share of the letters by letters of other alphabets that look the same."""
    letters = list(text)
    twins = [i for i, letter in enumerate(letters) if ord(letter) in _TWINS]
    for i in _some(twins, share, generator):
        letters[i] = letters[i].translate(_TWINS)
    return "".join(letters)


@corruption("word_drop", 0.05, 0.1, 0.2, 0.3, 0.5)
def word_drop(text: str, share: float, generator: np.random.Generator) -> str:
    """Leave a share of the words out, never all."""
    words = text.split()
    gone = set(_some(list(range(len(words))), min(share, 1 - 1 / max(len(words), 1)), generator))
    return " ".join(word for i, word in enumerate(words) if i not in gone)


@corruption("paraphrase", 0.2, 0.4, 0.6, 0.8, 1.0)
def paraphrase(text: str, share: float, generator: np.random.Generator) -> str:
    """Say a share of what the rules know in another way; where no rule fits, exchange clauses at a comma or stay.

    Rules are pairs of phrases of about the same meaning (`phrases`), used in both directions; English only.
    """
    found = [match for match in _PHRASE.finditer(text) if match.group().lower() in PHRASES]
    chosen = set(_some(list(range(len(found))), share, generator))
    if not found and generator.random() < share:
        return _turned(text)
    parts, at = [], 0
    for number, match in enumerate(found):
        if number in chosen:
            ways = PHRASES[match.group().lower()]
            other = ways[int(generator.integers(len(ways)))]
            parts += [text[at : match.start()], _in_case_of(match.group(), other)]
            at = match.end()
    return "".join([*parts, text[at:]])


def _in_case_of(said: str, other: str) -> str:
    """Return other words with the capitals that those for which they stand would have."""
    if said[0].isupper():
        other = other[0].upper() + other[1:]
    return other if re.search(r"\bi\b", said) else re.sub(r"\bi\b", "I", other)


# Neither part of a word nor of a number, a time, an address or a price.
_PHRASE = re.compile(
    r"(?<![\w'$€£#])(?<!\w[.,:/-])(?:"
    + "|".join(map(re.escape, sorted(PHRASES, key=len, reverse=True)))
    + r")(?![\w'%])(?![.,:/-]\w)",
    re.IGNORECASE,
)


def _turned(text: str) -> str:
    """Return «b, a» for «a, b» with one comma."""
    body = text.rstrip(".!? ")
    first, comma, second = body.partition(", ")
    if not comma or not first.strip() or not second.strip() or "," in second:
        return text
    return f"{second}, {first}{text[len(body) :]}"


def _words(text: str, share: float, generator: np.random.Generator, change: Callable[[str], str]) -> str:
    """Change a share of the words; what stands between them stays."""
    parts = re.split(r"(\s+)", text)
    places = [i for i, part in enumerate(parts) if part and not part.isspace()]
    for i in _some(places, share, generator):
        parts[i] = change(parts[i])
    return "".join(parts)


def _some(places: list[int], share: float, generator: np.random.Generator) -> list[int]:
    """Return a random ``share`` of ``places`` in order; the fraction of one decides by lot."""
    count = int(share * len(places) + generator.random())
    return sorted(generator.permutation(places)[:count].tolist()) if count else []


class TextWorld(World):
    """Corruptions of the texts themselves, before they become tokens."""

    names = tuple(TEXT_CORRUPTIONS)
    common = names
    source = "typing errors, case, look-alike letters, lost words, paraphrases by rules"

    def corrupted(self, scene: Scene, name: str, severity: int, seed: int) -> Batches:
        """See `World.corrupted`."""
        corrupt = TEXT_CORRUPTIONS.get(name)
        texts = [corrupt(text, severity, seed) for text in texts_of(scene.items.dataset)]
        ready = scene.prepare(dataset_of(texts))
        for positions, batch in ready.batches(256):
            yield ready.dataset.rows[positions], batch.to(scene.device)

    def hidden(self, scene: Scene, position: int) -> tuple[list[str], Batches]:
        """See `World.hidden`; at most the first 100 words."""
        words = texts_of(scene.items.dataset.select(np.array([position])))[0].split()
        left = [" ".join(words[:i] + words[i + 1 :]) for i in range(min(len(words), _WORDS))]
        if any(damage(text) for text in left):  # one word alone has no parts
            return [], iter(())
        ready = scene.prepare(dataset_of(left))
        batches = ((ready.dataset.rows[positions], batch.to(scene.device)) for positions, batch in ready.batches(256))
        return words[: len(left)], batches


WORLDS.register("text")(TextWorld())
