"""The one hierarchy of errors; each message says what was wrong, where, and what to do."""

from __future__ import annotations


class FastnessError(Exception):
    """Something went wrong that a user can understand; the command line prints it in one line."""

    exit_code = 1


class BadInput(FastnessError):
    """The user's data, option or file is not usable; the message names it and the remedy."""

    exit_code = 2


class Failure(FastnessError):
    """The work itself failed (full disk, loss not finite, …) although the input was good."""

    exit_code = 1


class GateRefused(FastnessError):
    """A policy said no."""

    exit_code = 3
