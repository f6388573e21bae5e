"""Ranking: do the documents that people judged right stand first?"""

from __future__ import annotations

import numpy as np

from fastness.data.items import Items
from fastness.data.judged import JudgedPayloads, Judgements
from fastness.evaluation.checks import CHECKS, Check, Findings
from fastness.evaluation.measurement import Measurement
from fastness.evaluation.subject import Floats, Ints, Subject
from fastness.metrics.intervals import student
from fastness.metrics.retrieval import ranking


@CHECKS.register("ranking")
class Ranking(Check):
    """nDCG, mean average precision, recall and reciprocal rank: of the encoder, and by the words in common."""

    headline = ("ranking.encoder.*",)

    def missing(self, subject: Subject) -> str | None:
        """It wants queries and judgements."""
        payloads = subject.unfitted.payloads
        answered = isinstance(payloads, JudgedPayloads) and (payloads.judgements.held_out()[0].gain > 0).any()
        return None if answered else "needs queries with a right answer (a folder as BEIR or TREC have them)"

    def run(self, subject: Subject) -> Findings:
        """Measure the judged queries that have a right answer; each is one observation."""
        assert isinstance(subject.unfitted.payloads, JudgedPayloads)
        judged, part = subject.unfitted.payloads.judgements.held_out()
        bundle, documents = next(iter(subject.sides.values()))
        queries = bundle.encoder.prepare(judged.queries)
        ways = {
            "encoder": ("cosine", bundle.embed_items(queries), bundle.embed_items(documents)),
            "raw": ("cosine of TF-IDF", queries.plain(documents), documents.plain(documents)),
        }
        measurements = []
        for name, (how, asked, answers) in ways.items():
            figures = _figures(judged, asked, answers, queries, documents)
            for figure, values in figures.items():
                mean, low, high = student(values)
                protocol = f"{how}, {len(documents):,} documents, judgements: {part}; ties count against; last epoch"
                measurements.append(
                    Measurement(
                        f"ranking.{name}.{figure}",
                        mean,
                        max(0.0, low),
                        min(1.0, high),
                        "queries",
                        len(values),
                        "score",
                        protocol,
                        subject.unfitted.fingerprint,
                        seed=subject.seed,
                    )
                )
        return Findings(measurements, {}, subject.unfitted)


def _figures(
    judged: Judgements, asked: Floats, answers: Floats, queries: Items, documents: Items
) -> dict[str, np.ndarray]:
    """Return the figures of each query; one that gives no token finds nothing, as nothing finds such a document."""
    every = np.zeros((len(queries.dataset.whole), asked.shape[1]), np.float32)
    every[queries.dataset.rows] = asked
    return ranking(every, answers, judged.query, _places(documents)[judged.document], judged.gain)


def _places(items: Items) -> Ints:
    """Return where each item of the whole manifest stands among the usable ones, -1 for the others."""
    places = np.full(len(items.dataset.whole), -1, np.int64)
    places[items.dataset.rows] = np.arange(len(items))
    return places
