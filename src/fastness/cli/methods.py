"""``fastness methods``."""

from __future__ import annotations

from typing import Any

from fastness.cli import options


def methods(json: options.Json = False) -> None:
    """List every method: what it does, its paper, what it costs, when to take it; and the losses."""
    from fastness.losses import LOSSES
    from fastness.methods import METHODS

    listed = [
        {"name": name, **vars(METHODS.get(name).about), "options": _options(METHODS.get(name))} for name in METHODS
    ]
    losses = [{"name": name, "line": _line(LOSSES.get(name)), "options": _options(LOSSES.get(name))} for name in LOSSES]
    if json:
        options.print_json({"methods": listed, "losses": losses})
        return
    for method in listed:
        print(f"{method['name']:<12} {method['line']}")
        for field in ("paper", "cost", "when"):
            print(f"{'':<12} {field + ':':<6} {method[field]}")
        print()
    print(f"losses for --loss ({', '.join(m['name'] for m in listed if 'loss' in m['options'])}):")
    for loss in losses:
        print(f"{loss['name']:<18} {loss['line']}")
    print("\noptions (--option NAME=VALUE): fastness methods --json")


def _line(kind: type) -> str:
    return (kind.__doc__ or "").partition("\n")[0]


def _options(kind: Any) -> dict[str, dict[str, Any]]:
    return {name: {"default": o.default, "help": o.help} for name, o in kind.options.items()}
