"""Which figure that needs no label says which of many encoders is the best?

Two dozen encoders of each of three data sets (scanned digits, photographs of clothes, Telco's customers), with method,
length, learning rate, temperature and width drawn at random. Each figure that needs no label is held against what the
labels say, the accuracy of a linear probe: by Spearman's correlation over the encoders, and by what choosing with it
costs, the accuracy of the best less that of the encoder it ranks first, next to choosing blindly (the mean).
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

import common
import fastness as fs
from fastness.core.files import write_json
from fastness.core.seeds import numpy_generator
from fastness.data.dataset import Dataset
from fastness.evaluation.evaluate import measure
from fastness.evaluation.subject import Subject
from fastness.metrics.intervals import bootstrap, quantiles

FOLDER = common.WORK / "label_free"
ENCODERS = 24
LABELS = "linear.accuracy"
SIGNS = {  # whether more of it is said to be better
    "stability.neighbours": 1,
    "stability.partner": 1,
    "geometry.alignment": -1,
    "geometry.uniformity": -1,
    "geometry.effective_rank": 1,
}


def data(name: str) -> Dataset:
    """Return a labelled data set with splits."""
    if name == "digits":
        return fs.open_data("digits")
    if name == "clothes":
        return fs.open_data(common.DATA / "clothing" / "clothing.zip")
    return fs.open_data(common.DATA / "table" / "telco_churn.csv", label="Churn")


def drawn(name: str, number: int) -> dict[str, Any]:
    """Return the recipe of an encoder."""
    generator = numpy_generator(number, "label-free")
    pick = {
        "steps": int(generator.choice([10, 40, 160])),
        "batch_size": int(generator.choice([32, 128])),
        "seed": number,
    }
    temperature = float(generator.choice([0.05, 0.2, 1.0]))
    width, method = int(generator.choice([4, 8, 16])), str(generator.choice(["simclr", "moco", "byol"]))
    if name == "telco":
        return {**pick, "method": "simclr", "temperature": temperature}
    if method != "byol":
        pick["temperature"] = temperature
    return {**pick, "method": method, "width": width, "size": 16}


def encoder(name: str, number: int) -> dict[str, float]:
    """Return what is measured of an encoder, trained unless it was."""
    path = FOLDER / f"{name}-{number}.json"
    if not path.exists():
        run, evidence = FOLDER / "run", FOLDER / "evidence"
        subprocess.run(["rm", "-rf", str(run), str(evidence)], check=True)
        columns = {"label": "Churn"} if name == "telco" else {}
        source = common.DATA / "table" / "telco_churn.csv" if name == "telco" else data(name)
        bundle = fs.train(source, out=run, quiet=True, columns=columns, **drawn(name, number)).bundle
        loaded = fs.load(bundle)
        subject = Subject.of(loaded, loaded.open(data(name)), seed=0)
        found = measure(subject, ["linear", "stability", "geometry"], evidence)
        write_json(path, {m.name: m.value for m in found.measurements})
    return dict(json.loads(path.read_text()))


def agreement(rows: list[dict[str, float]], figure: str) -> dict[str, Any]:
    """Return the rank correlation with the labels, its bootstrap interval, and what choosing by the figure costs."""
    said = SIGNS[figure] * np.array([row[figure] for row in rows])
    true = np.array([row[LABELS] for row in rows])
    draws = bootstrap(lambda i: float(spearmanr(said[i], true[i]).statistic), len(rows), 0)
    low, high = quantiles(draws[~np.isnan(draws)])
    return {
        "figure": figure,
        "spearman": float(spearmanr(said, true).statistic),
        "low": low,
        "high": high,
        "points lost by choosing with it": float(100 * (true.max() - true[said.argmax()])),
        "points lost by choosing blindly": float(100 * (true.max() - true.mean())),
    }


def main() -> None:
    """Train what is missing and write the result file."""
    quick = common.arguments(__doc__ or "").quick
    Path(FOLDER).mkdir(parents=True, exist_ok=True)
    rows, asks = [], []
    for name in ("digits",) if quick else ("digits", "clothes", "telco"):
        measured = []
        for number in range(6 if quick else ENCODERS):
            measured.append(encoder(name, number))
            print(name, drawn(name, number), {k: round(v, 3) for k, v in measured[-1].items()}, flush=True)
        found = [{"data": name, **agreement(measured, figure)} for figure in SIGNS]
        rows += found
        for row in found:
            lost, blindly = (row[f"points lost by choosing {way}"] for way in ("with it", "blindly"))
            agrees = f"{row['spearman']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"
            text = f"{agrees}; choosing by it costs {lost:.1f} points, blindly {blindly:.1f}"
            asks.append(common.ask(f"{name}: {row['figure']} agrees with labels", "to be stated", text, None))
    common.save("label_free" + ("_quick" if quick else ""), rows, asks)


if __name__ == "__main__":
    main()
