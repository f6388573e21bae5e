"""Abstain: the heads of the service answer nothing until the incident is over."""

from __future__ import annotations

import sqlalchemy as sa

from fastness.monitoring.actions import ACTIONS, Doing, Outcome
from fastness.registry.controls import ABSTAIN, controlled
from fastness.registry.outbox import END, elsewhere


@ACTIONS.register("abstain")
def abstain(doing: Doing) -> Outcome:
    """Set the control that services read, or take it back if no other incident needs it."""
    about, action = doing.incident, doing.action

    def change(connection: sa.Connection) -> None:
        over = action.phase == END
        if over and elsewhere(connection, about.name, about.alias, ABSTAIN, about.id):
            return
        value = None if over else doing.why
        controlled(connection, about.name, about.alias, ABSTAIN, value, doing.by)

    said = "heads answer again" if action.phase == END else "heads abstain"
    return Outcome("done", f"{said} at {about.name}@{about.alias}", within=change)
