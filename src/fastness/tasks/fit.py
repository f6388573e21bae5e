"""Fit: labels become a head beside a bundle, which names classes, is honest about it, and abstains from strangers."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastness.bundle import Bundle, heads, load
from fastness.bundle.heads import Head, Numbers
from fastness.core.errors import BadInput
from fastness.core.hardware import describe, versions
from fastness.core.seeds import derive
from fastness.data import Dataset
from fastness.evaluation.checks import measured
from fastness.evaluation.measurement import Measurement
from fastness.evaluation.probe import Probe, fifths
from fastness.evaluation.subject import Subject
from fastness.metrics.calibration import reliability
from fastness.metrics.intervals import bootstrap, quantiles, wilson
from fastness.metrics.outliers import Clusters

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
_BINS = 15
_NOVELTY = (
    "squared Mahalanobis distance of the embedding to the nearest class mean, one covariance (Ledoit-Wolf) for all "
    "classes, fitted on four fifths of the fitting items"
)


def fit(
    bundle: Bundle | str | Path,
    data: Any,
    *,
    name: str = "default",
    side: str | None = None,
    abstain: float = 0.05,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
    **columns: str | None,
) -> Head:
    """Fit a head on a bundle's frozen features and write it to ``heads/NAME`` in the bundle's folder.

    With splits it is fitted on ``train`` and measured on ``test`` (or ``validation``); without, a random quarter is
    held out. Four fifths of the fitting items fit probe and covariance; the rest chooses temperature and threshold.

    Args:
        bundle: a bundle or its path.
        data: items with labels; see `open_data`. Those without a label are left out.
        name: of the head; one of that name is replaced.
        side: which side of things with several, by its column's name or its modality.
        abstain: share of good items that the head may refuse to answer, in [0, 1); 0: it always answers.
        seed: of every random choice.
        say: called with a line of progress.
        **columns: see `open_data`.

    Raises:
        BadInput: the bundle or the data is unusable, there are fewer than two classes, or too few items to choose a
            threshold for so small a share.
    """
    if not 0 <= abstain < 1:
        raise BadInput(f"--abstain {abstain}: is no share of items; give one from 0 up to 1")
    bundle = bundle if isinstance(bundle, Bundle) else load(bundle)
    heads.folder_of(bundle, name)  # a mistake in it is worth knowing first
    say = say or (lambda line: None)
    subject = _subject(bundle.one_side(side), data, seed, columns)
    say("embedding …")
    present, labels = np.unique(subject.fit_labels, return_inverse=True)
    if len(present) < 2:
        raise BadInput(f"{subject.fit.dataset.whole.source}: a head tells classes apart; give items of two at least")
    kept, rest = fifths(labels, len(present), seed)
    needed = math.ceil(1 / abstain) - 1 if abstain else 0
    if len(rest) < needed:
        raise BadInput(
            f"{subject.fit.dataset.whole.source}: {len(rest)} items are left to choose the threshold by, and a share "
            f"of {abstain:g} needs {needed}; give more items of each class, or a larger --abstain, or 0 for none"
        )
    say("fitting …")
    probe = Probe.fitted(subject.fit_vectors, labels, len(present), seed)
    clusters = Clusters.fitted(subject.fit_vectors[kept], labels[kept])
    numbers = _numbers(probe, clusters)
    about: dict[str, Any] = {
        "side": side,
        "classes": [subject.fit.dataset.class_names[c] for c in present],
        "abstain": abstain,
        "threshold": None,
    }
    unbound = Head(bundle.path, about, numbers)
    about["threshold"] = threshold(unbound.answer(subject.fit_vectors[rest]).novelty, abstain)
    about |= {
        "temperature": probe.temperature,
        "protocol": f"{probe.protocol}, temperature and threshold on the rest; {subject.how}",
        "novelty": _NOVELTY,
        "data": _described(subject, len(kept), len(rest)),
        "seed": seed,
        "measurements": [m.to_dict() for m in _measured(subject, Head(bundle.path, about, numbers), present)],
        "hardware": describe(),
        "versions": versions("fastness", "torch", "numpy", "scikit-learn"),
    }
    return heads.write(bundle, name, numbers, about)


def threshold(novelty: npt.ArrayLike, share: float) -> float | None:
    """Return the novelty that a new item of the same kind exceeds with at most this chance; ``None`` for a share of 0.

    Split conformal prediction (Vovk et al. 2005; Papadopoulos et al. 2002): of N items of a kind, any is as likely as
    any other to be beyond the k-th smallest of the rest.

    Args:
        novelty: of items that nothing was fitted on, ``[N]``; at least ``1 / share - 1`` of them.
        share: in [0, 1).
    """
    if share == 0:
        return None
    ordered = np.sort(np.asarray(novelty, np.float64))
    return float(ordered[math.ceil((len(ordered) + 1) * (1 - share) - 1e-9) - 1])


def _subject(bundle: Bundle, data: Any, seed: int, columns: dict[str, str | None]) -> Subject:
    """Return the items that fit, and those that measure."""
    dataset: Dataset = bundle.open(data, **columns)
    if dataset.sides > 1:
        raise BadInput(f"{dataset.whole.source}: each thing has several sides; name the column of one")
    labelled = dataset.select(dataset.required_labels("a head") >= 0)
    return Subject.of(bundle, labelled, seed)


def _numbers(probe: Probe, clusters: Clusters) -> Numbers:
    """Return the probe, and a factor of the covariance's inverse, as what a graph computes with."""
    scaler, regression = probe.model[0], probe.model[-1]
    weights, bias = (regression.coef_ / scaler.scale_).T, regression.intercept_
    if weights.shape[1] == 1:  # of two classes there is one score
        weights, bias = np.concatenate([-weights, weights], 1) / 2, np.concatenate([-bias, bias]) / 2
    centre = clusters.means.mean(0)
    try:
        whitening = np.linalg.cholesky(clusters.precision)
    except np.linalg.LinAlgError:
        raise BadInput("items of a class are all alike to this encoder; give two different ones a class") from None
    return Numbers(
        *(
            np.ascontiguousarray(value, np.float32)
            for value in (
                scaler.mean_,
                weights / probe.temperature,
                bias / probe.temperature,
                centre,
                whitening,
                (clusters.means - centre) @ whitening,
            )
        )
    )


