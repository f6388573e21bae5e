"""What is done about incidents: one file an action, each of which stands being done again.

An action is taken up from the outbox of the registry, perhaps a second time because its doer was killed before it could
say that it was done. So each sees first whether that is so: a rollback by the log, a pipeline by its record; a message
has an identity by which its receiver knows it again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from subprocess import Popen
from typing import Any, Literal

import sqlalchemy as sa

from fastness.core.registry import Registry as Names
from fastness.registry import Registry
from fastness.registry.incidents import Incident
from fastness.registry.outbox import Action


@dataclass(frozen=True)
class Doing:
    """An action that is being done.

    Attributes:
        registry: in which it is written down.
        incident: about what, as it is now.
        action: what was claimed.
        settings: of the policy.
        running: processes that this monitor has started, by the folder in which they work.
        by: who does it.
    """

    registry: Registry
    incident: Incident
    action: Action
    settings: Any
    running: dict[str, Popen[bytes]]
    by: str

    @property
    def why(self) -> str:
        """What logs say of it; begins with what no other incident's begins with."""
        return f"{self.incident}: {self.incident.title}"


@dataclass(frozen=True)
class Outcome:
    """How an action ended.

    Attributes:
        state: ``done``; ``failed``, for good; ``retry``, it may yet succeed; or ``wait``, it goes on by itself.
        said: in words.
        detail: more, as JSON values.
        seconds: of ``wait``: when to look again. Of ``done``: after which time to do it again if the incident is not
            over by then, ``None`` for never.
        within: is done in the transaction in which it is settled.
        counted: whether this was one of the attempts that an action has.
    """

    state: Literal["done", "failed", "retry", "wait"]
    said: str
    detail: dict[str, Any] | None = None
    seconds: float | None = None
    within: Callable[[sa.Connection], None] | None = field(default=None, compare=False)
    counted: bool = True


Does = Callable[[Doing], Outcome]
"""Does an action. `BadInput` ends it for good; after a `Failure` it is tried again."""

ACTIONS: Names[Does] = Names(
    "action",
    __name__,
    {"notify": "notify", "abstain": "abstain", "rollback": "rollback", "retrain": "retrain"},
)
