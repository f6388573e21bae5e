"""Eight labels a class: MiniLM tuned by contrast on them, beside SetFit on the same draws, and MiniLM as it is.

A second part asks whether tuning without labels on a domain's texts helps: Banking77 and CLINC150, 8 and 16 labels a
class, logistic regression on MiniLM's vectors before and after. How to tune was chosen within Banking77's training set.

Finished jobs are kept in ``.bench/few_label_text``.
"""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

import common
import fastness as fs
from fastness.core.files import write_json
from fastness.core.seeds import numpy_generator
from fastness.metrics.intervals import student

FOLDER = common.WORK / "few_label_text"
TEXT = common.DATA / "text"
SHOTS, DRAWS, TESTED = 8, 10, 1000
SETFIT_DRAWS = {"banking77": 5}  # eight minutes each; ours are paired with those there are
# Both tunings see as many texts, by the number of classes: a step of SetFit takes 16 pairs, one of ours two views of up
# to 64 texts. Of SetFit's pairs a text makes twice as many as this; its 20 would be half an hour a draw for 77 classes.
ITERATIONS = {2: 20, 4: 20, 77: 3}
STEPS = {2: 40, 4: 40, 77: 58}
# Chosen on three draws within the training pools of AG News, SST-2 and Banking77, never by a test item: where there are
# few classes, all pairs of a batch with a margin; where there are many, a batch has few alike pairs.
METHODS = {2: "siamese", 4: "siamese", 77: "supcon"}
DOMAIN_STEPS = 120
DOMAIN: dict[str, dict[str, Any]] = {  # ways to tune without labels
    "with a head": {"options": {"projection": 128}},
    "a bare train": {},
    "more words deleted": {"views": {"delete": 0.3}},
    "more words deleted, alike ones masked": {
        "options": {"mask": "similar"},
        "views": {"delete": 0.3},
    },
}
WAYS = list(DOMAIN)
Data = tuple[list[str], list[str], list[str], list[str]]  # texts and labels to draw from, texts and labels to test on


def sst2() -> Data:
    """Return SST-2: train, and dev as test (its test has no labels that all agree on)."""
    parts = [
        [line.split("\t") for line in (TEXT / "sst2" / f"{p}.tsv").read_text("utf-8").splitlines()]
        for p in ("train", "test")
    ]
    return *_columns(parts[0]), *_columns(parts[1])


def ag_news() -> Data:
    """Return AG News: the first 3,600 of its test file to draw from, the rest to test on."""
    with (TEXT / "agnews" / "test.csv").open(encoding="utf-8", newline="") as handle:
        rows = [[f"{row[1]}. {row[2]}", row[0]] for row in csv.reader(handle)]
    order = numpy_generator(0, "ag news").permutation(len(rows))
    rows = [rows[i] for i in order]
    return *_columns(rows[:3600]), *_columns(rows[3600:])


def banking77() -> Data:
    """Return Banking77."""
    parts = []
    for part in ("train", "test"):
        with (TEXT / "banking77" / f"{part}.csv").open(encoding="utf-8", newline="") as handle:
            parts.append([row[:2] for row in csv.reader(handle)][1:])
    return *_columns(parts[0]), *_columns(parts[1])


def clinc150() -> Data:
    """Return CLINC150 without its out-of-scope queries."""
    found = json.loads((TEXT / "clinc150" / "data_full.json").read_text("utf-8"))
    return *_columns(found["train"]), *_columns(found["test"])


def _columns(rows: list[Any]) -> tuple[list[str], list[str]]:
    return [row[0] for row in rows], [row[1] for row in rows]


SETS = {"sst2": sst2, "ag_news": ag_news, "banking77": banking77}


def draw(labels: list[str], shots: int, number: int) -> np.ndarray:
    """Return the places of ``shots`` items of each class."""
    y, generator = np.array(labels), numpy_generator(number, "shots")
    return np.concatenate([generator.permutation(np.flatnonzero(y == c))[:shots] for c in np.unique(y)])


def tested(data: Data) -> tuple[list[str], np.ndarray]:
    """Return up to a thousand test items, always the same."""
    rows = numpy_generator(0, "tested").permutation(len(data[2]))[:TESTED]
    return [data[2][i] for i in rows], np.array(data[3])[rows]


def accuracy(bundle: Any, texts: list[str], labels: np.ndarray, test: list[str], wanted: np.ndarray) -> float:
    """Return the accuracy of logistic regression on a bundle's vectors."""
    model = LogisticRegression(max_iter=2000, C=10.0).fit(bundle.embed(texts), labels)
    return float((model.predict(bundle.embed(test, precision="auto")) == wanted).mean())


def tuned(name: str, texts: list[str], labels: list[str], number: int) -> Path:
    """Tune MiniLM by contrast on a draw."""
    folder = FOLDER / f"tuned-{name}-{number}"
    data = {"text": texts, "label": labels}
    recipe = {"steps": STEPS[len(set(labels))], "batch_size": min(64, len(texts)), "lr": 3e-5, "seed": number}
    columns = {"text": "text", "label": "label"}
    fs.train(
        data,
        method=METHODS[len(set(labels))],
        init=str(common.minilm_bundle()),
        out=folder,
        columns=columns,
        options={"projection": 0},
        quiet=True,
        **recipe,
    )
    return folder


