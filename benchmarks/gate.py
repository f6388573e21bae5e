"""Does the gate see a slice that fell, and does it let through what only chance made different?

Twenty short trainings of one recipe (CIFAR-10 (JPEG-75) at 16 pixels, supervised, then a linear probe) answer the
10,000 test images, which belong to 20 sources of 500, by chance. The policy: no more than 2 points lost on all, no more
than 5 on any source. Caught: the answers of a training, with right ones made wrong in one source so that it loses 8
points, and a few wrong ones made right elsewhere; the same with the answers of another training. Let through: pairs of
the trainings as they are.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np

import common
import fastness as fs
from fastness.core.seeds import numpy_generator
from fastness.data.dataset import Dataset
from fastness.data.sources.arrays import from_pixels
from fastness.evaluation.compare import compare
from fastness.evaluation.evaluate import measure
from fastness.evaluation.evidence import Evidence, read
from fastness.evaluation.gate import Policy, judge
from fastness.evaluation.subject import Subject
from fastness.metrics.intervals import wilson
from fastness.metrics.probe import fit_linear

FOLDER = common.WORK / "gate"
TRAININGS, STEPS, TRIALS, SOURCES, FITTED = 20, 600, 100, 20, 10_000
LOSS, GAIN = 0.08, 0.005
POLICY = Policy.model_validate(
    {
        "rules": [
            {"measure": "answers.accuracy", "drop": 0.02},
            {"measure": "answers.accuracy", "by": "source", "drop": 0.05},
        ]
    }
)


def test_set() -> Dataset:
    """Return the test images, each of a source."""
    data = np.load(common.cifar10_npz())
    source = numpy_generator(0, "sources").permutation(len(data["test_labels"])) % SOURCES
    return from_pixels(data["test_images"], data["test_labels"]).described(source=[f"s{i:02}" for i in source])


def answers(seed: int) -> np.ndarray:
    """Return what a training's probe says of the test images, int64 ``[10000]``."""
    path = FOLDER / f"answers-{seed}.npy"
    if not path.exists():
        data = np.load(common.cifar10_npz())
        recipe = {"steps": STEPS, "batch_size": 128, "width": 8, "size": 16, "seed": seed}
        source = from_pixels(data["images"], data["labels"])
        bundle = fs.load(fs.train(source, method="supervised", out=FOLDER / "run", quiet=True, **recipe).bundle)
        rows = np.sort(numpy_generator(seed, "fitted").permutation(len(data["labels"]))[:FITTED])
        probe = fit_linear(bundle.embed(data["images"][rows], normalize=False), data["labels"][rows])
        np.save(path, probe.predict(bundle.embed(data["test_images"], normalize=False)))
        subprocess.run(["rm", "-rf", str(FOLDER / "run")], check=True)
    return np.asarray(np.load(path))


def evidence(name: str, said: np.ndarray, items: Dataset) -> Evidence:
    """Return the evidence of answers, measured unless it is there."""
    folder = FOLDER / "evidence" / name
    if not (folder / "evidence.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(FOLDER / f"{name}.npz", predicted=said.astype(str))
        measure(Subject.elsewhere(FOLDER / f"{name}.npz", items, seed=0), ["answers"], folder)
        (FOLDER / f"{name}.npz").unlink()
    return read(folder)


def spoilt(said: np.ndarray, items: Dataset, trial: int) -> tuple[np.ndarray, str]:
    """Return answers of which one source lost 8 points and the others gained a little, and which source."""
    generator = numpy_generator(trial, "spoilt")
    sources = np.array(items.manifest.facts["source"].to_pylist())
    labels = items.labels
    assert labels is not None
    name = str(generator.choice(np.unique(sources)))
    mine, right = sources == name, said == labels
    lost = mine & right & (generator.random(len(said)) < LOSS / right[mine].mean())
    won = ~mine & ~right & (generator.random(len(said)) < GAIN / (~right[~mine]).mean())
    out = said.copy()
    out[lost] = (labels[lost] + generator.integers(1, 10, lost.sum())) % 10
    out[won] = labels[won]
    return out, name


def refused(before: Evidence, after: Evidence, source: str | None = None) -> bool:
    """Return whether the gate refuses, and, if one is named, because of that source."""
    refusals = judge(POLICY, compare(before, after, [])).refusals
    return bool(refusals) if source is None else any(source in r.slice for r in refusals)


def main() -> None:
    """Run all trials and write the result file."""
    quick = common.arguments(__doc__ or "").quick
    Path(FOLDER / "evidence").mkdir(parents=True, exist_ok=True)
    trainings, trials = (3, 5) if quick else (TRAININGS, TRIALS)
    items = test_set()
    every = [answers(seed) for seed in range(trainings)]
    plain = [evidence(f"training-{seed}", said, items) for seed, said in enumerate(every)]
    caught: dict[str, list[bool]] = {"the same training": [], "another training": []}
    for trial in range(trials):
        first = trial % trainings
        for way, of in (("the same training", first), ("another training", (first + 1) % trainings)):
            said, source = spoilt(every[of], items, trial)
            name = f"{way.replace(' ', '-')}-{trial}"
            caught[way].append(refused(plain[first], evidence(name, said, items), source))
    pairs = [(i, j) for i in range(trainings) for j in range(trainings) if i != j]
    chosen = numpy_generator(0, "pairs").permutation(len(pairs))[:trials]
    wrongly = [refused(plain[i], plain[j]) for i, j in (pairs[k] for k in chosen)]
    labels = items.labels
    accuracy = [float((said == labels).mean()) for said in every]
    rows: list[dict[str, Any]] = [
        {"what": f"caught: {way}, one source spoilt", **_share(found)} for way, found in caught.items()
    ]
    rows.append({"what": "refused: two trainings of one recipe", **_share(wrongly)})
    rows.append({"what": "accuracy of the trainings", "mean": np.mean(accuracy), "deviation": np.std(accuracy, ddof=1)})
    asks = [
        _ask("a source of 500 that lost 8 points is caught", ">= 95 of 100", caught["the same training"], least=0.95),
        _ask("the same, in another training's answers", "to be stated", caught["another training"]),
        _ask("two trainings of one recipe are refused", "<= 5 of 100", wrongly, most=0.05),
    ]
    common.save("gate" + ("_quick" if quick else ""), rows, asks, protocol=POLICY.model_dump())


def _share(found: list[bool]) -> dict[str, Any]:
    low, high = wilson(sum(found), len(found))
    return {"share": float(np.mean(found)), "low": low, "high": high, "n": len(found)}


def _ask(name: str, asked: str, found: list[bool], least: float = -1.0, most: float = 2.0) -> dict[str, Any]:
    stated = least < 0 and most > 1
    holds = None if stated else bool(least <= np.mean(found) <= most)
    return common.ask(name, asked, f"{sum(found)} of {len(found)}", holds)


if __name__ == "__main__":
    main()
