"""Draw the rooms and the arrows between them into ``docs/architecture.md`` from the code's own imports.

``--check`` changes nothing and fails if the page is not what the code says, or a link in the docs is dead.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "architecture.md"
PACKAGE = ROOT / "src" / "fastness"
BEGIN, END = "<!-- drawn from the code: make docs -->", "<!-- end of the drawing -->"


def rooms() -> list[str]:
    """Return the rooms in the order in which one may import, from those above, as import-linter holds them to it."""
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    layers = [layer.split("|") for layer in reversed(contract["layers"])]
    return [room.strip().removeprefix("fastness.") for layer in layers for room in layer]


ROOMS = rooms()


def said(path: Path) -> tuple[str, str]:
    """Return the first line of a module's docstring, and the rest."""
    first, _, rest = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")
    return first, rest.strip()


def arrows() -> dict[str, set[str]]:
    """Return which rooms each room imports from."""
    graph = grimp.build_graph("fastness", cache_dir=None)
    found: dict[str, set[str]] = {room: set() for room in ROOMS}
    for module in graph.modules:
        room = module.split(".")[1] if "." in module else ""
        for imported in graph.find_modules_directly_imported_by(module):
            other = imported.split(".")[1] if "." in imported else ""
            if room in found and other in found and room != other:
                found[room].add(other)
    return found


def essential(found: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Return the arrows that no longer way implies, so that the drawing can be read."""

    def reach(room: str, seen: set[str]) -> set[str]:
        for other in found[room] - seen:
            seen.add(other)
            reach(other, seen)
        return seen

    lines = []
    for room in ROOMS:
        direct = sorted(found[room], key=ROOMS.index)
        implied = {other for other in direct for via in found[room] - {other} if other in reach(via, set())}
        lines += [(room, other) for other in direct if other not in implied]
    return lines


def drawing() -> str:
    """Return the generated part of the page."""
    found = arrows()
    lines = ["```mermaid", "flowchart BT"]
    lines += [f"  {room} --> {other}" for room, other in essential(found)]
    lines += ["```", "An arrow says «imports from»; those that a longer way implies are left out.", ""]
    lines += ["| room | what it is for | files | imports from |", "|---|---|---|---|"]
    for room in ROOMS:
        own = files(room)
        others = ", ".join(sorted(found[room], key=ROOMS.index)) or "nothing"
        lines.append(f"| [`{room}`](#{room}) | {said(own[0])[0]} | {max(1, len(own) - 1)} | {others} |")
    for room in ROOMS:
        own = files(room)
        first, rest = said(own[0])
        lines += ["", f"### {room}", first, *(["", rest] if rest else [])]
        if own[1:]:
            lines += ["", "<details><summary>Files</summary>", ""]
            lines += [f"- `{path.relative_to(PACKAGE)}`: {said(path)[0]}" for path in own[1:]]
            lines += ["", "</details>"]
    return "\n".join(lines)


def files(room: str) -> list[Path]:
    """Return a room's files, first the one that speaks for it."""
    folder = PACKAGE / room
    if not folder.is_dir():
        return [PACKAGE / f"{room}.py"]
    rest = [path for path in sorted(folder.rglob("*.py")) if path.name != "__init__.py" or path.parent != folder]
    return [folder / "__init__.py", *rest]


def dead_links() -> list[str]:
    """Return links in the documentation that lead to no file."""
    dead = []
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        targets = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
        dead += [f"{page.relative_to(ROOT)}: {target}" for target in targets if not (page.parent / target).exists()]
    return dead


def main() -> int:
    """Draw, or check."""
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    new = f"{before}{BEGIN}\n{drawing()}\n{END}{after}"
    problems = dead_links()
    if "--check" in sys.argv:
        if new != text:
            problems.append("docs/architecture.md is not what the code says; run make docs")
    else:
        PAGE.write_text(new)
    print("\n".join(problems) or "docs are true")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
