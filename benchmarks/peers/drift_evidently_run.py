"""evidently's drift methods of embeddings, each with its defaults: see `drift_trials.run`."""

from __future__ import annotations

import numpy as np
import pandas as pd
from drift_trials import Method, run
from evidently.legacy.metrics.data_drift.embedding_drift_methods import distance, mmd, model, ratio


def method(made: object) -> Method:
    """Return a method that is given frames of its own, as some write into them."""

    def judged(first: np.ndarray, second: np.ndarray) -> tuple[float, bool]:
        names = [f"x{i}" for i in range(first.shape[1])]
        score, alarm, _ = made(pd.DataFrame(second, columns=names), pd.DataFrame(first, columns=names))
        return float(score), bool(alarm)

    return judged


if __name__ == "__main__":
    run(
        {
            "evidently model": method(model()),
            "evidently ratio": method(ratio()),
            "evidently mmd": method(mmd()),
            "evidently distance": method(distance()),
            "evidently distance, cosine": method(distance(dist="cosine")),
        }
    )
