"""Pages: templates in a room's folder ``pages``, rendered with what they share."""

from __future__ import annotations

from typing import Any


def render(template: str, room: str = "fastness.evaluation", /, **values: Any) -> str:
    """Return a page; names ending in ``.html.j2`` are escaped.

    Args:
        template: in the folder ``pages`` of the room, or of this one, where the page lies that all extend.
        room: whose page it is, as a package.
        **values: what the template names.
    """
    import jinja2

    rooms = dict.fromkeys((room, "fastness.evaluation"))
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name, "pages") for name in rooms]),
        autoescape=jinja2.select_autoescape(["html.j2"], default=False),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = lambda value: f"{value:.3f}"
    environment.filters["signed"] = lambda value: f"{value:+.3f}"
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|").replace("\n", " ")
    environment.filters["sentence"] = lambda text: f"{text[:1].upper()}{text[1:]}"
    return environment.get_template(template).render(**values)