def _described(subject: Subject, fitted: int, chosen: int) -> dict[str, Any]:
    return {
        "source": subject.fit.dataset.whole.source,
        "fingerprint": subject.fit.dataset.fingerprint,
        "held_out_fingerprint": subject.data,
        "items": {"fit": fitted, "threshold": chosen, "test": len(subject.test)},
        "quarantined": len({q.name for part in (subject.fit, subject.test) for q in part.dataset.quarantine}),
    }


def _measured(subject: Subject, head: Head, present: Ints) -> list[Measurement]:
    """Return how good a head is on the held-out items."""
    answers = head.answer(subject.test_vectors)
    right = present[answers.probabilities.argmax(1)] == subject.test_labels
    given, how = ~answers.abstained, f"linear probe and Mahalanobis novelty on frozen features; {subject.how}"
    shares = {
        "accuracy": (right, "share of items whose likeliest class is theirs", "higher"),
        "abstained": (answers.abstained, "share of items that are refused an answer", "lower"),
        "accuracy.answered": (right[given], "the same of the items that are answered", "higher"),
    }
    found = []
    for name, (hits, what, better) in shares.items():
        if len(hits):
            value, interval = float(hits.mean()), wilson(int(hits.sum()), len(hits))
            found.append(measured(subject, f"head.{name}", value, interval, len(hits), f"{what}; {how}", better=better))
    return [*found, _calibration(subject, answers.probabilities.max(1), right, how)]


def _calibration(subject: Subject, confidence: Floats, right: npt.NDArray[np.bool_], how: str) -> Measurement:
    """Return how far confidence is from the share of right answers."""

    def error(rows: Ints) -> float:
        return reliability(confidence[rows], right[rows], _BINS).error

    value = error(np.arange(len(right)))
    interval = quantiles(bootstrap(error, len(right), derive(subject.seed, "head.ece"), 300))
    protocol = f"expected calibration error, {_BINS} bins of equal width; {how}"
    return measured(subject, "head.ece", value, interval, len(right), protocol, better="lower")
