"""Switches under load and kills at random moments: is a request ever failed, an answer mixed, or anything lost?

Three versions of a small encoder of texts, each with an index of its own. Clients ask for embeddings and for searches
over connections that are kept, without pause, and hold every answer against what its version and its index say by
themselves. Beside them an alias is moved to and fro and back; a service, the making of an index, and who writes to the
registry are killed (SIGKILL) at random moments. What is done is in ``tests/scenarios.py``; tests do it a few times.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import common

sys.path.append(str(common.HERE.parent / "tests"))


def row(name: str, done: Any) -> dict[str, Any]:
    """Return what came of a scenario."""
    found: dict[str, Any] = {"what": name, **done.times, "right_answers": sum(done.answered.values())}
    found |= {"wrong_or_failed": len(done.wrong), "broken": len(done.broken), "said": [*done.wrong, *done.broken][:5]}
    for said, seconds in (("request_ms", done.seconds), ("until_switched_ms", done.switched)):
        if seconds:
            for share in (0.5, 0.99):
                found[f"{said}_p{100 * share:.0f}"] = round(1000 * float(np.quantile(seconds, share)), 1)
    return found


def main() -> None:
    """Do it, and write the result file."""
    quick = common.arguments(__doc__ or "").quick
    switches, rollbacks, kills = (20, 5, 5) if quick else (100, 20, 50)
    with tempfile.TemporaryDirectory(prefix="fastness-switching-") as place:
        os.environ["FASTNESS_CACHE"] = f"{place}/cache"
        rows = _rows(Path(place), switches, rollbacks, kills)
    asks = [
        common.ask(
            f"{switches} switches and {rollbacks} rollbacks under load",
            "no failed request, no mixed answer",
            f"{rows[0]['right_answers']:,} answers right, {rows[0]['wrong_or_failed']} failed or mixed",
            rows[0]["wrong_or_failed"] + rows[0]["broken"] == 0,
        )
    ]
    asks += [
        common.ask(
            f"{kills} {found['what']}",
            "nothing acknowledged is lost, what serves is whole",
            f"{found['wrong_or_failed'] + found['broken']} wrong",
            found["wrong_or_failed"] + found["broken"] == 0,
        )
        for found in rows[1:]
    ]
    common.save("switching" + ("_quick" if quick else ""), rows, asks)


def _rows(place: Path, switches: int, rollbacks: int, kills: int) -> list[dict[str, Any]]:
    import scenarios
    import served
    from fastness.registry import Registry

    made = served.make_words(place / "words", 3)

    def registry(name: str) -> Registry:
        opened = Registry(place / name)
        served.release(opened, made, scenarios.NAME)
        return opened

    rows = []
    with registry("switches") as opened:
        truth = served.Truth.of(opened, scenarios.NAME, served.sentences(8, seed=5))
        assert truth.distinct()
        done = scenarios.switches_under_load(opened, truth, place / "log-switches", switches, rollbacks)
        rows.append(row("switches under load", done))
    with registry("services") as opened:
        rows.append(
            row("kills of the service", scenarios.killed_services(opened, truth, place / "log-services", kills))
        )
    with registry("rebuilds") as opened:
        done = scenarios.killed_rebuilds(opened, made[0], truth, place / "log-rebuilds", kills)
        rows.append(row("kills of an index rebuild", done))
    with registry("writers") as opened:
        done = scenarios.killed_writers(opened, made[0], place / "log-writers", kills)
        rows.append(row("kills of a registry writer", done))
    return rows


if __name__ == "__main__":
    main()
