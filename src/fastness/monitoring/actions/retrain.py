"""Retrain: a pipeline runs in a process of its own, goes on where it was if it is killed, and outlives the monitor.

Nothing is remembered of the process but its folder. It holds its log's lock from its first moment to its last, and
``ci.json`` says how it ended, so that a monitor that was started anew knows what another one began.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from fastness.core.files import disk_errors
from fastness.monitoring.actions import ACTIONS, Doing, Outcome
from fastness.registry.registry import ADDRESS
from fastness.registry.says import moment

_RECORD, _LOCK = "ci.json", ".lock"  # of fastness.ci
_LINES = 3  # of what it wrote, in a message


@ACTIONS.register("retrain")
def retrain(doing: Doing) -> Outcome:
    """Start the pipeline, or see how far it is."""
    about, settings = doing.incident, doing.settings
    opened = moment(about.opened)[:19].replace(" ", "T").replace(":", "")
    called = f"{about.name}-{about.alias}-incident-{about.id}-{opened}-{doing.action.number}"
    folder = Path(settings.out).absolute() / called
    process = doing.running.get(str(folder))
    if (process is not None and process.poll() is None) or _held(_log(folder)) or _held(folder / _LOCK):
        return Outcome("wait", f"{settings.plan} runs in {folder}", seconds=settings.timeout, counted=False)
    doing.running.pop(str(folder), None)
    record = _record(folder)
    if record.get("state") == "done":
        steps = {step["step"]: step["result"]["said"] for step in record["steps"]}
        return Outcome("done", f"{settings.plan}: {'; '.join(steps.values())}", {"folder": str(folder), "steps": steps})
    if record.get("state") == "refused":
        return Outcome("failed", f"{settings.plan}: {_error(record)}", {"folder": str(folder)})
    ended = f"{settings.plan} ended{'' if process is None else f' ({process.returncode})'}: {_told(folder)}"
    if doing.action.attempts > settings.attempts:  # each was a start
        return Outcome("failed", f"given up after {settings.attempts} attempts: {ended}")
    if process is not None:
        return Outcome("retry", ended, counted=False)
    if not record and about.version != f"{about.name}@{doing.registry.now_at(about.name, about.alias)}":
        return Outcome("failed", f"{about.version} serves no more at {about.name}@{about.alias}; nothing to mend")
    doing.running[str(folder)] = _started(folder, doing)
    return Outcome("wait", f"{settings.plan} runs in {folder}", seconds=settings.timeout)


def _started(folder: Path, doing: Doing) -> subprocess.Popen[bytes]:
    """Start the pipeline; it is not ended with the monitor."""
    words = ["ci", doing.settings.plan, "--out", str(folder), "--why", doing.why, "--by", doing.by]
    environment = {**os.environ, ADDRESS: doing.registry.address}
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _log(folder).open("a+b") as log:
            fcntl.flock(log, fcntl.LOCK_SH)  # what is opened is handed on, and the lock with it
            return subprocess.Popen(
                [sys.executable, "-m", "fastness", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )


def _held(path: Path) -> bool:
    """Whether a process holds the file's lock; it is opened as NFS wants it for a lock that nobody shares."""
    if not path.exists():
        return False
    with path.open("r+b") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _record(folder: Path) -> dict[str, Any]:
    """Return what the pipeline has written down, nothing if it has not come to that."""
    path = folder / _RECORD
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _error(record: dict[str, Any]) -> str:
    return next((str(step["error"]) for step in record["steps"] if step["error"]), "")


def _log(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.log")


def _told(folder: Path) -> str:
    """Return the last lines that it wrote."""
    lines = _log(folder).read_text(encoding="utf-8", errors="replace").splitlines() if _log(folder).exists() else []
    return " / ".join(lines[-_LINES:])[-500:]
