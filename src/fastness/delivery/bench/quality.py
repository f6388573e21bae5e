"""How good each form is: the checks of an evaluation, on the encoder and on every export through its runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastness import bundle as bundles
from fastness.bundle import Bundle
from fastness.core.seeds import numpy_generator
from fastness.data import Dataset
from fastness.delivery.bench.candidates import Candidate
from fastness.delivery.narrowing import nearest, shared
from fastness.evaluation import evidence as evidences
from fastness.evaluation.checks import Findings, bootstrapped
from fastness.evaluation.checks.corruption import Corruption
from fastness.evaluation.checks.knn import KNN
from fastness.evaluation.measurement import Measurement
from fastness.evaluation.subject import Subject
from fastness.metrics.intervals import chance_of_drop

_MOST = 10_000  # items that are embedded
_ALIKE = 0.005  # of accuracy
_CHANCE = 0.05


_OUTCOMES = {"knn.accuracy": "accuracy", "agreement.nearest": "nearest"}


@dataclass(frozen=True)
class Quality:
    """What was found of one form.

    Attributes:
        accuracy: of kNN on held-out items; without labels the share of each item's 10 nearest that are the encoder's.
        robustness: mean accuracy of a probe, without labels mean cosine to the clean embedding, under the common
            corruptions; ``None`` where none are known for such items.
        subject, findings: of which it is made, for the evidence.
    """

    accuracy: Measurement
    robustness: Measurement | None
    subject: Subject
    findings: dict[str, Findings]

    def like(self, other: Quality) -> bool:
        """Whether this is as accurate as another, on the same items: half a point less, or less by chance."""
        mine, theirs = (next(iter(q.findings.values())).items[_OUTCOMES[q.accuracy.name]] for q in (self, other))
        gained = mine.astype(np.float64) - theirs.astype(np.float64)
        return bool(gained.mean() >= -_ALIKE) or chance_of_drop(gained) > _CHANCE

    def write(self, folder: Path) -> None:
        """Write the evidence, which ``fastness compare`` reads."""
        folder.mkdir(parents=True)
        skipped = {} if "corruption" in self.findings else {"corruption": "knows of none for such items"}
        evidences.write(folder, self.subject, self.findings, skipped)


def qualities(
    encoder: Bundle,
    dataset: Dataset,
    found: Sequence[Candidate],
    corrupted: int,
    seed: int,
    say: Callable[[str], None],
) -> dict[str, Quality]:
    """Measure every candidate on the same items.

    Args:
        encoder: of the side that is measured.
        dataset: of 10,000 items at most, drawn by the seed if there are more.
        found: the first is the encoder itself.
        corrupted: how many held-out items are corrupted in every way.
    """
    order = numpy_generator(seed, "quality").permutation(len(dataset))[:_MOST]
    dataset = dataset.select(np.sort(order))
    reference = Subject.of(encoder, dataset, seed)
    qualities: dict[str, Quality] = {}
    for candidate in found:
        say(f"quality of {candidate.name} …")
        mine = candidate.kind == "torch"
        subject = reference if mine else Subject.of(bundles.load(candidate.folder, key=()), dataset, seed)
        qualities[candidate.name] = _quality(subject, reference, corrupted)
    return qualities


def _quality(subject: Subject, reference: Subject, corrupted: int) -> Quality:
    findings = {"knn": KNN().run(subject)} if subject.has_labels else {"agreement": _agreement(subject, reference)}
    accuracy = next(iter(findings.values())).measurements[0]
    check = Corruption()
    check.most = corrupted
    if check.missing(subject) is not None:
        return Quality(accuracy, None, subject, findings)
    findings["corruption"] = check.run(subject)
    robustness = next(m for m in findings["corruption"].measurements if m.name.startswith("corruption.mean."))
    return Quality(accuracy, robustness, subject, findings)


def _agreement(subject: Subject, reference: Subject) -> Findings:
    """Return how many of the nearest items are those by the encoder's own embeddings."""
    wanted, found = (nearest(s.fit_vectors, s.test_vectors) for s in (reference, subject))
    same, k = shared(wanted, found), wanted.shape[1]
    protocol = f"share of the {k} nearest of {len(subject.fit):,} items that are the encoder's, cosine"
    measured = bootstrapped(subject, "agreement.nearest", same, protocol, unit="share")
    return Findings([measured], {"nearest": same})
