"""Notify: an incident's beginning and end are said to Alertmanager, a webhook or by mail.

A message that was sent and could not be written down as sent is sent again, as the same message: Alertmanager knows an
alert by its labels, a webhook a request by its ``Idempotency-Key``, a mailbox a mail by its ``Message-ID``.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import smtplib
import urllib.error
import urllib.request
from email.message import EmailMessage
from typing import Any

from fastness.core.errors import BadInput, Failure
from fastness.monitoring.actions import ACTIONS, Doing, Outcome
from fastness.registry.outbox import BEGIN, END
from fastness.registry.says import moment, now

PASSWORD = "FASTNESS_SMTP_PASSWORD"
"""Environment variable: the password of the mail server's user."""

_VARIABLE = re.compile(r"\$(\w+|\{\w+\})")
_DAY, _HOUR = 86_400, 3_600  # seconds
_SECOND = 1_000_000  # microseconds


@ACTIONS.register("notify")
def notify(doing: Doing) -> Outcome:
    """Say that an incident is there, or that it is over."""
    settings = doing.settings
    try:
        told = {"alertmanager": _alert, "webhook": _post, "mail": _mail}[settings.to](doing)
    except (OSError, http.client.HTTPException, smtplib.SMTPException) as error:
        raise Failure(f"{doing.action.action}: {_reason(error)}") from error
    again = settings.repeat * _HOUR if settings.to == "alertmanager" and doing.action.phase != END else None
    return Outcome("done", f"{'end' if doing.action.phase == END else 'alarm'} told to {told}", seconds=again)


def _reason(error: Exception) -> str:
    """Return what went wrong, in a line."""
    if isinstance(error, urllib.error.HTTPError):
        return f"answered {error.code} {' '.join(error.read(300).decode('utf-8', 'replace').split())}"
    if isinstance(error, http.client.InvalidURL):  # it says the address, which is not to be kept
        return "the url is no address"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


class _Straight(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: what was posted would be asked for there, and be told to nobody."""

    def redirect_request(self, *given: Any) -> None:
        """Return nothing, so that the answer counts as an error."""


_STRAIGHT = urllib.request.build_opener(_Straight)


def _identity(doing: Doing) -> str:
    """Return what tells this message from any other, and is the same if it is sent again."""
    about, action = doing.incident, doing.action
    return f"fastness-{about.name}-{about.alias}-{about.id}-{about.opened}-{action.number}"


def _said(doing: Doing) -> str:
    """Return the message as a text."""
    about = doing.incident
    if doing.action.phase == END:
        return f"Over: {about.title}\n{about}, {about.times} windows, closed at {moment(about.closed or about.seen)}"
    return f"{about.title}\n{about}, since {moment(about.opened)}; fastness incident show {about.id}"


# -- Alertmanager ------------------------------------------------------------------------------------------------------


def _alert(doing: Doing) -> str:
    """Post an alert in the form of Alertmanager's API v2; it goes on for a day, or until its end is told."""
    about, settings = doing.incident, doing.settings
    labels = {**settings.labels, "alertname": f"fastness_{about.kind}", "encoder": about.name, "alias": about.alias}
    labels |= {"signal": about.kind, "version": about.version, "incident": str(about.id)}
    ends = now() + int(max(4 * settings.repeat * _HOUR, _DAY)) * _SECOND
    if doing.action.phase == END:
        ends = max(about.closed or 0, about.opened + _SECOND)  # an alert that ends before it began is refused
    alert = {
        "labels": labels,
        "annotations": {"summary": about.title, "description": _said(doing)},
        "startsAt": _rfc3339(about.opened),
        "endsAt": _rfc3339(ends),
    }
    _posted(f"{address(settings.url).rstrip('/')}/api/v2/alerts", [alert], doing)
    return "Alertmanager"


def _rfc3339(at: int) -> str:
    return moment(at).replace(" ", "T")


# -- a webhook ---------------------------------------------------------------------------------------------------------


def _post(doing: Doing) -> str:
    """Post a message as Slack and those that imitate it take it, with the figures beside the text."""
    about = doing.incident
    figures = {name: getattr(about, name) for name in ("id", "name", "alias", "kind", "version", "times", "title")}
    figures |= {"state": about.state, "opened": moment(about.opened), "seen": moment(about.seen)}
    _posted(address(doing.settings.url), {"text": _said(doing), "incident": figures}, doing)
    return "the webhook"


def address(url: str) -> str:
    """Return a URL with environment variables in their places.

    Raises:
        BadInput: it is no address then, or a variable is not set.
    """
    found = os.path.expandvars(url)
    if unset := [name for name in _VARIABLE.findall(url) if name.strip("{}") not in os.environ]:
        raise BadInput(f"url: the environment variable {unset[0].strip('{}')} is not set; set it, or write the address")
    if not found.startswith(("http://", "https://")):
        raise BadInput("url: is no http:// or https:// address, once its environment variables are in place")
    return found


def _posted(url: str, value: Any, doing: Doing) -> None:
    headers = {"Content-Type": "application/json", "Idempotency-Key": _identity(doing), "User-Agent": "fastness"}
    request = urllib.request.Request(url, json.dumps(value).encode(), headers, method="POST")
    with _STRAIGHT.open(request, timeout=doing.settings.timeout) as answer:
        answer.read(1)


# -- mail --------------------------------------------------------------------------------------------------------------


def _mail(doing: Doing) -> str:
    """Send a mail; that of the end is an answer to that of the beginning."""
    settings, about = doing.settings, doing.incident
    host, _, port = settings.server.partition(":")
    mail = EmailMessage()
    mail["From"], mail["To"] = settings.sender, ", ".join(settings.receivers)
    over = "Over: " if doing.action.phase == END else ""
    mail["Subject"] = f"{over}{about.kind} at {about.name}@{about.alias}, {about}"
    mail["Message-ID"] = f"<{_identity(doing)}@{host}>"
    if doing.action.phase != BEGIN:
        first = _identity(doing).rpartition("-")[0]
        mail["In-Reply-To"] = f"<{first}-1@{host}>"
    mail.set_content(_said(doing))
    with smtplib.SMTP(host, int(port or 25), timeout=settings.timeout) as server:
        if settings.tls:
            server.starttls()
        if settings.user:
            server.login(settings.user, os.environ.get(PASSWORD, ""))
        server.send_message(mail)
    return ", ".join(settings.receivers)