def one(name: str, way: str, number: int) -> float:
    """Run one job unless its result is there; return the accuracy."""
    path = FOLDER / f"{name}-{way}-{number}.json"
    if path.exists():
        return float(json.loads(path.read_text())["accuracy"])
    data = SETS[name]()
    rows = draw(data[1], SHOTS, number)
    texts, labels = [data[0][i] for i in rows], [data[1][i] for i in rows]
    test, wanted = tested(data)
    if way == "setfit":
        job, out = FOLDER / f"job-{name}-{number}.json", FOLDER / f"predicted-{name}-{number}.npy"
        write_json(
            job,
            {
                "texts": texts,
                "labels": labels,
                "test": test,
                "seed": number,
                "iterations": ITERATIONS[len(set(labels))],
            },
        )
        python = common.peer_python("setfit")
        command = [python, common.PEERS / "setfit_run.py", common.minilm(), job, out]
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
        value = float((np.load(out).astype(str) == wanted).mean())
    else:
        bundle = fs.load(common.minilm_bundle() if way == "as it is" else tuned(name, texts, labels, number))
        value = accuracy(bundle, texts, np.array(labels), test, wanted)
    write_json(path, {"accuracy": value})
    print(name, way, number, f"{value:.4f}", flush=True)
    return value


def tuned_on(name: str, texts: list[str], way: str, steps: int) -> Path:
    """Tune MiniLM on a domain's texts without labels, unless it is there."""
    folder = FOLDER / f"domain-{name}-{WAYS.index(way)}-{steps}"
    if not (folder / "bundle" / "bundle.json").exists():
        start = str(common.minilm_bundle())
        fs.train(
            {"text": texts}, init=start, columns={"text": "text"}, out=folder, quiet=True, steps=steps, **DOMAIN[way]
        )
    return folder


def few_labels(folder: Path, data: Data, shots: int, draws: range) -> list[float]:
    """Return the accuracy with so many labels a class, for each draw; every text is embedded once."""
    bundle = fs.load(folder)
    test, wanted = tested(data)
    chosen = [draw(data[1], shots, number) for number in draws]
    used = np.unique(np.concatenate(chosen))
    known = bundle.embed([data[0][i] for i in used], precision="auto")
    unknown = bundle.embed(test, precision="auto")
    found = []
    for rows in chosen:
        model = LogisticRegression(max_iter=2000, C=10.0)
        model.fit(known[np.searchsorted(used, rows)], np.array(data[1])[rows])
        found.append(float((model.predict(unknown) == wanted).mean()))
    return found


def chosen_way(steps: int) -> tuple[str, dict[str, float]]:
    """Return how to tune without labels, chosen within Banking77's training set, and what each way gave there."""
    texts, labels = banking77()[:2]
    order = numpy_generator(0, "chosen way").permutation(len(texts))
    held, rest = order[:TESTED], order[TESTED:]
    inner = ([texts[i] for i in rest], [labels[i] for i in rest], [texts[i] for i in held], [labels[i] for i in held])
    found = {}
    for way in WAYS:
        found[way] = float(np.mean(few_labels(tuned_on("banking77", texts, way, steps), inner, SHOTS, range(100, 103))))
        print("chosen within Banking77's training set:", way, f"{found[way]:.4f}", flush=True)
    return max(found, key=lambda way: found[way]), found


def domain(name: str, data: Data, way: str, quick: bool) -> list[dict[str, Any]]:
    """Compare few-label accuracy before and after tuning MiniLM on a domain's texts without labels."""
    folder = tuned_on(name, data[0], way, 20 if quick else DOMAIN_STEPS)
    rows = []
    for shots in (8, 16):
        draws = range(2 if quick else 5)
        before, after = (few_labels(path, data, shots, draws) for path in (common.minilm_bundle(), folder))
        gain = (np.array(after) - np.array(before)).tolist()
        for what, values in (("untuned", before), ("tuned without labels", after), ("gain", gain)):
            rows.append(_row(f"{name}, {shots} a class", what, values))
    return rows


def _row(name: str, way: str, values: list[float]) -> dict[str, Any]:
    mean, low, high = student(np.array(values))
    return {
        "set": name,
        "way": way,
        "mean": round(mean, 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "draws": len(values),
    }


def main() -> None:
    """Run what is missing and write the result file."""
    quick = common.arguments(__doc__ or "").quick
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows, asks = [], []
    way, ways = chosen_way(20 if quick else DOMAIN_STEPS)
    for name, data in (("banking77", banking77()), ("clinc150", clinc150())):
        found_rows = domain(name, data, way, quick)
        rows += found_rows
        asks += [
            common.ask(
                f"{row['set']}: tuning without labels helps",
                "> 0",
                f"{row['mean']:+.3f} [{row['low']:.3f}, {row['high']:.3f}]",
                row["low"] > 0,
            )
            for row in found_rows
            if row["way"] == "gain"
        ]
    names = ["sst2"] if quick else list(SETS)
    for name in names:
        draws = dict.fromkeys(("as it is", "tuned"), 2 if quick else DRAWS)
        draws["setfit"] = min(draws["tuned"], SETFIT_DRAWS.get(name, DRAWS))
        found = {way: [one(name, way, d) for d in range(number)] for way, number in draws.items()}
        rows += [_row(f"{name}, {SHOTS} a class", way, values) for way, values in found.items()]
        gain = _row("", "", (np.array(found["tuned"][: draws["setfit"]]) - np.array(found["setfit"])).tolist())
        asks.append(
            common.ask(
                f"{name}: tuned by contrast against SetFit",
                "to be stated",
                f"{gain['mean']:+.3f} [{gain['low']:.3f}, {gain['high']:.3f}] over {gain['draws']} draws",
                None,
            )
        )
    common.save(
        "few_label_text" + ("_quick" if quick else ""),
        rows,
        asks,
        protocol=f"MiniLM; up to {TESTED} test items; tuned without labels: {way}",
        chosen_within_banking77_train=ways,
    )


if __name__ == "__main__":
    main()
