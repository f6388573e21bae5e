"""Numbers that are none would turn every figure into none, or worse into one that looks right: they are refused."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastness.core.errors import BadInput


def finite(values: npt.ArrayLike, what: str) -> npt.NDArray[np.float64]:
    """Return values as float64; see `must_be_finite`."""
    x = np.asarray(values, np.float64)
    must_be_finite(x, what)
    return x


def must_be_finite(values: npt.NDArray[np.floating], what: str) -> None:
    """Refuse values of which one is no number.

    Args:
        values: ``[N]`` or ``[N, K]``.
        what: what they are called in the message.

    Raises:
        BadInput: one of them is NaN or infinite; names the first such row.
    """
    good = np.isfinite(values)
    if not good.all():
        row = int(np.argwhere(~good)[0][0])
        raise BadInput(f"{what}, row {row}: {values[row].tolist()!s:.60} is not finite; leave the row out or mend it")
