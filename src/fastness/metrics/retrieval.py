"""Retrieval: how high the right answers stand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fastness.metrics.finite import must_be_finite

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
_EQUAL = 1e-6  # similarities of float32 vectors no further apart are equal: their products are rounded


def best_ranks(
    queries: Floats, answers: Floats, right: Callable[[Ints], npt.NDArray[np.bool_]], block: int = 256
) -> Ints:
    """Return the rank of the first right answer of each query, from 1; int64 ``[Q]``.

    Among equals the right answer stands last, so that an encoder that finds everything alike finds nothing.

    Args:
        queries, answers: float32 ``[Q, D]`` and ``[A, D]``, length 1.
        right: given the places of queries, int64 ``[B]``, says which answers are right, bool ``[B, A]``. A query
            without a right answer has rank ``A + 1``.

    Raises:
        BadInput: a vector is not finite.
    """
    _check(queries, answers)
    out = np.empty(len(queries), np.int64)
    for start in range(0, len(queries), block):
        places = np.arange(start, min(start + block, len(queries)))
        scores, are_right = queries[places] @ answers.T, right(places)
        best = np.where(are_right, scores, -np.inf).max(1)
        ahead = ((scores >= best[:, None] - _EQUAL) & ~are_right).sum(1)
        out[places] = np.where(are_right.any(1), ahead + 1, len(answers) + 1)
    return out


def ranking(
    queries: Floats, documents: Floats, query: Ints, document: Ints, gain: npt.NDArray[np.float64], block: int = 256
) -> dict[str, npt.NDArray[np.float64]]:
    """Return figures of each query that has a right answer, by the name of the figure, float64 ``[Q']`` each.

    ``ndcg@10`` (Järvelin and Kekäläinen 2002, with linear gain as trec_eval has it), ``map`` (average precision over
    the whole ranking), ``recall@100`` and ``mrr@10``. Among equals right answers stand last, the better the later.

    Args:
        queries, documents: float32 ``[Q, D]`` and ``[N, D]``, length 1.
        query, document: int64 ``[J]``, the places of what each judgement is of; a document of -1 is never found.
        gain: float64 ``[J]``; more than 0 is right. Of several judgements of one pair the highest counts.

    Raises:
        BadInput: a vector is not finite.
    """
    _check(queries, documents)
    judged: dict[int, dict[int, float]] = {}
    lost: dict[int, list[float]] = {}
    for q, d, g in zip(query.tolist(), document.tolist(), gain.tolist(), strict=True):
        if g > 0:
            answers = judged.setdefault(q, {})
            if d < 0:
                lost.setdefault(q, []).append(g)
            else:
                answers[d] = max(g, answers.get(d, 0.0))
    asked = sorted(judged)
    found = []
    for start in range(0, len(asked), block):
        part = asked[start : start + block]
        for q, scores in zip(part, queries[part] @ documents.T, strict=True):
            rows, gains = np.array(list(judged[q]), np.int64), np.array(list(judged[q].values()))
            order = np.lexsort((gains, -scores[rows]))
            rows, gains = rows[order], gains[order]
            right = np.zeros(len(scores), np.bool_)
            right[rows] = True
            found.append(_of_ranks(_ranks(scores, right), gains, lost.get(q, [])))
    return {name: np.array([figures[name] for figures in found]) for name in ("ndcg@10", "map", "recall@100", "mrr@10")}


def _of_ranks(ranks: Ints, gains: npt.NDArray[np.float64], lost: list[float]) -> dict[str, float]:
    """Return the figures of one query, given the rising ranks of its right answers and the gains of those not found."""
    every = np.sort(np.concatenate([gains, lost]))[::-1][:10]
    first = ranks <= 10
    total = len(ranks) + len(lost)
    best = (every / np.log2(np.arange(len(every)) + 2)).sum()
    return {
        "ndcg@10": float((gains[first] / np.log2(ranks[first] + 1)).sum() / best),
        "map": float((np.arange(1, len(ranks) + 1) / ranks).sum() / total),
        "recall@100": float((ranks <= 100).sum() / total),
        "mrr@10": float(1 / ranks[0]) if first.any() else 0.0,
    }


def by_label(
    bank: Floats, bank_labels: Ints, queries: Floats, labels: Ints, depths: tuple[int, ...] = (1, 5, 10)
) -> dict[str, npt.NDArray[np.float64]]:
    """Return figures of each query whose right answers are the bank's items of its class, float64 ``[M]`` each.

    ``precision@k``, ``recall@k``, ``f1@k``, ``map`` (average precision over the whole ranking), ``mrr`` and ``ndcg``
    (whole ranking). Among equally near items wrong ones stand first. A query without a right answer is NaN throughout.

    Args:
        bank, queries: float32 ``[N, D]`` and ``[M, D]``, length 1.
        bank_labels, labels: their classes, ``[N]`` and ``[M]``.

    Raises:
        BadInput: a vector is not finite.
    """
    _check(queries, bank)
    depths = tuple(k for k in depths if k <= len(bank))
    names = [f"{what}@{k}" for k in depths for what in ("precision", "recall", "f1")] + ["map", "mrr", "ndcg"]
    out = {name: np.full(len(queries), np.nan) for name in names}
    gain = 1 / np.log2(np.arange(len(bank)) + 2)
    for start in range(0, len(queries), 256):
        scores = queries[start : start + 256] @ bank.T
        for row, (mine, right) in enumerate(zip(scores, labels[start : start + 256, None] == bank_labels, strict=True)):
            total, at = int(right.sum()), start + row
            if not total:
                continue
            ranks = _ranks(mine, right)
            for k in depths:
                hits = int(np.searchsorted(ranks, k, side="right"))
                out[f"precision@{k}"][at], out[f"recall@{k}"][at] = hits / k, hits / total
                out[f"f1@{k}"][at] = 2 * hits / (k + total)
            out["map"][at] = float((np.arange(1, total + 1) / ranks).mean())
            out["mrr"][at] = 1 / ranks[0]
            out["ndcg"][at] = float(gain[ranks - 1].sum() / gain[:total].sum())
    return out


def _ranks(scores: Floats, right: npt.NDArray[np.bool_]) -> Ints:
    """Return the rising ranks, from 1, of the right answers; wrong ones that score as high stand before them."""
    good, wrong = np.sort(scores[right])[::-1], np.sort(scores[~right])
    ranks: Ints = len(wrong) - np.searchsorted(wrong, good - np.float32(_EQUAL), side="left") + 1 + np.arange(len(good))
    return ranks


def _check(queries: Floats, answers: Floats) -> None:
    must_be_finite(queries, "embeddings of queries")
    must_be_finite(answers, "embeddings of answers")
