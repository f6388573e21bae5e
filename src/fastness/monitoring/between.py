"""Between two sets of items, of whatever they are given as: tested, explained, and written down as a page."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fastness.bundle import Bundle, load
from fastness.bundle.heads import Head
from fastness.core.errors import BadInput, GateRefused
from fastness.data.show import shown
from fastness.monitoring.drift import Verdict, drifted
from fastness.monitoring.explain.explain import explain
from fastness.monitoring.explain.explanation import Explanation
from fastness.monitoring.kept import stored
from fastness.monitoring.report import report
from fastness.monitoring.report.report import Look
from fastness.monitoring.sketch import DESCRIPTION, FOLDER, Sketch
from fastness.monitoring.sketching import embedded, export_of, head_of, sample
from fastness.monitoring.window import Window

_BUNDLE = "bundle"
_VECTORS = {"vector", "vectors", "embedding", "embeddings"}
_MANY = 0.5  # share of items that the encoder was trained on, of which it is to be told


@dataclass(frozen=True)
class Drifted:
    """What lies between a reference and new items.

    Attributes:
        verdict: what the tests found.
        explanation: what explains it.
        html: the page.
    """

    verdict: Verdict
    explanation: Explanation
    html: Path

    def enforce(self) -> None:
        """Raise `GateRefused` if there is drift."""
        if self.verdict.alarm:
            raise GateRefused(self.verdict.said)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        told = {"verdict": self.verdict.to_dict(), "explanation": self.explanation.to_dict()}
        return {"report": str(self.html), **told}


def drift(
    reference: Any,
    new: Any,
    *,
    bundle: Bundle | str | Path | None = None,
    form: str | None = None,
    head: str | None = None,
    side: str | None = None,
    level: float = 0.01,
    tests: Sequence[str] | None = None,
    slices: Sequence[str] = (),
    floors: Mapping[str, float] | None = None,
    out: str | Path = "drifted",
    examples: bool = True,
    most: int = 10_000,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
    **columns: str | None,
) -> Drifted:
    """Test whether new items are still like those of a reference, say why not, and write a page.

    Args:
        reference, new: each a `Window`, a `Sketch` or a bundle that has one beside it, a ``.npz`` or ``.parquet`` file
            of any model's embeddings (see `stored.read`), or data that ``bundle`` embeds: of the reference's the
            part that is new to encoder and head, where it has splits or is what the head was fitted on.
        bundle: what embeds data; may be left out where the reference is a bundle with its sketch.
        form: of an export of it that embeds instead; that of the sketch, if there is one.
        head: what answers; may be left out where there is one or none.
        side: which side of things with several.
        level, tests, slices, floors: see `drift.drifted`.
        out: folder for ``drift.html``, ``drift.md`` and ``drift.json``.
        examples: whether the page may show items of data.
        most: items of data that are embedded, drawn at random.
        seed: of every random choice.
        say: called with a line of progress.
        **columns: see `open_data`.

    Raises:
        BadInput: either cannot be read, they are of two spaces, or there are fewer than ten items.
    """
    known = _sketch(reference)
    if known is not None:
        about = known.about
        bundle = bundle or _beside(reference)
        form = form or {"float32": None}.get(str(about.get("form")), about.get("form"))
        head, side = head or about.get("head"), side or about.get("side")
    say = say or (lambda text: None)
    embedder = None if bundle is None else _Embedder.of(bundle, form, head, side, most, seed, say)
    if known is not None and embedder is not None and known.about.get("bundle") not in (None, embedder.opening.id):
        raise BadInput(f"{_called(reference)}: its sketch is not of {embedder.opening.path}; name the bundle it is of")
    old = _Side(known.window, None) if known is not None else _side(reference, embedder, columns, held_out=True)
    now = _side(new, embedder, columns)
    verdict = drifted(old.window, now.window, level=level, tests=tests, slices=slices, seed=seed, floors=floors)
    found = explain(known or old.window, now.window, verdict, seed=seed)
    looks = (old.look, now.look) if examples else (None, None)
    title = f"{_called(new)} against {_called(reference)}"
    html = report.write(Path(out), verdict, found, old.window, now.window, title=title, looks=looks)
    return Drifted(verdict, found, html)


@dataclass(frozen=True)
class _Side:
    """Items, and how each looks where that is known."""

    window: Window
    look: Look | None


@dataclass(frozen=True)
class _Embedder:
    """What makes windows of data: a bundle that opens it, what computes, and what answers."""

    opening: Bundle
    computing: Bundle
    answering: Head | None
    most: int
    seed: int
    say: Callable[[str], None]

    @staticmethod
    def of(
        bundle: Bundle | str | Path,
        form: str | None,
        head: str | None,
        side: str | None,
        most: int,
        seed: int,
        say: Callable[[str], None],
    ) -> _Embedder:
        whole = bundle if isinstance(bundle, Bundle) else load(bundle)
        one = whole.one_side(side)
        computing = one if form is None else load(export_of(whole.path, form, side))
        return _Embedder(one, computing, head_of(whole, head, side), most, seed, say)

    def window(self, data: Any, columns: Mapping[str, str | None], held_out: bool) -> _Side:
        """Embed data with what is known of it, at most so many items; of a reference what is new to the head."""
        dataset = self.opening.open(data, **columns)
        items = sample(self.opening, dataset, self.answering, self.most, self.seed, held_out=held_out)
        self.say(f"embedding {len(items):,} items of {dataset.whole.source} …")
        trained = np.mean([row.tobytes().hex() in self.opening.item_hashes for row in items.dataset.manifest.hashes])
        if trained > _MANY:
            said = f"the encoder was trained on {trained:.0%} of these items, and new ones may lie otherwise"
            self.say(f"note: {said}; give held-out items if there are any")
        return _Side(embedded(self.computing, items, self.answering), partial(shown, items.dataset))


def _side(given: Any, embedder: _Embedder | None, columns: Mapping[str, str | None], held_out: bool = False) -> _Side:
    """Return items of whatever they are given as."""
    if isinstance(given, Window):
        return _Side(given, None)
    if (sketch := _sketch(given)) is not None:
        return _Side(sketch.window, None)
    if isinstance(given, str | Path) and _holds_vectors(Path(given)):
        return _Side(stored.read(Path(given)), None)
    if embedder is None:
        raise BadInput(f"{_called(given)}: holds no embeddings; name the bundle that embeds it (--bundle)")
    return embedder.window(given, columns, held_out)


def _sketch(given: Any) -> Sketch | None:
    """Return the sketch that is given, or lies beside what is given."""
    if isinstance(given, Sketch):
        return given
    if not isinstance(given, str | Path):
        return None
    folders = (Path(given), Path(given) / _BUNDLE)  # a run's folder has its bundle inside
    there = [f for f in folders if (f / DESCRIPTION).is_file() or (f / FOLDER / DESCRIPTION).is_file()]
    return Sketch.load(there[0]) if there else None


def _beside(given: Any) -> Path | None:
    """Return the bundle that a sketch lies beside, if it was given by its address."""
    if isinstance(given, Sketch):
        return None
    folders = (Path(given), Path(given) / _BUNDLE, Path(given).parent)
    return next((folder for folder in folders if (folder / "bundle.json").is_file()), None)


def _holds_vectors(path: Path) -> bool:
    """Return whether a file is one of embeddings rather than of items; one that cannot be read is told of as such."""
    if not path.is_file() or path.suffix not in {".npz", ".parquet"}:
        return False
    import pyarrow.parquet as pq

    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as kept:
                return not _VECTORS.isdisjoint(kept.files)
        schema = pq.read_schema(path)
        return any(name in schema.names and schema.field(name).type.num_fields for name in _VECTORS)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):  # also Arrow's
        return True


def _called(given: Any) -> str:
    """Return what was given in a word or two."""
    if isinstance(given, str | Path):
        return str(given)
    if isinstance(given, Sketch):
        return str(given.about.get("source") or "the sketch")
    return f"{len(given):,} items" if hasattr(given, "__len__") else type(given).__name__
