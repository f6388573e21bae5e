"""Join rows with what was known of their entities then, with pandas' merge_asof; usage: EVENTS.npz SPINE.npz OUT.npz.

Both files hold ``entity`` (numbers) and ``time``; the output has the event's place of each row, -1 where there is none,
and the seconds that it took from data frames of texts and moments in no order.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import pandas as pd


def frame(path: str, place: str) -> pd.DataFrame:
    """Return a file's rows with their places, entities as texts."""
    with np.load(path) as held:
        names = [f"customer-{number}" for number in held["entity"]]
        return pd.DataFrame({"entity": names, "time": held["time"], place: np.arange(len(names))})


def main() -> None:
    """Join, and write what was found."""
    events, spine = frame(sys.argv[1], "event"), frame(sys.argv[2], "row")
    took = []
    for _ in range(3):
        began = time.perf_counter()
        joined = pd.merge_asof(spine.sort_values("time"), events.sort_values("time"), on="time", by="entity")
        joined = joined.sort_values("row")
        took.append(time.perf_counter() - began)
    np.savez(sys.argv[3], place=joined["event"].fillna(-1).to_numpy(np.int64), seconds=np.median(took))


if __name__ == "__main__":
    main()
