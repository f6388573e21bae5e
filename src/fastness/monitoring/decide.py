"""What a judged window means: incidents are opened and closed, and what is due about them is written down.

All of it in the transaction that writes the window down: a monitor that is killed anywhere has done all of it or
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from fastness.monitoring.policy import Abstain, Notify, Policy, Retrain
from fastness.registry import incidents, outbox, watched
from fastness.registry.incidents import Incident
from fastness.registry.moves import number_at, pointed
from fastness.registry.says import moment, now
from fastness.registry.watched import Watched

BY = "fastness monitor"
"""Who it is that writes into timelines and logs."""

_HOUR = 3_600_000_000  # microseconds
BACK = 64
"""Windows that are looked back at least, of those in which a signal was judged: some are of other versions."""


def decided(connection: sa.Connection, policy: Policy, found: Watched, *, late: bool = False) -> list[Incident] | None:
    """Write down that windows were judged, and all that follows; return the incidents that were opened.

    Args:
        connection: that writes alone.
        policy: what counts and what is done.
        found: the windows, and what was found.
        late: whether it was long before the newest window that waits to be judged. Of what is wrong is then told, and
            no more is done: what was hours ago, while no monitor looked, may be mended by now.

    Returns:
        ``None`` if somebody else has judged any of the windows meanwhile; then nothing is written.
    """
    if not watched.entered(connection, found):
        return None
    known = incidents.still_open(connection, found.name, found.alias)
    fresh = []
    for signal, settings in policy.signals.named().items():
        own = known.get(signal)
        if found.alarmed(signal) is None or (own is None and not found.alarmed(signal)):
            continue
        past = watched.newest(connection, found.name, found.alias, max(BACK, 4 * policy.longest), signal)
        if found.alarmed(signal):
            lasting = persists(past, found.version, signal, settings.persist)
            was = own
            own = _alarmed(connection, found, signal, own, lasting)
            if own is None:
                continue
            fresh += [own] if was is None or was.id != own.id else []
            _act(connection, policy, past, found, own, late)
        elif own is not None and _healthy(past, own, policy.healthy):
            incidents.closed(connection, own, f"healthy again: {policy.healthy} windows without alarm", by=BY)
    for signal, own in known.items():
        if signal not in policy.signals.named():
            incidents.closed(connection, own, f"the policy watches {signal} no more", by=BY)
    return fresh


def persists(past: Sequence[Watched], version: str, signal: str, of: tuple[int, int]) -> bool:
    """Whether a signal alarmed in so many of the last so many windows of a version.

    Args:
        past: the newest first.
        version, signal: of what.
        of: how many of how many; windows in which it could not be judged are passed over, and those of several
            processes that ended at the same time are one.
    """
    return sum(_alarms([w for w in past if w.version == version], signal)[: of[1]]) >= of[0]


def _alarms(past: Sequence[Watched], signal: str) -> list[bool]:
    """Return whether a signal alarmed, of every moment at which windows ended that had something to say of it."""
    found: dict[int, bool] = {}
    for watched_ in past:
        alarm = watched_.alarmed(signal)
        if alarm is not None:
            found[watched_.end] = found.get(watched_.end, False) or alarm
    return list(found.values())


def _alarmed(
    connection: sa.Connection, found: Watched, signal: str, own: Incident | None, lasting: bool
) -> Incident | None:
    """Return the incident that an alarm belongs to, opened if need be; ``None`` if there is none (yet)."""
    if own is not None and own.version == found.version:
        incidents.seen(connection, own, found.end)
        return own
    if not lasting:
        return None
    serves = number_at(connection, found.name, found.alias)
    if own is not None:
        if found.version != f"{found.name}@{serves}":  # a window that comes late says nothing of what serves now
            return None
        incidents.closed(connection, own, f"{own.version} serves no more, and {found.version} alarms too", by=BY)
    said = found.verdict[signal]
    row = {
        "name": found.name,
        "alias": found.alias,
        "kind": signal,
        "key": signal,
        "version": found.version,
        "opened": found.end,
        "title": f"{signal} at {found.name}@{found.alias} ({found.version}): {said['said']}",
    }
    detail = {"windows": list(found.windows), "start": found.start, "end": found.end, **said}
    return incidents.opened(connection, row, detail, BY)


def _healthy(past: Sequence[Watched], own: Incident, windows: int) -> bool:
    """Whether so many windows in a row, after the last that alarmed, did not."""
    said = _alarms([w for w in past if w.end > own.seen], own.kind)
    return len(said) >= windows and not any(said[:windows])


def _act(
    connection: sa.Connection, policy: Policy, past: Sequence[Watched], found: Watched, own: Incident, late: bool
) -> None:
    """Plan what the policy wants done about an incident now."""
    begun = outbox.planned(connection, own.id)
    for action in policy.actions:
        if (action.on is not None and own.kind not in action.on) or (late and not isinstance(action, Notify)):
            continue
        before = [done for done in begun if done.action == action.called]
        if before and (not isinstance(action, Retrain) or before[-1].open):
            continue  # only another training may be better than the last
        if not persists(past, found.version, own.kind, action.after):
            continue
        if why := _held(connection, found, action):
            if not incidents.told(connection, own.id, "held", why):
                incidents.happened(connection, own.id, "held", why, by=BY)
            continue
        ends = isinstance(action, Notify | Abstain)
        outbox.plan(connection, own.id, action.called, ends=ends)
        incidents.happened(connection, own.id, "planned", action.called, by=BY)


def _held(connection: sa.Connection, found: Watched, action: Any) -> str:
    """Return why an action has to wait, empty if it need not."""
    times = [at for at in outbox.times(connection, found.name, found.alias, action.called) if at <= now()]
    if isinstance(action, Retrain):
        serves = number_at(connection, found.name, found.alias)
        for alias, move in pointed(connection, found.name, BY).items():
            of = re.match(r"incident (\d+): ", move.why)
            own = of is not None and incidents.alias_of(connection, int(of[1])) == found.alias
            if own and move.what == "promote" and alias != found.alias and move.number != serves:
                return f"{action.called}: {found.name}@{move.number}, which the last one made, is on trial at {alias}"
    if action.cooldown and times and now() - times[0] < action.cooldown * _HOUR:
        return f"{action.called} cools down: the last one was at {moment(times[0])}"
    if action.budget is not None:
        within = [at for at in times if now() - at < action.budget.days * 24 * _HOUR]
        if len(within) >= action.budget.times:
            return f"{action.called}: {len(within)} in {action.budget.days:g} days, which is all that is allowed"
    return ""
