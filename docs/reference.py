"""Write ``docs/reference.md``: the public face as one text, from signatures, docstrings and the verbs' own help.

``--check`` changes nothing and fails if the page is not what the code says.
"""

from __future__ import annotations

import html
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel

import fastness as fs
from fastness.corruptions import WORLDS
from fastness.delivery.forms import FORMS
from fastness.evaluation.checks import CHECKS
from fastness.losses import LOSSES
from fastness.methods import METHODS
from fastness.views import VIEWS

WIDTH = 100
PAGE = Path(__file__).resolve().parent / "reference.md"
VIEW_KINDS = dict.fromkeys(type(spec) for name in VIEWS for spec in getattr(VIEWS.get(name), "usual", ()))
PARTS = {
    "What is called": [f"fastness:{name}" for name in fs.__all__],
    "What comes back": [
        "fastness.data:Dataset",
        "fastness.training.run:Run",
        "fastness.bundle:Bundle",
        "fastness.evaluation.evaluate:Report",
        "fastness.evaluation.evidence:Evidence",
        "fastness.evaluation.measurement:Measurement",
        "fastness.evaluation.side_by_side:Compared",
        "fastness.evaluation.compare:Comparison",
        "fastness.evaluation.gate:Verdict",
        "fastness.tasks.search:Answers",
        "fastness.tasks.search:Hit",
        "fastness.delivery.export:Export",
        "fastness.delivery.parity:Parity",
    ],
    "What is written down": [
        "fastness.core.recipe:Recipe",
        *(f"{kind.__module__}:{kind.__name__}" for kind in VIEW_KINDS),
        "fastness.evaluation.gate:Policy",
        "fastness.evaluation.gate:Rule",
    ],
    "What is added to": [
        "fastness.data.sources:Source",
        "fastness.data.items:Items",
        "fastness.encoders:Spec",
        "fastness.encoders:Encoder",
        "fastness.encoders:Modality",
        "fastness.views:Views",
        "fastness.losses.base:Loss",
        "fastness.losses.pairs:Pairs",
        "fastness.methods:Method",
        "fastness.methods:Defaults",
        "fastness.methods:Known",
        "fastness.methods:Outcome",
        "fastness.evaluation.checks:Check",
    ],
}


def entry(address: str) -> list[str]:
    """Return the lines on one thing: how it is called, what it says of itself, and its public parts."""
    module, _, name = address.partition(":")
    thing = getattr(importlib.import_module(module), name)
    shown = f"fs.{name}" if module == "fastness" else name
    lines = [f"### `{shown}`", ""]
    if not inspect.isclass(thing):
        return [*lines, *_called(shown, thing), *_said(thing)]
    lines += _said(thing)
    if issubclass(thing, BaseModel):
        lines += _fields(thing)
    for part, value in vars(thing).items():
        if part.startswith("_") and part != "__getitem__":
            continue
        plain = getattr(value, "__func__", getattr(value, "fget", getattr(value, "func", value)))
        if inspect.isfunction(plain) and plain.__doc__:
            kind = "" if inspect.isfunction(value) or hasattr(value, "__func__") else " (a property)"
            signature = "" if kind else _signature(plain)
            lines += [f"- `{part}{signature}`{kind}: {_paragraph(plain)}"]
    return [*lines, ""]


