"""What a source says of its items: a column of texts that are all numbers is numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def typed(cells: Any) -> Any:
    """Return a column of texts as numbers if all that are there are numbers.

    Args:
        cells: Arrow array of texts ``[N]``, null or blank where nothing is said.

    Returns:
        float64 ``[N]``, NaN where missing; or an Arrow array of trimmed texts ``[N]``, empty where missing.
    """
    trimmed = pc.utf8_trim_whitespace(cells)
    trimmed = pc.if_else(pc.equal(trimmed, ""), None, trimmed)
    try:
        numbers = pc.cast(trimmed, pa.float64())
    except pa.ArrowInvalid:
        return trimmed.fill_null("")
    if numbers.null_count == len(numbers):
        return trimmed.fill_null("")
    return np.asarray(numbers.to_numpy(zero_copy_only=False), np.float64)
