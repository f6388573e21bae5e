"""Side by side: bundles measured on the same items, what changed, and what the gate says, as a page and as data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from fastness import bundle as bundles
from fastness.core.errors import BadInput
from fastness.core.files import disk_errors, write_json, write_text
from fastness.data import Dataset, open_data
from fastness.evaluation import evidence as evidences
from fastness.evaluation import page, sheets
from fastness.evaluation.compare import Comparison
from fastness.evaluation.compare import compare as compare_evidence
from fastness.evaluation.evaluate import measure
from fastness.evaluation.evidence import Evidence
from fastness.evaluation.gate import Verdict, judge, read_policy
from fastness.evaluation.subject import Subject

_SHOWN = 12  # items of each kind on the page


@dataclass(frozen=True)
class Compared:
    """What a comparison gave.

    Attributes:
        comparisons: of each later bundle with the first.
        verdicts: what the gate says of each, in the same order; empty without a policy.
        html: the page.
    """

    comparisons: list[Comparison]
    verdicts: list[Verdict]
    html: Path

    def enforce(self) -> None:
        """Raise `GateRefused` with the first rule and slice that refused, if the gate said no."""
        for comparison, verdict in zip(self.comparisons, self.verdicts, strict=False):
            verdict.enforce(comparison.after.called)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return {"report": str(self.html), "comparisons": [_plain(*pair) for pair in self._pairs()]}

    def _pairs(self) -> list[tuple[Comparison, Verdict | None]]:
        return list(zip_longest(self.comparisons, self.verdicts))  # without a policy there are no verdicts


def compare(
    *addresses: bundles.Bundle | str | Path,
    data: Any = None,
    checks: Sequence[str] | None = None,
    slices: Sequence[str] | None = None,
    policy: str | Path | None = None,
    out: str | Path = "compared",
    examples: bool = True,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
    **columns: str | None,
) -> Compared:
    """Measure bundles on the same items, compare each with the first, judge, and write a page.

    Args:
        addresses: bundles, runs or folders of evidence; one alone is compared with itself, so that a policy of floors
            may judge it.
        data: what to measure on; not needed where all are evidence.
        checks: see `evaluate`.
        slices: see `evaluate`.
        policy: a YAML file, see `gate.Policy`.
        out: folder for ``compare.html``, ``compare.json`` and ``compare.md``.
        examples: whether the page may show items.
        seed: of every random choice.
        say: called with a line of progress.

    Raises:
        BadInput: an address, the data, a slice or the policy is unusable.
    """
    asked = None if policy is None else read_policy(Path(policy))  # a mistake in it is worth knowing first
    if not addresses:
        raise BadInput("nothing to compare; name bundles, runs or folders of evidence")
    found: list[Evidence] = []
    dataset = None
    for address in addresses:
        if not isinstance(address, bundles.Bundle) and (Path(address) / "evidence.json").is_file():
            found.append(evidences.read(Path(address)))
            continue
        if data is None:
            raise BadInput(f"{address}: no evidence; say what to measure it on (--data)")
        bundle = address if isinstance(address, bundles.Bundle) else bundles.load(address)
        dataset = dataset or bundle.open(data, **columns)
        if say:
            say(f"{address}:")
        found.append(measure(replace(Subject.of(bundle, dataset, seed), examples=examples), checks, say=say))
    if dataset is None and data is not None:
        dataset = open_data(data, **columns)
    comparisons = [compare_evidence(found[0], other, slices) for other in found[1:] or found]
    verdicts = [] if asked is None else [judge(asked, comparison) for comparison in comparisons]
    return _written(Compared(comparisons, verdicts, Path(out) / "compare.html"), dataset if examples else None)


def _written(result: Compared, dataset: Dataset | None) -> Compared:
    """Write a comparison as data and as pages, which show items of a data set if there is one."""
    out = result.html.parent
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "compare.json", result.to_dict())
        said = {
            "pairs": [(_words(c), c, v) for c, v in result._pairs()],
            "changed": [{} if dataset is None else _changed(c, dataset) for c in result.comparisons],
        }
        write_text(out / "compare.md", page.render("compare.md.j2", **said))
        write_text(result.html, page.render("compare.html.j2", **said))
    return result


def _plain(comparison: Comparison, verdict: Verdict | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "before": comparison.before.about,
        "after": comparison.after.about,
        "items": len(comparison.keys),
        "differences": [_finite({**asdict(d), "gain": d.gain}) for d in comparison.differences],
    }
    if verdict is not None:
        found["gate"] = verdict.to_dict()
    return found


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """Return values with null for what JSON has no number for."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def _words(comparison: Comparison) -> str:
    """Say in a sentence or two what changed."""
    if comparison.before is comparison.after:
        return "It is compared with itself, since no second one was named."
    changes = comparison.changes()
    parts = []
    for way, verb in (("worse", "loses"), ("better", "gains")):
        rows = changes[way]
        if rows:
            d = rows[0]
            more = f" and in {len(rows) - 1} further places" if len(rows) > 1 else ""
            on = "all items" if d.slice == "all" else d.slice
            parts.append(f"it {verb} most in {d.name} on {on} ({d.before:.3f} to {d.after:.3f}){more}")
    text = "; ".join(parts) or "no measurement on any slice changed by more than chance explains"
    return f"Against the one in use, {text}."


def _changed(comparison: Comparison, dataset: Dataset) -> dict[str, str]:
    """Return pictures or texts of items that were right before and are wrong now, and the other way round."""
    binary = (
        n
        for n in ("linear.accuracy", "knn.accuracy", "answers.accuracy", "zero_shot.accuracy")
        if n in comparison.outcomes
    )
    name = next(binary, None)
    if name is None:
        return {}
    change = comparison.outcomes[name] @ [-1.0, 1.0]
    place = {row.tobytes(): i for i, row in enumerate(dataset.manifest.hashes)}
    found = {}
    for title, wanted in (("lost", -1), ("won", 1)):
        rows = [place.get(comparison.keys[i][0]) for i in np.flatnonzero(change == wanted)]
        there = [row for row in rows if row is not None]
        if there:
            found[f"{title} by {name}: {len(rows)} items"] = sheets.sheet(dataset, there[:_SHOWN])
    return found
