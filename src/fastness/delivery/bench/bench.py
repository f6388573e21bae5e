"""Bench: what every form of an encoder costs on this machine, how good it is, and which keeps a target."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fastness import bundle as bundles
from fastness.core.errors import BadInput, GateRefused
from fastness.core.files import replace_folder, write_json
from fastness.core.hardware import cores, describe, versions
from fastness.data import Dataset
from fastness.delivery.bench import handed, page
from fastness.delivery.bench.candidates import Candidate, candidates, make_missing
from fastness.delivery.bench.measure import measured
from fastness.delivery.bench.money import WATTS, Prices, Wire, at_the_edge, in_the_cloud
from fastness.delivery.bench.plan import Plan, plan
from fastness.delivery.bench.quality import Quality, qualities
from fastness.delivery.bench.row import Row
from fastness.delivery.bench.targets import Choice, choose, parse
from fastness_runtime import signature

FORMAT = 1
_FIGURES = "bench.json"
_BUSY = 0.3  # of the cores, wanted by others before the bench began: its figures are doubtful then
Say = Callable[[str], None]


@dataclass(frozen=True)
class Bench:
    """What a bench gave.

    Attributes:
        folder: with ``bench.json``, ``bench.html``, ``pareto-PROFILE.png`` and the evidence.
        rows: a form with so many threads and items at once in each.
        about: the machine, the bundle, the items, how it was measured, bytes over the wire, costs.
        qualities: of each form; empty where it was not measured.
        choice: what the target picks, if there is one.
    """

    folder: Path
    rows: list[Row]
    about: dict[str, Any]
    qualities: Mapping[str, Quality]
    choice: Choice | None

    def enforce(self) -> None:
        """Raise `GateRefused` with what each form misses if none keeps the target."""
        if self.choice is not None and self.choice.row is None:
            missed = "; ".join(f"{form}: {why}" for form, why in self.choice.others.items())
            raise GateRefused(f"{self.choice.why}; {missed}")

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return {
            **self.about,
            "rows": [row.to_dict() for row in self.rows],
            "quality": {name: _measurements(found) for name, found in self.qualities.items()},
            "choice": None if self.choice is None else asdict(self.choice),
        }


def bench(
    bundle: bundles.Bundle | str | Path,
    data: Any,
    *,
    edge: str | None = None,
    cloud: bool = False,
    forms: Sequence[str] = (),
    side: str | None = None,
    batches: Sequence[int] = (1, 8, 64),
    threads: Sequence[int] | None = None,
    calls: int = 120,
    seconds: float = 5.0,
    repeats: int = 3,
    items: int = 128,
    quality: bool = True,
    corrupted: int = 100,
    watts: float = WATTS,
    prices: Prices | None = None,
    target: str | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    say: Say | None = None,
    **columns: str | None,
) -> Bench:
    """Measure the encoder itself and each of its exports, every one in processes of its own, and write a page.

    Args:
        bundle: a bundle or its path.
        data: real items; see `open_data`.
        edge: a profile such as ``1core,512MB``, whose limits are enforced.
        cloud: measure with all of this machine too; without ``edge`` that is what is done.
        forms: that are exported first where they are not there yet; see `forms.FORMS`.
        side: which side of things with several.
        batches: items at once.
        threads: of the runtime, on as many cores; default: one, and as many as the profile's cores.
        calls: timed of each form, threads and batch; a 99th percentile wants 100.
        seconds: after which, in each repeat, no further call begins.
        repeats: processes of each form, in turns with the others.
        items: that are handed over, again and again if need be.
        quality: measure accuracy and robustness too.
        corrupted: held-out items that are corrupted in every way.
        watts: of a busy core, where the processor does not say itself what it uses.
        prices: for what a million items cost.
        target: such as ``p99<20ms,size<10MB``; asked of the edge if there is one. See `Bench.enforce`.
        out: folder, which is replaced; default: ``bench/PROFILE`` in the bundle's.
        seed: by which items are taken.
        say: called with a line of progress.
        **columns: see `open_data`.

    Raises:
        BadInput: the bundle, the data, an export or an option is unusable.
    """
    limits = None if target is None else parse(target)
    how = plan(edge, cloud, batches, threads, calls, seconds, repeats, watts)
    if items < 1 or corrupted < 1:
        raise BadInput(f"--items {items}, --corrupted {corrupted}: give 1 or more of each")
    if not quality and any(limit.name in ("accuracy", "robustness") for limit in limits or ()):
        raise BadInput(f"--target {target}: asks how good a form is, which --no-quality leaves out; drop one of them")
    prices, load, say = prices or Prices(), _load(), say or (lambda line: None)
    whole = _whole(bundle, side)
    place = _place(whole, how, side, out)
    encoder = whole if side is None else whole.of_side(side)
    dataset = encoder.open(data, **columns)
    given = handed.draw(encoder, dataset, items, seed)
    refused = make_missing(whole, data, forms, side, seed, say, columns)
    found = candidates(whole, side)
    with tempfile.TemporaryDirectory(prefix="fastness-bench-") as folder:
        handed.write(given, Path(folder))
        rows = measured(found, how, Path(folder), len(given), side, say)
    rows += [
        Row(p.name, name, 1, how.batches[0], 0, trouble=why) for p in how.profiles for name, why in refused.items()
    ]
    good = qualities(encoder, dataset, found, corrupted, seed, say) if quality else {}
    rows = [_graded(row, good.get(row.form)) for row in rows]
    wire = Wire.of(handed.wire_bytes(given), encoder.dim)
    about = _about(whole, dataset, how, found, load, wire, prices, rows)
    about |= {"side": side, "items": len(given), "target": target, "seed": seed}
    asked = [row for row in rows if row.profile == how.profiles[0].name]
    result = Bench(place, rows, about, good, None if limits is None else choose(asked, limits, _alike(good)))
    replace_folder(place, lambda temporary: _write(result, temporary))
    if (whole.path / signature.FILE).exists() and place.resolve().is_relative_to(whole.path.resolve()):
        say(f"{whole.path}: is signed, and has more files now; sign it again (fastness sign)")
    return result


def _whole(bundle: bundles.Bundle | str | Path, side: str | None) -> bundles.Bundle:
    """Return the bundle, which must be one with exports in its folder."""
    loaded = bundle if isinstance(bundle, bundles.Bundle) else bundles.load(bundle)
    if not (loaded.path / "bundle.json").exists():
        raise BadInput(f"{loaded.path}: is no bundle's folder; name the bundle, and all its exports are measured")
    if loaded.modality == "sides" and side is None:
        raise BadInput(f"{loaded.path}: has several sides, and a form takes one; name it (--side NAME)")
    return loaded


def _place(bundle: bundles.Bundle, how: Plan, side: str | None, out: str | Path | None) -> Path:
    """Return the folder for what is found, in which nothing lies but an earlier bench."""
    usual = "-and-".join(profile.called for profile in how.profiles) + ("" if side is None else f"-{side}")
    place = Path(out) if out is not None else bundle.path / "bench" / usual
    if place.is_dir() and any(place.iterdir()) and not (place / _FIGURES).exists():
        raise BadInput(f"{place}: holds other things, which would be replaced; name another folder")
    return place


def _write(result: Bench, folder: Path) -> None:
    for name, found in result.qualities.items():
        found.write(folder / "evidence" / name)
    page.write(result, folder)
    write_json(folder / _FIGURES, result.to_dict())


def _alike(found: Mapping[str, Quality]) -> Callable[[str, str], bool]:
    """Return what says whether one form is as accurate as another; where nobody measured, all are."""
    return lambda one, other: not found or found[one].like(found[other])


def _graded(row: Row, found: Quality | None) -> Row:
    if found is None:
        return row
    robust = None if found.robustness is None else found.robustness.value
    return replace(row, accuracy=found.accuracy.value, robustness=robust)


def _measurements(found: Quality) -> dict[str, Any]:
    kept = {"accuracy": found.accuracy, "robustness": found.robustness}
    return {name: None if m is None else m.to_dict() for name, m in kept.items()}


def _load() -> float | None:
    """Return how many processes wanted a core in the last minute, on average."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _about(
    bundle: bundles.Bundle,
    dataset: Dataset,
    how: Plan,
    found: Sequence[Candidate],
    load: float | None,
    wire: Wire,
    prices: Prices,
    rows: Sequence[Row],
) -> dict[str, Any]:
    busy = load is not None and load > _BUSY * cores()
    return {
        "format": FORMAT,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "bundle": bundle.id,
        "from": str(bundle.path),
        "data": dataset.whole.source,
        "fingerprint": dataset.fingerprint,
        "hardware": describe(),
        "versions": versions("fastness", "fastness-runtime", "onnxruntime", "openvino", "tokenizers", "torch", "numpy"),
        "load_average": load,
        "doubt": f"others were at work: {load:.1f} processes wanted the {cores()} cores before it began"
        if busy
        else None,
        "profiles": [{**asdict(profile), "enforced": profile.enforced} for profile in how.profiles],
        "plan": {key: value for key, value in asdict(how).items() if key != "profiles"},
        "measured": {c.name: {"kind": c.kind, "size": c.size, "digest": c.digest} for c in found},
        "wire": asdict(wire),
        "prices": asdict(prices),
        "costs": _costs(rows, wire, prices),
    }


def _costs(rows: Sequence[Row], wire: Wire, prices: Prices) -> dict[str, dict[str, float | None]]:
    """Return what a million items cost by form: at its most items a second, and at the edge at its least joules.

    What was tried in a profile and does not run there has no cost there.
    """
    costs: dict[str, dict[str, float | None]] = {}
    for form in dict.fromkeys(row.form for row in rows):
        mine = [row for row in rows if row.form == form]
        speeds = [row.throughput for row in mine if row.profile == "cloud" and row.throughput is not None]
        joules = [row.energy for row in mine if row.profile == "edge" and row.energy is not None]
        runs = {p: not all(row.trouble for row in mine if row.profile == p) for p in {row.profile for row in mine}}
        costs[form] = {
            "cloud": in_the_cloud(prices, wire, max(speeds, default=None)) if runs.get("cloud", True) else None,
            "edge": at_the_edge(prices, wire, min(joules, default=None)) if runs.get("edge", True) else None,
        }
    return costs
