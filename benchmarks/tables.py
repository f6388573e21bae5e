"""What is contrastive pretraining on unlabelled rows worth when labels are few?

Two sets, Adult and Telco. The encoder sees all training rows without labels (SCARF); then 10, 50 or 200 labels a class
are drawn, and every model learns from the same ones. Settings of every model are chosen by cross-validation among the
drawn labels; nothing is chosen by test rows. AUROC on the test rows: Adult's own, and a random quarter of Telco.

The models: logistic regression on the features of the trained encoder, on those of one with random weights, and on the
plain columns (standardised numbers, one-hot categories); the network fine-tuned, from trained weights and from random
ones; and two kinds of boosted trees of scikit-learn, which get the columns as they like them.

Finished parts are kept in ``.bench/tables`` and not run again; two run at a time, one a core.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

import common
from fastness.core.files import atomic_path, write_json
from fastness.core.recipe import Recipe
from fastness.core.seeds import derive, numpy_generator
from fastness.data import open_data
from fastness.data.schema import Category
from fastness.data.table import TableItems
from fastness.encoders import Encoder
from fastness.metrics.intervals import student
from fastness.training import plan
from fastness.training.assembly import fitted
from fastness.training.fit import fit

FOLDER = common.WORK / "tables"
SETS = {"adult": ("adult_train.csv", "adult_test.csv", "c14"), "telco": ("telco_churn.csv", None, "Churn")}
LABELS = (10, 50, 200)  # of each class
PRETRAININGS = 3  # draws take turns with them
EPOCHS = {"adult": 20, "telco": 60}
CPU = torch.device("cpu")

Scores = np.ndarray
Model = Callable[["Task", np.ndarray], Scores]


@dataclass(frozen=True)
class Task:
    """One set with one pretraining: training rows, test rows, and the encoder before and after."""

    train: TableItems
    test: TableItems
    untrained: Encoder
    trained: Encoder
    seed: int

    @property
    def labels(self) -> np.ndarray:
        """Class of each training row."""
        return self.train.dataset.labels

    def features(self, encoder: Encoder) -> tuple[np.ndarray, np.ndarray]:
        """Return what an encoder gives for training and test rows."""
        with torch.no_grad():
            return tuple(
                torch.cat([encoder.eval()(batch) for _, batch in items.batches(4096)]).numpy()
                for items in (self.train, self.test)
            )


def rows_of(name: str) -> tuple[Any, Any]:
    """Return the training and the test rows of a set, with labels of one meaning."""
    train, test, label = SETS[name]
    whole = open_data(common.DATA / "table" / train, label=label)
    if test is None:
        return whole.divide(0.25, 0)
    held = open_data(common.DATA / "table" / test, label=label)
    assert tuple(c.rstrip(".") for c in held.class_names) == whole.class_names  # Adult's test labels end in a dot
    return whole, held


def recipe_of(name: str, seed: int, quick: bool) -> Recipe:
    """Return what a bare ``fastness train`` would take, with a length of its own."""
    length = {"steps": 100} if quick else {"epochs": EPOCHS[name]}
    return Recipe(seed=seed, precision="float32", **length)


def task(name: str, seed: int, quick: bool) -> Task:
    """Return a set with its pretraining, which is made if it is not there."""
    train, test = rows_of(name)
    recipe = plan.complete(recipe_of(name, seed, quick), train, CPU)
    items, untrained = fitted(recipe, train)
    trained = fitted(recipe, train)[1]
    code = common.source_hash("data", "encoders", "views", "losses", "methods", "training")
    path = FOLDER / f"{name}-{seed}-{'quick' if quick else 'full'}-{code}.safetensors"
    if not path.exists():
        trained = fit(items, recipe, trained).encoder
        with atomic_path(path) as temporary:
            save_file(trained.weights(), temporary)
    trained.load_weights(load_file(path))
    return Task(items, untrained.prepare(test), calibrated(untrained, items), trained.eval(), seed)


def calibrated(encoder: Encoder, items: TableItems) -> Encoder:
    """Return an encoder with random weights whose batch statistics are those of the rows, without any label."""
    norms = [part for part in encoder.modules() if isinstance(part, nn.BatchNorm1d)]
    for norm in norms:
        norm.momentum = None  # a plain mean over the batches
        norm.reset_running_stats()
    encoder.train()
    with torch.no_grad():
        for start in range(0, len(items) - 255, max(256, len(items) // 20)):
            encoder(items.batch(np.arange(start, start + 256)))
    return encoder.eval()


def folds(labels: np.ndarray) -> StratifiedKFold:
    """Return five folds of drawn labels, always the same."""
    return StratifiedKFold(5, shuffle=True, random_state=0)


def searched(model: Any, grid: dict[str, list[Any]], x: np.ndarray, y: np.ndarray, test: np.ndarray) -> Scores:
    """Return test scores of a model whose settings are chosen among the drawn labels."""
    found = GridSearchCV(model, grid, scoring="roc_auc", cv=folds(y), n_jobs=1).fit(x, y)
    return np.asarray(found.predict_proba(test)[:, 1])


def logistic(x: np.ndarray, y: np.ndarray, test: np.ndarray) -> Scores:
    """Logistic regression on standardised features."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return searched(model, {"logisticregression__C": [1e-4, 1e-3, 1e-2, 1e-1, 1.0]}, x, y, test)


