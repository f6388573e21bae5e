"""What the world does to inputs: corruptions in five severities, batched and seeded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from fastness.core.errors import BadInput

SEVERITIES = (1, 2, 3, 4, 5)
T = TypeVar("T")


def at_severity(amounts: Sequence[T], severity: int) -> T:
    """Return the amount at a severity.

    Raises:
        BadInput: no such severity.
    """
    if severity not in SEVERITIES:
        raise BadInput(f"severity {severity}: severities are 1 to 5")
    return amounts[severity - 1]
