"""Registration: a name, a thing, and a helpful refusal when the name is unknown."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from fastness.core.errors import BadInput

T = TypeVar("T")


class Registry(Generic[T]):
    """The things of one kind, by name.

    Args:
        kind: what they are called in messages, e.g. ``"method"``.
        package: the package whose modules register themselves.
        modules: name -> module of that package. A module is imported when its thing is asked for, so a
            long list costs nothing at start-up. One line here is all that a new thing needs.
    """

    def __init__(self, kind: str, package: str, modules: dict[str, str]) -> None:
        self.kind = kind
        self._package = package
        self._modules = dict(modules)
        self._things: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that enters its subject under ``name``; said again, the same definition replaces itself.

        Raises:
            ValueError: from the decorator, if something else has that name.
        """

        def enter(thing: T) -> T:
            if name in self._things and _origin(self._things[name]) != _origin(thing):
                raise ValueError(f"two things are registered as {self.kind} '{name}'; rename one")
            self._things[name] = thing
            return thing

        return enter

    def get(self, name: str) -> T:
        """Return the thing called ``name``.

        Raises:
            BadInput: no such name; the message lists the nearest and all known ones.
        """
        if name not in self._things and name in self._modules:
            module = f"{self._package}.{self._modules[name]}"
            importlib.import_module(module)
            if name not in self._things:
                raise LookupError(f"{module} registers no {self.kind} '{name}'; put @….register({name!r}) there")
        if name not in self._things:
            near = difflib.get_close_matches(name, list(self), n=1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise BadInput(f"unknown {self.kind} '{name}'; {hint}known: {', '.join(self)}")
        return self._things[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._modules, *self._things]))

    def __contains__(self, name: object) -> bool:
        return name in self._modules or name in self._things


def _origin(thing: object) -> tuple[str, str]:
    """Return where a thing was defined: run again, as in a notebook, the same place defines it anew."""
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    return str(thing.__module__), str(named.__qualname__)