def on_encoder(which: str, job: Task, rows: np.ndarray) -> Scores:
    """Logistic regression on frozen features."""
    train, test = job.features(getattr(job, which))
    return logistic(train[rows], job.labels[rows], test)


def on_plain(job: Task, rows: np.ndarray) -> Scores:
    """Logistic regression on the columns; they are scaled by all training rows, as the encoder's are."""
    return logistic(job.train.plain(job.train)[rows], job.labels[rows], job.test.plain(job.train))


def boosted(job: Task, rows: np.ndarray) -> Scores:
    """Boosted trees, the kind for few rows, on numbers and one-hot categories."""
    grid = {"learning_rate": [0.03, 0.1], "max_depth": [1, 2, 3], "n_estimators": [50, 200]}
    model = GradientBoostingClassifier(subsample=0.8, random_state=job.seed)
    return searched(model, grid, job.train.plain(job.train)[rows], job.labels[rows], job.test.plain(job.train))


def histogram_boosted(job: Task, rows: np.ndarray) -> Scores:
    """Boosted trees on the cells as they are: missing ones and categories are known to be such."""
    categories = [isinstance(column, Category) for column in job.train.schema.used.values()]
    grid = {"learning_rate": [0.03, 0.1], "max_leaf_nodes": [3, 8, 31], "min_samples_leaf": [3, 10, 20]}
    model = HistGradientBoostingClassifier(categorical_features=categories, max_iter=100, random_state=job.seed)
    return searched(model, grid, job.train.cells[rows], job.labels[rows], job.test.cells)


def fine_tuned(which: str, job: Task, rows: np.ndarray) -> Scores:
    """The whole network with a linear layer on it; its rate and length are chosen among the drawn labels."""
    start = getattr(job, which)
    x, y = torch.from_numpy(job.train.cells[rows]), torch.from_numpy(job.labels[rows])

    def chosen(rate: float, steps: int) -> float:
        inner = StratifiedKFold(3, shuffle=True, random_state=0).split(rows, y)
        return float(
            np.mean([roc_auc_score(y[b], learnt(start, x[a], y[a], rate, steps, job.seed)(x[b])) for a, b in inner])
        )

    settings = [(rate, steps) for rate in (1e-4, 1e-3) for steps in (50, 200)]
    best = max(settings, key=lambda setting: chosen(*setting))
    model = learnt(start, x, y, *best, job.seed)
    return np.concatenate([model(batch) for _, batch in job.test.batches(4096)])


