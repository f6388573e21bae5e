"""Rollback: the alias names the version again that it named before."""

from __future__ import annotations

from fastness.monitoring.actions import ACTIONS, Doing, Outcome

_LOOKED = 100  # moves back in the log


@ACTIONS.register("rollback")
def rollback(doing: Doing) -> Outcome:
    """Move the alias, unless it was done already or the alias names another version by now."""
    about, registry = doing.incident, doing.registry
    mark = f"{about}: "
    for move in registry.log(about.name, about.alias, _LOOKED):
        if move.what == "rollback" and move.why.startswith(mark):
            return Outcome("done", f"{about.name}@{about.alias} is version {move.number} again", {"move": move.id})
    now = registry.now_at(about.name, about.alias)
    if now is None:
        return Outcome("failed", f"{about.name}@{about.alias} names nothing by now")
    if about.version != f"{about.name}@{now}":  # another incident's rollback, say, or somebody's
        return Outcome("done", f"{about.name}@{about.alias} is version {now} by now, not {about.version}")
    move = registry.rollback(about.name, about.alias, why=doing.why, by=doing.by, expected=now)
    return Outcome("done", f"{about.name}@{about.alias} is version {move.number} again", {"move": move.id})
