"""Options of methods and losses: a default, what is allowed, and a refusal that says so."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastness.core.errors import BadInput

Value = bool | int | float | str


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        default: its value if nothing else is asked; values must be of its type.
        low, high: the least and the greatest value of a number; ``high`` itself is allowed.
        choices: the values that a text may have; empty for any.
        help: what it means, in a few words.
    """

    default: Value
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()
    help: str = ""

    def checked(self, name: str, value: Any) -> Value:
        """Return ``value``.

        Raises:
            BadInput: it is of another type or not allowed.
        """
        kind = type(self.default)
        kinds = (int, float) if kind is float else (kind,)
        if type(value) not in kinds:
            words = {bool: "true or false", int: "a whole number", float: "a number", str: "a name"}[kind]
            raise BadInput(f"option {name} = {value!r} should be {words}")
        if isinstance(value, str) and self.choices and value not in self.choices:
            raise BadInput(f"option {name} = {value!r}; known: {', '.join(self.choices)}")
        if not isinstance(value, str) and not (math.isfinite(value) and self.low <= value <= self.high):
            allowed = f"{self.low:g} to {self.high:g}" if math.isfinite(self.high) else f"{self.low:g} or more"
            raise BadInput(f"option {name} = {value} is out of range; give {allowed}")
        return float(value) if kind is float else value


def settle(owner: str, options: Mapping[str, Option], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a value for each option: the given one, else its default.

    Raises:
        BadInput: ``given`` has a name that is no option, or a value that is not allowed.
    """
    for name in given:
        if name not in options:
            raise BadInput(f"{owner} has no option '{name}'; it has: {', '.join(options) or 'none'}")
    return {name: o.checked(name, given[name]) if name in given else o.default for name, o in options.items()}