def _fields(model: type[BaseModel]) -> list[str]:
    """Return a table of a model's fields."""
    lines = ["| field | type | if not given | |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        kind = _kind(field.annotation).replace("typing.", "").replace("|", "\\|")
        given = "needed" if field.is_required() else f"`{field.get_default(call_default_factory=True)}`"
        lines.append(f"| `{name}` | {kind} | {given} | {field.description or ''} |")
    return [*lines, ""]


def _kind(annotation: Any) -> str:
    """Return a type without what else is said of its values."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(inner[0])
    if origin is tuple:
        return f"tuple[{', '.join(map(_kind, inner))}]"
    return inspect.formatannotation(annotation)


def named() -> list[str]:
    """Return tables of what is chosen by its name."""
    lines = ["### Methods", "", "| `--method` | | learns from | `--option` |", "|---|---|---|---|"]
    for name in METHODS:
        kind = METHODS.get(name)
        needs = " or ".join(kind.needs) or ("sides" if kind.sides > 1 else "items alone")
        about = f"{kind.about.line}; {kind.about.when} ({kind.about.paper})"
        lines.append(f"| `{name}` | {about} | {needs} | {_options(kind)} |")
    lines += ["", "### Losses", "", "| `--loss` | | `--option` |", "|---|---|---|"]
    lines += [f"| `{name}` | {_first(LOSSES.get(name))} | {_options(LOSSES.get(name))} |" for name in LOSSES]
    lines += ["", "### Checks", "", "| `--checks` | |", "|---|---|"]
    for name in CHECKS:
        check = CHECKS.get(name)
        lines.append(f"| `{name}` | {_first(check)}{' Costly: when asked for.' if check.costly else ''} |")
    lines += ["", "### Exports", "", "| `--format` | | cosine at least |", "|---|---|---|"]
    lines += [f"| `{name}` | {FORMS.get(name).line} | {FORMS.get(name).floor:g} |" for name in FORMS]
    lines += ["", "### Corruptions", ""]
    lines += [f"- of {name}s: {', '.join(WORLDS.get(name).names)}" for name in WORLDS]
    return [*lines, ""]


def _first(kind: type) -> str:
    return (kind.__doc__ or "").partition("\n")[0]


def _options(kind: Any) -> str:
    return ", ".join(f"`{name}={option.default}`" for name, option in kind.options.items())


def _called(name: str, thing: Any) -> list[str]:
    line = f"{name}{_signature(thing)}"
    if len(line) > WIDTH:
        line = line.replace("(", "(\n    ", 1).replace(", **", ",\n    **").replace(") ->", "\n) ->")
        line = re.sub(r", (\*|\w+)(?=[,:])", r",\n    \1", line)
    return ["```python", line, "```", ""]


class _Plain(str):
    """An annotation as it is written, without quotes."""

    __repr__ = str.__str__


def _signature(thing: Any) -> str:
    found = inspect.signature(thing)
    plain = [p.replace(annotation=_plain(p.annotation)) for p in found.parameters.values()]
    return str(found.replace(parameters=plain, return_annotation=_plain(found.return_annotation)))


def _plain(annotation: Any) -> Any:
    return _Plain(annotation) if isinstance(annotation, str) else annotation


def _said(thing: Any) -> list[str]:
    """Return the docstring, sections as lists."""
    text = inspect.getdoc(thing) or ""
    lines: list[str] = []
    for line in text.splitlines():
        section = re.fullmatch(r"(Args|Attributes|Returns|Raises):", line)
        item = re.fullmatch(r" {4}(\S.*)", line)
        if section:
            lines += [f"**{section[1]}**", ""]
        elif item:
            name, colon, rest = item[1].partition(": ")
            lines.append(f"- `{name}`: {rest}" if colon and " " not in name.replace(", ", "") else f"- {item[1]}")
        else:
            lines.append(line)
    return [*lines, ""]


def _paragraph(thing: Any) -> str:
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


def verbs() -> str:
    """Return what the command line says of itself."""
    command = [sys.executable, "-m", "typer", "fastness.cli.main", "utils", "docs", "--name", "fastness"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    text = html.unescape(text).partition("## `fastness train`")
    return re.sub(r"^#", "##", text[1] + text[2], flags=re.MULTILINE)


def page() -> str:
    """Return the whole text."""
    lines = ["# Reference", "", "Made from the code by `make docs`. `import fastness as fs`.", ""]
    for title, addresses in PARTS.items():
        lines += [f"## {title}", ""]
        for address in addresses:
            lines += entry(address)
    lines += ["## What is chosen by name", "", *named(), "## The command line", "", verbs()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def main() -> int:
    """Write, or check."""
    made = page()
    if "--check" in sys.argv:
        true = PAGE.exists() and PAGE.read_text() == made
        print("the reference is true" if true else "docs/reference.md is not what the code says; run make docs")
        return 0 if true else 1
    PAGE.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