def learnt(
    start: Encoder, x: torch.Tensor, y: torch.Tensor, rate: float, steps: int, seed: int
) -> Callable[[torch.Tensor], Scores]:
    """Return a fine-tuned network as a function from cells to scores; batch statistics stay those of the start."""
    torch.manual_seed(derive(seed, "fine-tune"))
    encoder = start.untrained()
    encoder.load_weights(start.weights())
    head = nn.Linear(encoder.dim, 2)
    nn.init.zeros_(head.weight)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], rate, weight_decay=1e-2)
    encoder.eval()
    generator = numpy_generator(seed, "fine-tune")
    for _ in range(steps):
        rows = torch.from_numpy(generator.permutation(len(x))[:64])
        loss = nn.functional.cross_entropy(head(encoder(x[rows])), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def score(cells: torch.Tensor) -> Scores:
        with torch.no_grad():
            return np.asarray(head(encoder(cells)).diff(dim=1)[:, 0].numpy())

    return score


MODELS: dict[str, Model] = {
    "pretrained, logistic": partial(on_encoder, "trained"),
    "pretrained, fine-tuned": partial(fine_tuned, "trained"),
    "untrained, logistic": partial(on_encoder, "untrained"),
    "untrained, fine-tuned": partial(fine_tuned, "untrained"),
    "plain columns, logistic": on_plain,
    "gradient boosting": boosted,
    "histogram gradient boosting": histogram_boosted,
}


def drawn(labels: np.ndarray, each: int, draw: int) -> np.ndarray:
    """Return so many rows of each class."""
    generator = numpy_generator(draw, "labels")
    return np.concatenate([generator.permutation(np.flatnonzero(labels == c))[:each] for c in (0, 1)])


def measure(name: str, draw: int, quick: bool) -> list[dict[str, Any]]:
    """Return the AUROC of every model for one draw at every number of labels."""
    job = task(name, draw % PRETRAININGS, quick)
    truth = job.test.dataset.labels
    return [
        {
            "set": name,
            "labels a class": each,
            "draw": draw,
            "model": model,
            "auroc": float(roc_auc_score(truth, make(job, drawn(job.labels, each, draw)))),
        }
        for each in LABELS[: 1 if quick else None]
        for model, make in MODELS.items()
    ]


def run(name: str, draw: int, quick: bool, core: int) -> list[dict[str, Any]]:
    """Run one draw in a process of its own on one core, unless its result is there."""
    code = common.source_hash("data", "encoders", "views", "losses", "methods", "training")
    path = FOLDER / f"{name}-draw{draw}-{'quick' if quick else 'full'}-{code}.json"
    if not path.exists():
        command = [sys.executable, __file__, "--one", name, str(draw), str(path), *(["--quick"] if quick else [])]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(["taskset", "-c", str(core), *command], check=True, env=env)
        print(f"{name}, draw {draw}: done", flush=True)
    return list(json.loads(path.read_text())["rows"])


def summary(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a row for each set, number of labels and model, and what pretraining wins or loses in pairs of draws."""
    found: dict[tuple[str, int], dict[str, dict[int, float]]] = {}
    for row in rows:
        models = found.setdefault((row["set"], row["labels a class"]), {})
        models.setdefault(row["model"], {})[row["draw"]] = 100 * row["auroc"]
    table, asks = [], []
    for (name, each), models in found.items():
        for model, by_draw in models.items():
            mean, low, high = student(np.array(list(by_draw.values())))
            table.append({"set": name, "labels a class": each, "model": model, "auroc": mean, "low": low, "high": high})
        for ours in ("pretrained, logistic", "pretrained, fine-tuned"):
            for other in (m for m in models if not m.startswith("pretrained")):
                gains = np.array([models[ours][draw] - models[other][draw] for draw in sorted(models[ours])])
                mean, low, high = student(gains)
                text = f"{mean:+.2f} points of AUROC [{low:+.2f}, {high:+.2f}] over {len(gains)} draws"
                holds = True if low > 0 else False if high < 0 else None
                asks.append(common.ask(f"{name}, {each} labels a class: {ours} against {other}", "> 0", text, holds))
    return table, asks


def main() -> None:
    """Run what is missing and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--one", nargs=3, metavar=("SET", "DRAW", "FILE"))
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    if options.one:
        name, draw, file = options.one
        torch.set_num_threads(1)
        write_json(Path(file), {"rows": measure(name, int(draw), options.quick)})
        return
    cores: Queue[int] = Queue()
    for core in sorted(os.sched_getaffinity(0))[:2]:
        cores.put(core)
    # The first draws make the pretrainings that the later ones use.
    todo = [(name, draw) for draw in range(2 if options.quick else options.draws) for name in SETS]

    def work(job: tuple[str, int]) -> list[dict[str, Any]]:
        core = cores.get()
        try:
            return run(*job, options.quick, core)
        finally:
            cores.put(core)

    with ThreadPoolExecutor(cores.qsize()) as pool:
        rows = [row for part in pool.map(work, todo) for row in part]
    table, asks = summary(rows)
    protocol = (
        f"SimCLR on SCARF's views, MLP of width 256, {EPOCHS} epochs; {PRETRAININGS} pretrainings; the same drawn "
        "labels for every model; settings by cross-validation among them; AUROC in percent on the test rows; intervals "
        "of 95% over draws"
    )
    common.save("tables" + ("_quick" if options.quick else ""), table, asks, protocol=protocol, draws=rows)


if __name__ == "__main__":
    main()
