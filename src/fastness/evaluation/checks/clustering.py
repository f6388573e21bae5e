"""Clustering: do groups that nobody named hold together, and do they follow the classes?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from fastness.core.seeds import derive, numpy_generator
from fastness.evaluation.checks import CHECKS, Check, Findings, measured
from fastness.evaluation.measurement import Measurement
from fastness.evaluation.subject import Floats, Ints, Subject
from fastness.metrics.clustering import dunn
from fastness.metrics.intervals import bootstrap, quantiles, student

_MOST = 5000  # items that are clustered
_PAIRS = 1000  # items whose distances to each other are all looked at
_UNNAMED = 10  # clusters where there are no classes


@CHECKS.register("clustering")
class Clustering(Check):
    """k-means and HDBSCAN on the held-out items."""

    needs = frozenset({"embeddings"})
    headline = ("clustering.kmeans.a*",)

    def missing(self, subject: Subject) -> str | None:
        """It needs items enough."""
        return None if len(subject.test) >= 4 * _clusters(subject) else "needs more items: four a cluster"

    def run(self, subject: Subject) -> Findings:
        """Cluster, compare with the classes if there are any, and measure how the clusters hold together."""
        from sklearn.cluster import HDBSCAN, KMeans

        rows = numpy_generator(subject.seed, "clustering").permutation(len(subject.test))[:_MOST]
        z = subject.test_vectors[rows]
        z = z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
        labels = subject.test_labels[rows] if subject.has_labels else None
        count, seed = _clusters(subject), derive(subject.seed, "k-means") % (1 << 31)
        smallest = max(5, len(rows) // (10 * count))
        ways: dict[str, tuple[str, Any]] = {
            "kmeans": (f"k-means, {count} clusters, best of 4", KMeans(count, n_init=4, random_state=seed)),
            "hdbscan": (
                f"HDBSCAN, clusters of at least {smallest}; what it leaves out is a cluster of its own",
                HDBSCAN(min_cluster_size=smallest, copy=True),
            ),
        }
        found = []
        for name, (how, model) in ways.items():
            clusters = model.fit_predict(z)
            protocol = f"{how}, on {len(rows):,} held-out embeddings of length 1"
            if labels is not None:
                found += _agreement(subject, name, labels, clusters, protocol)
            found += _cohesion(subject, name, z, clusters, protocol)
        return Findings(found)


def _clusters(subject: Subject) -> int:
    return subject.classes if subject.has_labels else _UNNAMED


def _agreement(subject: Subject, way: str, labels: Ints, clusters: Ints, protocol: str) -> list[Measurement]:
    """Compare clusters and classes; the interval draws items anew and leaves the clusters as they are."""
    from sklearn import metrics

    kinds: dict[str, Callable[[Ints, Ints], float]] = {
        "ari": metrics.adjusted_rand_score,
        "nmi": metrics.normalized_mutual_info_score,
        "ami": metrics.adjusted_mutual_info_score,
    }

    def drawn(score: Callable[[Ints, Ints], float], places: Ints) -> float:
        return float(score(labels[places], clusters[places]))

    found = []
    for kind, score in kinds.items():
        name = f"clustering.{way}.{kind}"
        samples = bootstrap(partial(drawn, score), len(labels), derive(subject.seed, name), 100)
        value = float(score(labels, clusters))
        found.append(measured(subject, name, value, quantiles(samples), len(labels), protocol, unit="score"))
    return found


def _cohesion(subject: Subject, way: str, z: Floats, clusters: Ints, protocol: str) -> list[Measurement]:
    """Measure shape without classes, on samples where all pairs are looked at; intervals are over the samples."""
    from sklearn import metrics

    kinds: dict[str, Callable[[Floats, Ints], float]] = {
        "silhouette": partial(metrics.silhouette_score, metric="euclidean"),
        "davies_bouldin": metrics.davies_bouldin_score,
        "dunn": dunn,
    }
    size = min(_PAIRS, max(2, len(z) * 4 // 5))
    draws = [numpy_generator(subject.seed, way, draw).permutation(len(z))[:size] for draw in range(5)]
    draws = [rows for rows in draws if 1 < len(np.unique(clusters[rows])) < size]
    if not draws:
        return []  # one cluster, or as many as items: there is no shape
    found = []
    for kind, score in kinds.items():
        values = np.array([score(z[rows], clusters[rows]) for rows in draws])
        if not np.isfinite(values).all():
            continue
        mean, low, high = student(values)
        how = f"{protocol}; {len(draws)} samples of {size} of them, all pairs"
        name = f"clustering.{way}.{kind}"
        better = "lower" if kind == "davies_bouldin" else "higher"
        found.append(
            measured(subject, name, mean, (low, high), len(draws), how, over="draws", unit="score", better=better)
        )
    return found
