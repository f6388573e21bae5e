"""The policy of a monitor: what counts as wrong, how long it must last, and what is then done."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, model_validator

from fastness.core.errors import BadInput

_OF = re.compile(r"\s*(\d{1,4})\s+of\s+(\d{1,4})\s*")


def _of(value: Any) -> Any:
    """Return ``2 of 3`` as numbers; a whole number means all of so many."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = f"{value} of {value}"
    found = _OF.fullmatch(value) if isinstance(value, str) else None
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError("say how many windows of how many, '2 of 3' say")
    return int(found[1]), int(found[2])


Persistence = Annotated[tuple[int, int], BeforeValidator(_of), PlainSerializer(lambda of: f"{of[0]} of {of[1]}")]
"""So many of the last so many windows."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Signal(_Section):
    """What makes a signal alarm.

    Attributes:
        level: chance of a false alarm in a window.
        persist: how many of the last windows of a version must alarm until there is an incident.
    """

    level: float = Field(0.001, gt=0, lt=0.5)
    persist: Persistence = (1, 1)


class Drift(Signal):
    """Whether the embeddings, and what is known of the items, are still those of the version's reference sketch.

    Attributes:
        level: 0.0001 at least: it takes 20 permutations to the level. Whoever wants fewer false alarms has ``persist``.
        tests: names of tests; default: all.
        slices: conditions (``vendor == 'x'``), each judged too.
        floors: by test the smallest effect that counts, in its own unit.
    """

    level: float = Field(0.01, ge=1e-4, lt=0.5)
    tests: list[str] | None = None
    slices: list[str] = []
    floors: dict[str, Annotated[float, Field(ge=0)]] = {}

    @model_validator(mode="after")
    def _known(self) -> Drift:
        from fastness.monitoring.drift.pooled import DRIFT

        if unknown := [name for name in (*(self.tests or ()), *self.floors) if name not in [*DRIFT]]:
            raise ValueError(f"no test '{unknown[0]}'; there are {', '.join(DRIFT)}")
        if self.tests == []:
            raise ValueError("tests: names none; leave it out for all")
        return self


class Rate(Signal):
    """Whether a share of requests is higher than it may be.

    Attributes:
        ceiling: the share that is allowed.
    """

    ceiling: float = Field(0.01, ge=0, lt=1)


class Usual(Signal):
    """Whether a share of items is higher than in the version's reference.

    Attributes:
        more: by how much it must be, at least.
    """

    more: float = Field(0.0, ge=0, lt=1)


class Missing(Usual):
    """Whether more is missing of what is known of items.

    Attributes:
        columns: that must be there: an item has nothing in one that is not there at all.
    """

    columns: list[str] = []


class Outliers(Usual):
    """Whether more items than usual are like nothing that the head was fitted on.

    Attributes:
        beyond: share of the reference's items that are less novel than an outlier.
    """

    beyond: float = Field(0.99, gt=0, lt=1)


class Latency(Signal):
    """Whether too many requests are slow.

    Attributes:
        seconds: what is slow.
        ceiling: the share of requests that may be.
    """

    seconds: float = Field(1.0, gt=0, le=50)
    ceiling: float = Field(0.05, ge=0, lt=1)


class Collapse(_Section):
    """Whether the embeddings no longer tell items apart.

    Attributes:
        rank: share of the reference's effective rank that must be left.
        persist: see `Signal`.
    """

    rank: float = Field(0.5, gt=0, lt=1)
    persist: Persistence = (1, 1)


class Accuracy(_Section):
    """Whether answers are worse than they were, by labels that came later or estimated without any.

    Attributes:
        drop: how much worse they may be than on the reference.
        floor: how good they must be.
        level: of the interval that must lie beyond the limit.
        persist: see `Signal`.
    """

    drop: float | None = Field(None, ge=0, lt=1)
    floor: float | None = Field(None, ge=0, le=1)
    level: float = Field(0.99, gt=0.5, lt=1)
    persist: Persistence = (1, 1)

    @model_validator(mode="after")
    def _says_something(self) -> Accuracy:
        if self.drop is None and self.floor is None:
            raise ValueError("says no limit; give drop or floor")
        return self


class Labels(Accuracy):
    """Whether answers were wrong too often, by labels that came later; judged whenever new ones have come.

    Attributes:
        days: of answers that count, before the window's end.
    """

    days: float = Field(7, gt=0)


class Signals(_Section):
    """What is watched; a signal that is left out is not."""

    drift: Drift | None = None
    errors: Rate | None = None
    refused: Rate | None = None
    latency: Latency | None = None
    undecodable: Rate | None = None
    outliers: Outliers | None = None
    abstained: Usual | None = None
    missing: Missing | None = None
    collapse: Collapse | None = None
    estimate: Accuracy | None = None
    labels: Labels | None = None

    def named(self) -> dict[str, Any]:
        """Return those that are watched, by name."""
        every: dict[str, Any] = {
            "drift": self.drift,
            "errors": self.errors,
            "refused": self.refused,
            "undecodable": self.undecodable,
            "latency": self.latency,
            "outliers": self.outliers,
            "abstained": self.abstained,
            "missing": self.missing,
            "collapse": self.collapse,
            "estimate": self.estimate,
            "labels": self.labels,
        }
        return {name: settings for name, settings in every.items() if settings is not None}


class Budget(_Section):
    """How often at most: so many times in so many days, whatever the incident."""

    times: int = Field(ge=1)
    days: float = Field(gt=0)


class _Action(_Section):
    """What all actions share.

    Attributes:
        name: tells actions of a kind apart.
        on: signals; default: all that are watched.
        after: how many of the last windows of the version must have alarmed.
        cooldown: hours that must lie between two of them.
        budget: how often at most.
        attempts: how often it is tried until it is given up.
        pause: seconds until it is tried again; twice as long each time, a quarter of an hour at most.
        timeout: seconds that one step of it may take.
    """

    name: str = Field("", pattern=r"[a-z0-9._-]{0,32}", max_length=32)
    on: list[str] | None = Field(None, min_length=1)
    after: Persistence = (1, 1)
    cooldown: float = Field(0, ge=0)
    budget: Budget | None = None
    attempts: int = Field(50, ge=1)
    pause: float = Field(5, gt=0)
    timeout: float = Field(10, gt=0)

    @property
    def called(self) -> str:
        """How it is called in incidents."""
        do = str(getattr(self, "do", ""))
        return f"{do}/{self.name}" if self.name else do


class Notify(_Action):
    """Say it to somebody.

    Attributes:
        to: ``alertmanager`` (Prometheus', its API v2), ``webhook`` (JSON with a ``text``, as Slack and others take
            it) or ``mail``.
        url: of Alertmanager (``http://host:9093``) or of the webhook; ``$NAME`` stands for an environment variable.
        labels: more labels of the alert.
        repeat: hours after which an alert that goes on is said again to Alertmanager, which forgets when it restarts.
        server: ``host:port`` that takes mail.
        sender, receivers: of the mail.
        user: at the server; the password stands in the environment variable ``FASTNESS_SMTP_PASSWORD``.
        tls: encrypt the way to the server (STARTTLS).
    """

    do: Literal["notify"]
    attempts: int = Field(1000, ge=1)  # ten days: who is to be told may be there again on Monday
    to: Literal["alertmanager", "webhook", "mail"]
    url: str | None = None
    labels: dict[str, str] = {}
    repeat: float = Field(1, gt=0)
    server: str | None = None
    sender: str | None = None
    receivers: list[str] = []
    user: str | None = None
    tls: bool = False

    @property
    def called(self) -> str:
        """How it is called in incidents."""
        return f"notify/{self.name or self.to}"

    @model_validator(mode="after")
    def _knows_where(self) -> Notify:
        wanted = ("server", "sender", "receivers") if self.to == "mail" else ("url",)
        if absent := [field for field in wanted if not getattr(self, field)]:
            raise ValueError(f"to {self.to} needs {' and '.join(absent)}")
        return self


class Abstain(_Action):
    """Let the service's heads abstain until the incident is over."""

    do: Literal["abstain"]


class Rollback(_Action):
    """Let the alias name the version again that it named before, if it still names the one that alarms."""

    do: Literal["rollback"]
    attempts: int = Field(10, ge=1)


class Retrain(_Action):
    """Run a pipeline, which trains, judges and releases; see docs/ci.md.

    Attributes:
        plan: file of ``fastness ci``.
        out: folder in which each run gets one of its own.
        timeout: seconds between two looks at how far it is.
    """

    do: Literal["retrain"]
    plan: str
    out: str = "retrained"
    attempts: int = Field(5, ge=1)


Does = Annotated[Notify | Abstain | Rollback | Retrain, Field(discriminator="do")]


class Policy(_Section):
    """What is watched and what is done.

    Attributes:
        signals: what is watched.
        least: items and requests of windows that are judged together; windows with less wait for the next.
        healthy: how many windows in a row must not alarm until an incident is closed.
        actions: what is done about incidents, in this order.
    """

    signals: Signals
    least: int = Field(200, ge=1)
    healthy: int = Field(3, ge=1)
    actions: list[Does] = []

    @model_validator(mode="after")
    def _fits_together(self) -> Policy:
        watched = self.signals.named()
        if not watched:
            raise ValueError("signals: watches nothing; give some of " + ", ".join(Signals.model_fields))
        for action in self.actions:
            if unknown := [name for name in action.on or () if name not in watched]:
                raise ValueError(f"{action.called}: on '{unknown[0]}', which is not watched: {', '.join(watched)}")
        names = [action.called for action in self.actions]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two actions are called {twice[0]}; give them names")
        return self

    @property
    def longest(self) -> int:
        """How many windows back it looks."""
        asked: list[int] = [signal.persist[1] for signal in self.signals.named().values()]
        return max(self.healthy, *asked, *(action.after[1] for action in self.actions))

    def action(self, called: str) -> Notify | Abstain | Rollback | Retrain | None:
        """Return the action that incidents call so, ``None`` if there is none any more."""
        return next((action for action in self.actions if action.called == called), None)

    @classmethod
    def load(cls, path: str | Path) -> Policy:
        """Read a policy from a YAML file.

        Raises:
            BadInput: in one line, which field is wrong and what is allowed.
        """
        try:
            values = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)
            return cls.model_validate(values)
        except OSError as error:
            raise BadInput(f"{path}: {error.strerror}; give a monitor's policy, see docs/watching.md") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise BadInput(f"{path}: no YAML ({' '.join(str(error).split())[:200]})") from None
        except ValidationError as error:
            raise BadInput(f"{path}: {_said(error)}") from None


class _Loader(yaml.SafeLoader):
    """Reads YAML in which ``on`` is a word, as in 1.2; in 1.1 it is a truth value, and no key."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in known if tag != "tag:yaml.org,2002:bool" or first in "tTfF"]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _said(error: ValidationError) -> str:
    """Return which field is wrong and what is allowed."""
    first = error.errors()[0]
    place = ".".join(str(part + 1 if isinstance(part, int) else part) for part in first["loc"])
    said = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        said = "unknown field; see docs/watching.md"
    return f"{place or 'policy'}: {said}"
