"""Are causes that were planted named first? New items of real data, of which one part was never in the reference.

In each trial a reference and new items are drawn from one pool without overlap, and a fifth of the new ones (a tenth in
the harder half) is replaced by what is planted. The cause that comes first is right if it is the planted value or range
of a column; of a planted cluster, which no column tells, if it is a cluster that is new, and at least 80 % of its new
items are planted ones. Where nothing is planted, nothing should be named. Resumable: each row leaves a file in
``.bench/explain``.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import common
import drift_data
import fastness as fs
from fastness.bundle.bundle import Bundle
from fastness.core.files import atomic_path, write_json
from fastness.core.seeds import numpy_generator
from fastness.data import open_data
from fastness.evaluation.slices import known_of
from fastness.monitoring.explain.explain import explain
from fastness.monitoring.explain.explanation import Cause
from fastness.monitoring.window import Window

ITEMS = 1000  # of the reference, and of the new ones
SHARES = (0.2, 0.1)
NOTHING = ("language that is told", "vendor, emoji", "dark pictures, CIFAR-10")  # scenes that are also run unplanted
FOLDER = common.WORK / "explain"
UNCLUSTERED = "new class: trucks, CIFAR-10"  # even told which they are, a linear probe finds but half of them
PURE = 0.8
DARK = 0.35  # what is left of the light


@dataclass(frozen=True)
class Scene:
    """What belongs to the reference, and what is planted; each trial draws of both.

    Attributes:
        right: pattern of what the planted cause is called; of a cluster none, it is told by its items.
        column: whose values are planted one at a time, another one in each trial; ``planted`` is empty then.
    """

    usual: Window
    planted: Window
    right: str = ""
    column: str = ""

    def of_trial(self, rng: np.random.Generator) -> tuple[Window, Window]:
        """Return what is drawn from in one trial."""
        if not self.column:
            return self.usual, self.planted
        values = self.usual.columns[self.column]
        different, counts = np.unique(values, return_counts=True)
        chosen = values == rng.choice(different[counts >= SHARES[1] * ITEMS])
        return without(self.usual.select(~chosen), self.column), without(self.usual.select(chosen), self.column)


def without(items: Window, *names: str) -> Window:
    """Return items of which some columns are not known."""
    kept = {name: values for name, values in items.columns.items() if name not in names}
    return Window(items.vectors, kept, items.ids)


def embedded(name: str, made: Callable[[], tuple[Bundle, Any]]) -> Window:
    """Embed items with what is known of them, once; its own class is none of what is known."""
    path = FOLDER / f"{name}.npz"
    if not path.exists():
        bundle, data = made()
        items = bundle.encoder.prepare(data)
        with atomic_path(path) as temporary, temporary.open("wb") as handle:
            np.savez(handle, vectors=bundle.embed_items(items), **known_of(items.dataset, items))
    columns = dict(np.load(path))
    vectors = columns.pop("vectors")
    return Window(vectors, columns, [f"{name} {i}" for i in range(len(vectors))])


def pictures() -> dict[str, Scene]:
    """Return CIFAR-10 with trucks, which the encoder never saw, and with pictures in the dark."""

    def part(name: str, new: bool, light: float = 1.0) -> Window:
        def made() -> tuple[Bundle, Any]:
            bundle, images, labels = drift_data.cifar()
            chosen = images[(labels == drift_data.NEW_CLASS) == new]
            return bundle, open_data((chosen * light).astype(np.uint8))

        return embedded(name, made)

    clean = part("pictures", False)
    return {
        UNCLUSTERED: Scene(clean, part("trucks", True)),
        "dark pictures, CIFAR-10": Scene(clean, part("dark", False, DARK), "brightness( <= .*)?"),
    }


def emoji() -> dict[str, Scene]:
    """Return emoji of two vendors with those of a third, and emoji without flags with flags."""

    def made() -> tuple[Bundle, Any]:
        drift_data.pools("vendor")  # for which the encoder is trained
        data = open_data(common.DATA / "emoji" / "emoji.parquet", image="image", label="none")
        return fs.load(drift_data.FOLDER / "emoji" / "bundle"), data

    known = embedded("emoji", made)
    found = without(known, "category", "subcategory", "name", "keywords", "emoji_id")
    new, flags = known.columns["vendor"] == drift_data.NEW_VENDOR, known.columns["category"] == "Flags"
    return {
        "vendor, emoji": Scene(found.select(~new), found.select(new), f"vendor == '{drift_data.NEW_VENDOR}'"),
        "new class: flags, emoji": Scene(found.select(~new & ~flags), found.select(~new & flags)),
    }


def captions() -> dict[str, Scene]:
    """Return English captions with German ones of other pictures, whose language somebody told, or nobody."""

    def part(language: str, start: int, end: int) -> Window:
        def made() -> tuple[Bundle, Any]:
            path = common.DATA / "text" / "multi30k" / f"task1_raw_train.{language}.txt"
            lines = path.read_text(encoding="utf-8").splitlines()[start:end]
            return fs.load(common.minilm_bundle()), open_data(lines, modality="text")

        found = embedded(language, made)
        return Window(found.vectors, {**found.columns, "language": np.full(len(found), language)}, found.ids)

    english, german = part("en", 0, 3000), part("de", 3000, 3600)
    return {
        "language that is told": Scene(english, german, "language == 'de'"),
        "language that is not told": Scene(without(english, "language"), without(german, "language")),
    }


def questions() -> dict[str, Scene]:
    """Return questions to a bank, of which one intent is new; another one in each trial."""

    def made() -> tuple[Bundle, Any]:
        path = common.DATA / "text" / "banking77" / "train.csv"
        return fs.load(common.minilm_bundle()), open_data(path, text="text", label="none")

    found = embedded("questions", made)
    return {"new class: an intent, Banking77": Scene(found, found.select(np.zeros(0, np.int64)), column="category")}


def trial(scene: Scene, share: float, seed: int) -> dict[str, Any]:
    """Draw, plant, explain, and judge what comes first."""
    rng = numpy_generator(seed, "trial")
    usual, planted = scene.of_trial(rng)
    count = min(round(share * ITEMS), len(planted))
    rows, added = rng.permutation(len(usual)), planted.select(rng.permutation(len(planted))[:count])
    old = usual.select(rows[ITEMS : 2 * ITEMS - count])
    columns = {name: np.concatenate([values, added.columns[name]]) for name, values in old.columns.items()}
    new = Window(np.concatenate([old.vectors, added.vectors]), columns)
    start = time.perf_counter()
    found = explain(usual.select(rows[:ITEMS]), new, seed=seed)
    seconds = time.perf_counter() - start
    first = found.causes[0] if found.causes else None
    hit = first is not None and right(scene, first, len(old))
    return {"first": first, "right": hit, "seconds": seconds, "share": count / ITEMS}


def right(scene: Scene, first: Cause, old: int) -> bool:
    """Return whether the first cause is what was planted; new items from position ``old`` are."""
    if scene.right:
        return first.after > first.before and re.fullmatch(scene.right, first.what) is not None
    pure = np.mean([row >= old for row in first.rows]) >= PURE
    return first.kind == "cluster new" and bool(pure)


def row(name: str, scene: Scene, share: float, trials: int) -> dict[str, Any]:
    """Return how often the planted cause comes first, and what else does; a finished row is kept."""
    told = (
        f"{name}-{share}-{trials}-{common.source_hash('monitoring/explain', 'monitoring/drift', own=__file__)}".replace(
            " ", "_"
        )
    )
    path = FOLDER / f"{told}.json"
    if not path.exists():
        write_json(path, _measured(name, scene, share, trials))
    return dict(json.loads(path.read_text()))


def _measured(name: str, scene: Scene, share: float, trials: int) -> dict[str, Any]:
    found = [trial(scene, share, seed) for seed in range(trials)]
    kinds = Counter(f["first"].kind if f["first"] else "none" for f in found)
    wrong = [f["first"].said if f["first"] else "nothing" for f in found if not f["right"]]
    return {
        "planted": name,
        "share": share,
        "share_planted": round(float(np.median([f["share"] for f in found])), 3),
        "trials": trials,
        "right": sum(f["right"] for f in found),
        "named": sum(f["first"] is not None for f in found),
        "kinds": dict(kinds),
        "wrong": wrong[:3],
        "seconds": round(float(np.median([f["seconds"] for f in found])), 2),
    }


def asked(found: dict[str, Any]) -> dict[str, Any]:
    """Return a row as an ask; of the rarer half, and of what is no cluster to the encoder, it is only stated."""
    hard = found["share"] != SHARES[0] or found["planted"] == UNCLUSTERED
    return common.ask(
        f"{found['planted']}, {found['share_planted']:.0%} of the new items: first",
        "stated" if hard else ">= 9 of 10 trials",
        f"{found['right']} of {found['trials']}",
        None if hard else found["right"] >= 0.9 * found["trials"],
    )


def main(quick: bool) -> None:
    """Run all scenes and write the result."""
    trials, nothing = (10, 20) if quick else (40, 100)
    scenes = {**captions(), **questions(), **emoji(), **pictures()}
    rows = [row(name, scene, share, trials) for name, scene in scenes.items() for share in SHARES]
    rows += [row(f"nothing ({name})", scenes[name], 0.0, nothing) for name in NOTHING]
    asks = [asked(r) for r in rows if r["share"]]
    named, runs = (sum(r[key] for r in rows if not r["share"]) for key in ("named", "trials"))
    asks.append(
        common.ask(
            "nothing planted: something is named", "<= 5 % of trials", f"{named} of {runs}", named <= 0.05 * runs
        )
    )
    common.save("explain" + ("_quick" if quick else ""), rows, asks, items=ITEMS)


if __name__ == "__main__":
    main(common.arguments(__doc__).quick)
