"""What is measured: the encoder itself, and every export in its bundle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastness.bundle import Bundle
from fastness.bundle.whole import core_of
from fastness.core.errors import BadInput, GateRefused
from fastness.core.files import sha256_file
from fastness.delivery.export import export
from fastness.delivery.forms import FORMS
from fastness_runtime import Unusable
from fastness_runtime.encoder import DESCRIPTION, described

TORCH = "torch"
"""What the encoder itself is called."""


@dataclass(frozen=True)
class Candidate:
    """One thing to measure.

    Attributes:
        name: of the export's folder, or `TORCH`.
        kind: what the worker loads it as, ``export`` or ``torch``.
        folder: where it lies.
        size: bytes of its files.
        digest: SHA-256 of what lists its files with their hashes.
    """

    name: str
    kind: str
    folder: Path
    size: int
    digest: str


def candidates(bundle: Bundle, side: str | None) -> list[Candidate]:
    """Return the encoder itself, then each export in the bundle's folder, by name.

    Args:
        bundle: the whole one.
        side: of which side of things with several.

    Raises:
        BadInput: an export is damaged, or was made of another bundle.
    """
    size = sum((bundle.path / name).stat().st_size for name in core_of(bundle.path)["core"])
    found = [Candidate(TORCH, TORCH, bundle.path, size, bundle.id)]
    for path in sorted(bundle.path.glob(f"exports/*/{DESCRIPTION}")):
        folder = path.parent
        try:
            about = described(folder)
        except Unusable as error:
            raise BadInput(str(error)) from None
        if about["bundle"] != bundle.id:
            raise BadInput(f"{folder}: was made of another bundle than the one it lies in; export anew")
        if about["side"] == side:
            found.append(Candidate(folder.name, "export", folder, _bytes(folder), sha256_file(path)))
    return found


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())


def make_missing(
    bundle: Bundle,
    data: Any,
    forms: Sequence[str],
    side: str | None,
    seed: int,
    say: Callable[[str], None],
    columns: dict[str, str | None],
) -> dict[str, str]:
    """Export the forms that are not there yet.

    Returns:
        why a form was refused, by its name.

    Raises:
        BadInput: a form is unknown, or none of this encoder.
    """
    for form in forms:
        FORMS.get(form)  # a mistake is worth knowing first
    refused: dict[str, str] = {}
    for form in dict.fromkeys(forms):
        name = form if side is None else f"{form}-{side}"
        if not (bundle.path / "exports" / name / DESCRIPTION).exists():
            say(f"export {form} …")
            try:
                export(bundle, data, form, side=side, out=None, floor=None, seed=seed, say=None, **columns)
            except GateRefused as error:
                refused[name] = f"refused: {str(error).split(' refused: ')[-1]}"
    return refused
