"""Distillation: a smaller encoder learns what a trained one says of the same views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import nn

from fastness import bundle as bundles
from fastness.core.errors import BadInput
from fastness.core.options import Option
from fastness.data.show import plural
from fastness.encoders import Encoder, Spec
from fastness.encoders.image import ImageEncoder
from fastness.encoders.table import TableSpec
from fastness.encoders.text_spec import TextSpec
from fastness.losses.regression import cosine_regression
from fastness.losses.relation import relation
from fastness.methods import METHODS
from fastness.methods.base import About, Defaults, Found, Known, Method, Outcome, outcome


@METHODS.register("distil")
class Distil(Method):
    """Student, frozen teacher, and a linear layer from the one's vectors to the other's.

    Student and teacher see the same views (Beyer et al. 2022, arXiv 2106.05237). The vectors that are compared are
    those that will be used, not a head's: of a smaller encoder the neighbours count.
    """

    about = About(
        "a smaller encoder learns the vectors and the neighbours that a trained one finds (--option teacher=BUNDLE)",
        "Fang et al. 2021 (SEED), arXiv 2101.04731; prefixes: Kusupati et al. 2022, arXiv 2205.13147",
        "one forward and backward of the student, one forward of the teacher",
        "no labels; a trained encoder is too large or too slow, or was pruned and is to recover (--init)",
    )
    defaults = Defaults(batch_size=128, lr=0.1, temperature=0.1, epochs=60)
    options: ClassVar[Mapping[str, Option]] = {
        "teacher": Option("", help="folder of the bundle to learn from"),
        "regress": Option(1.0, 0, help="weight of the distance to the teacher's vectors, through a linear layer"),
        "relate": Option(1.0, 0, help="weight of the divergence from whom the teacher finds near"),
        "nested": Option(0, 0, help="shortest start of the vector that is to serve alone; 0: none shorter than all"),
    }
    learning = "vectors"
    views_taken = (1, 1 << 30)

    def __init__(self, encoder: Encoder, temperature: float, classes: int = 0, **options: Any) -> None:
        super().__init__(encoder, temperature, classes, **options)
        if not self.settings["regress"] and not self.settings["relate"]:
            raise BadInput("options regress and relate are both 0: nothing is left to learn; raise one")
        self.teacher, self.identity = _teacher(self.settings["teacher"], encoder)
        self.lengths = _lengths(encoder.dim, self.settings["nested"])
        self.head = nn.Linear(encoder.dim, self.teacher.dim) if self.settings["regress"] else None

    def parents(self) -> dict[str, str]:
        """See `Method.parents`."""
        return {"teacher": self.identity}

    def train(self, mode: bool = True) -> Self:
        """Set training mode, but the teacher's."""
        super().train(mode)
        self.teacher.eval()
        return self

    def represent(self, views: Sequence[torch.Tensor]) -> Found:
        """See `Method.represent`."""
        vectors = self.encode(views)
        with torch.no_grad():
            target = self.teacher.of_views([_as_read_by(self.teacher, self.encoder, view) for view in views])
        return {"vectors": vectors, "target": target, "features": vectors.detach()}

    def compare(self, found: Found, known: Known) -> Outcome:
        """See `Method.compare`: the mean over the lengths that are to serve."""
        vectors, target = found["vectors"].flatten(0, 1), found["target"].flatten(0, 1)
        distance, divergence = vectors.new_zeros(()), vectors.new_zeros(())
        for length in self.lengths:
            start = vectors[:, :length]
            if self.head is not None:
                said = F.linear(start, self.head.weight[:, :length], self.head.bias)
                distance = distance + cosine_regression(said, target) / len(self.lengths)
            if self.settings["relate"]:
                divergence = divergence + relation(start, target, self.temperature) / len(self.lengths)
        loss = self.settings["regress"] * distance + self.settings["relate"] * divergence
        return outcome(loss, found, distance=distance.detach(), divergence=divergence.detach())


def _teacher(address: str, student: Encoder) -> tuple[Encoder, str]:
    """Return the frozen encoder of a bundle, and the bundle's id.

    Raises:
        BadInput: there is none, or it cannot read what the student reads.
    """
    if not address:
        raise BadInput("--method distil learns from a bundle; name it with --option teacher=BUNDLE")
    bundle = bundles.load(address)
    ours, theirs = student.spec, bundle.encoder.spec
    if ours.modality != theirs.modality or ours.modality == "sides":
        raise BadInput(
            f"option teacher = {address}: an encoder of {plural(theirs.modality)} cannot teach one of "
            f"{plural(ours.modality)}; take a teacher of the same"
        )
    if not _reads_the_same(ours, theirs):
        raise BadInput(
            f"option teacher = {address}: cuts its items otherwise than the student (tokenizer, length or schema); "
            "start from the teacher itself, pruned: fastness prune, then --init"
        )
    return bundle.encoder.requires_grad_(False), bundle.id


def _reads_the_same(ours: Spec, theirs: Spec) -> bool:
    if isinstance(ours, TextSpec) and isinstance(theirs, TextSpec):
        return ours.tokenizer == theirs.tokenizer and ours.size <= theirs.size
    if isinstance(ours, TableSpec) and isinstance(theirs, TableSpec):
        return ours.schema == theirs.schema
    return True


def _as_read_by(teacher: Encoder, student: Encoder, view: torch.Tensor) -> torch.Tensor:
    """Return a student's view as the teacher takes it: of pictures, in its normalisation and at its scale."""
    if not isinstance(teacher, ImageEncoder) or not isinstance(student, ImageEncoder):
        return view
    pixels = student.pixels(view)
    side = round(view.shape[-1] * teacher.spec.size / student.spec.size)
    if side != view.shape[-1]:
        pixels = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
    return ((pixels - teacher.mean) / teacher.std).contiguous(memory_format=torch.channels_last)


def _lengths(dim: int, shortest: int) -> list[int]:
    """Return the whole length and its halves down to the shortest.

    Raises:
        BadInput: the shortest is longer than the whole.
    """
    if shortest > dim:
        raise BadInput(f"option nested = {shortest} is more than the {dim} numbers of a vector; give fewer")
    found = [dim]
    while shortest and found[-1] // 2 >= shortest:
        found.append(found[-1] // 2)
    return found
