"""Monitor and retraining are killed at random moments: is an alarm lost or told twice, is anything half made?

Windows of traffic come while monitors are killed (SIGKILL): incidents, timelines, actions and messages are compared
with those of a monitor that nobody kills. Then a pipeline that an incident started is killed while it is under way, or
its monitor, or both, until it has trained, judged and released; and again, with other incidents, until that was often
enough. A real Alertmanager, if there is one, is told of a hundred windows that alarm. What is done is in
``tests/watched.py``; tests do it a few times.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common

sys.path.append(str(common.HERE.parent / "tests"))

GATE = "rules: [{measure: knn.accuracy, drop: 0.6}, {measure: geometry.effective_rank, floor: 1.2}]"
RECIPE = {"steps": 200, "width": 4, "size": 12, "batch_size": 8, "precision": "float32"}
SPAN = 15.0  # seconds within which the training is killed


def main() -> None:
    """Do it, and write the result file."""
    quick = common.arguments(__doc__ or "").quick
    kills = 4 if quick else 30
    rows, asks = [], []
    with tempfile.TemporaryDirectory(prefix="fastness-incidents-") as place:
        os.environ["FASTNESS_CACHE"] = f"{place}/cache"
        for name, done in _scenarios(Path(place), kills).items():
            began = time.perf_counter()
            wrong, asked = done()
            seconds = round(time.perf_counter() - began, 1)
            rows.append({"what": name, "seconds": seconds, "wrong": len(wrong), "said": wrong[:5]})
            asks.append(common.ask(name, asked, wrong[0] if wrong else "so it was", not wrong))
    common.save("incidents" + ("_quick" if quick else ""), rows, asks)


def _scenarios(place: Path, kills: int) -> dict[str, Any]:
    """Return what is done by what it is called; each returns what was wrong and what is asked."""
    import watched
    from conftest import write_classes

    def folder(name: str) -> Path:
        (place / name).mkdir()
        return place / name

    def monitors() -> tuple[list[str], str]:
        return watched.killed_monitors(folder("monitors"), kills), "no alarm is lost or doubled"

    def retrainings() -> tuple[list[str], str]:
        import fastness as fs

        home, data = folder("retrainings"), str(write_classes(place / "data", each=12))
        (home / "gate.yaml").write_text(GATE)
        old = fs.train(data, out=home / "old", quiet=True, **{**RECIPE, "steps": 2}).folder / "bundle"
        evaluate = {"data": data, "checks": ["knn", "geometry"]}
        plan = {"name": "photos", "data": data, "train": RECIPE, "evaluate": evaluate}
        plan |= {"gate": str(home / "gate.yaml"), "alias": "production"}
        return watched.killed_retrainings(home, old, plan, kills, SPAN), "one release, whole, and nothing else"

    def alertmanager() -> tuple[list[str], str]:
        return watched.alarms_told(folder("alertmanager"), str(program)), "told once, and its end once"

    program = watched.alertmanager()
    found = {f"{kills} kills of the monitor": monitors, f"{kills} kills of monitor and retraining": retrainings}
    if program is not None:
        found["a hundred alarming windows to Alertmanager"] = alertmanager
    return found


if __name__ == "__main__":
    main()
